"""What alerts are about, caused for real where no other test does so: the metrics they look at show it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.bucket import Amounts
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.sim.faults import Fault, FaultKind
from gateway.workers.budget_gauges import read_budgets
from tests.e2e.whole.calls import ASK, call, eventually
from tests.support.budgets import reservation
from tests.support.clock import FakeClock
from tests.support.fakes import make_rules
from tests.support.stack import LIMITS, Stack, a_stack


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with a_stack(tmp_path, settings="capacity: {exchanges: 2}\n") as running:
        yield running


def value(stack: Stack, name: str, **labels: str) -> float:
    """0 where it is not there."""
    page = stack.service.metrics.render("text/plain")[1].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_a_refused_configuration_is_said_until_one_is_taken_over(stack: Stack) -> None:
    name, limits = "gateway_config_last_reload_successful", stack.state.parent / "config" / "limits.yaml"
    assert value(stack, name) == 1

    limits.write_text(LIMITS + "nonsense: true\n")
    stack.service.reload_soon()
    await eventually(lambda: value(stack, name) == 0)
    limits.write_text(LIMITS)
    stack.service.reload_soon()
    await eventually(lambda: value(stack, name) == 1)


async def test_the_day_of_the_price_table_is_shown(stack: Stack) -> None:
    name, prices = "gateway_prices_as_of_timestamp_seconds", stack.state.parent / "config" / "prices.yaml"
    before = value(stack, name)
    text = prices.read_text()
    (day,) = (line for line in text.splitlines() if line.startswith("as_of: "))
    prices.write_text(text.replace(day, "as_of: 2026-01-02"))
    stack.service.reload_soon()

    await eventually(lambda: value(stack, name) != before)
    assert value(stack, name) == 1_767_312_000.0


async def test_more_calls_than_capacity_are_the_gateway_s_own_failures(stack: Stack) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=0.5, times=2))
    statuses = [answer.status for answer in await asyncio.gather(*(call(stack, ASK) for _ in range(6)))]

    assert sorted(set(statuses)) == [200, 529]
    assert value(stack, "gateway_errors_total", code="overloaded") == statuses.count(529)


async def test_a_loop_that_is_kept_busy_lags(stack: Stack) -> None:
    def late() -> float:
        count = value(stack, "gateway_event_loop_lag_seconds_count")
        return count - value(stack, "gateway_event_loop_lag_seconds_bucket", le="0.25")

    await eventually(lambda: value(stack, "gateway_event_loop_lag_seconds_count") >= 1)
    before = late()
    time.sleep(1.5)  # noqa: ASYNC251  # the fault itself: nothing else runs meanwhile
    await eventually(lambda: late() > before)


async def test_connections_of_clients_are_descriptors(stack: Stack) -> None:
    host, _, port = stack.url.removeprefix("http://").partition(":")
    before = value(stack, "process_open_fds")
    with ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(closing(socket.create_connection((host, int(port)))))
        # Both ends are of this process, which may close some others meanwhile.
        await eventually(lambda: value(stack, "process_open_fds") >= before + 30)
    assert before < value(stack, "process_max_fds")
    await eventually(lambda: value(stack, "process_open_fds") < before + 20)


async def test_a_replica_that_drains_says_so(stack: Stack) -> None:
    assert value(stack, "gateway_draining") == 0
    stack.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=0.5))
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(call(stack, ASK))
        await eventually(lambda: value(stack, "gateway_inflight_exchanges") == 1)
        tasks.create_task(stack.service.drain(announce=False))
        await eventually(lambda: value(stack, "gateway_draining") == 1)

    assert answer.result().status == 200


async def test_a_budget_that_does_not_last_has_the_instant_when_it_runs_out(tmp_path: Path) -> None:
    """Half a month, 60 of 100: the rest is gone after a third of what has passed; 10 of 100 last."""
    clock = FakeClock(1_800_014_400.0)  # 2027-01-15, noon
    month = Limit(
        id="month", scope=Scope.ORGANISATION, unit=Unit.NANOUSD, amount=100, period=Period.CALENDAR_MONTH
    )
    store, rules = MemoryBudgets(clock), replace(make_rules(tmp_path, {}), limits=Limits((month,)))
    (bound,) = rules.limits.binding(
        Principal(workspace=WorkspaceId("a"), key_id=KeyId(""), key_name="", organisation="default"), ""
    )
    runs_out = []
    for name, nanousd in (("a", 10), ("b", 50)):
        await store.reserve(reservation(name, bound, nanousd=nanousd))
        await store.settle(ReservationId(name), Amounts(nanousd=nanousd))
        runs_out.append([reading.runs_out_at for reading in await read_budgets(rules, store, clock.now())])

    elapsed = clock.now() - 1_798_761_600.0
    assert runs_out[0] == [None] * len(runs_out[0])
    assert runs_out[1][0] == pytest.approx(clock.now() + elapsed * 40 / 60)
