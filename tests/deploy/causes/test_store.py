"""What the alerts on the store are about, caused for real on a Redis: each fires on what was exposed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.rebuild import LedgerPart
from gateway.sim.faults import Fault, FaultKind
from tests.e2e.whole.calls import ASK, call, eventually
from tests.support.alert_trial import Trial, assert_fires, booked, page, value
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

OPEN = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50, per: month, on_store_failure: allow, comment: test}
"""


@asynccontextmanager
async def on_redis(folder: Path, limits: str = OPEN) -> AsyncIterator[tuple[Stack, RedisServer]]:
    """A replica that has served a call."""
    with RedisServer(folder / "redis") as redis:
        environ = {"REDIS_URL": redis.url, "GATEWAY_STORE__KIND": "redis"}
        async with a_stack(folder, environ=environ, limits=limits) as stack:
            assert (await call(stack, ASK)).status == 200
            await booked(stack)
            yield stack, redis


async def test_a_redis_that_is_gone_fires_until_it_is_back_and_has_what_is_owed(tmp_path: Path) -> None:
    strict = OPEN.replace("on_store_failure: allow, ", "")
    async with on_redis(tmp_path, strict) as (stack, redis):
        well = page(stack)
        redis.stop()
        assert [(await call(stack, ASK)).status for _ in range(3)] == [529] * 3
        wrong = page(stack)
        redis.start()
        await eventually(lambda: not stack.service.spending._guard._away, 20)
        over = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=over)
    for alert in ("GatewayStoreDegraded", "GatewayStoreErrors", "GatewayFailing"):
        assert_fires(alert, tmp_path, trial)


async def test_counters_that_cannot_be_computed_anew_fire_until_the_ledger_can_be_read(
    tmp_path: Path,
) -> None:
    async with on_redis(tmp_path) as (stack, redis):
        well = page(stack)
        rebuilding = stack.service.spending._rebuilding
        read = rebuilding._read

        def broken(*_: object, **__: object) -> LedgerPart:
            raise OSError(5, "Input/output error")

        rebuilding._read = broken
        redis.command("FLUSHALL")
        await call(stack, ASK)
        await eventually(lambda: stack.service.spending._guard.is_rebuilding)
        wrong = page(stack)
        rebuilding._read = read
        await eventually(lambda: not stack.service.spending._guard.is_rebuilding, 20)
        over = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=over)
    assert_fires("GatewayStoreRebuilding", tmp_path, trial)


async def test_a_store_that_admits_and_takes_no_settlement_fires(tmp_path: Path) -> None:
    """Somebody else has changed what it knows of a call that runs."""
    async with on_redis(tmp_path) as (stack, redis):
        guard = stack.service.spending._guard
        well = page(stack)
        stack.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=2.0))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call(stack, ASK))
            await eventually(lambda: len(guard._set_aside) == 1)
            ((reservation_id, _),) = guard._set_aside.items()
            (key,) = re.findall(rf"\S*{reservation_id}\S*", redis.command("KEYS", "*").decode())
            assert redis.command("HSET", key, "charges", "something else") == b":0\r\n"
        await eventually(lambda: guard.owed)
        wrong = page(stack)
        assert (await call(stack, ASK)).status == 200
        await eventually(lambda: not guard.owed, 20)
        over = page(stack)

    assert value(wrong, "gateway_store_degraded") == 0
    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=over)
    assert_fires("GatewaySettlementsOwed", tmp_path, trial)
    assert_fires("GatewayStoreErrors", tmp_path, trial)


async def test_settlements_for_which_there_is_no_room_fire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three are kept, in place of 200,000."""
    monkeypatch.setattr("gateway.adapters.guarded_budgets.MAX_OWED", 3)
    monkeypatch.setattr("gateway.reserving.CLOSE_DELAYS_SECONDS", (0.0,))
    async with on_redis(tmp_path) as (stack, redis):
        well = page(stack)
        redis.stop()
        answers = await asyncio.gather(*(call(stack, ASK) for _ in range(5)))
        assert {answer.status for answer in answers} == {200}
        await eventually(lambda: stack.service.spending._guard.given_up)
        wrong = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewaySettlementsGivenUp", tmp_path, trial)


async def test_a_counter_that_is_behind_the_ledger_fires_until_it_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By less than a thousandth of the limit, which is told and not mended."""
    monkeypatch.setattr("gateway.workers.auditing.AGAIN_SECONDS", 0.0)
    async with on_redis(tmp_path) as (stack, redis):
        auditing = stack.service.spending.auditing
        await auditing.turn()
        well = page(stack)
        (drift, *_) = await auditing.audit()
        lost = redis.command("HINCRBY", f"{{cgw}}:b:{drift.spend.key}", "spent", "-20000000")
        assert lost == b":%d\r\n" % (drift.counted - 20_000_000)
        await auditing.turn()
        wrong = page(stack)
        await auditing.repair()
        await eventually(lambda: not auditing.is_rebuilding, 20)
        await auditing.turn()
        over = page(stack)

    assert value(wrong, "gateway_budget_drift_short_usd") == pytest.approx(0.02)
    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=over)
    assert_fires("GatewayCountersDrift", tmp_path, trial)
