"""What the alerts on a replica itself are about, caused for real: each fires on what was exposed."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.adapters.access_log import AccessLog
from gateway.adapters.ledger import Ledger
from gateway.sim.faults import Fault, FaultKind
from tests.e2e.whole.calls import ASK, call, eventually
from tests.support.alert_trial import Page, Trial, assert_fires, booked, page, value
from tests.support.chaos_proxy import ChaosProxy
from tests.support.clock import ShiftedClock
from tests.support.redis_server import RedisServer
from tests.support.stack import LIMITS, WORKSPACES, Stack, a_stack


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with a_stack(tmp_path, settings="capacity: {exchanges: 2}\n") as running:
        yield running


def a_fault(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a fault")


async def test_more_calls_than_capacity_fire(stack: Stack, tmp_path: Path) -> None:
    start = page(stack)
    assert (await call(stack, ASK)).status == 200
    well = await booked(stack)
    stack.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=1.5, times=2))
    statuses = [answer.status for answer in await asyncio.gather(*(call(stack, ASK) for _ in range(6)))]
    wrong = await booked(stack)

    assert sorted(set(statuses)) == [200, 529]
    assert_fires("GatewayFailing", tmp_path, Trial(quiet=(start, well), wrong=(well, wrong)))


async def test_one_fault_in_the_code_fires(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """None is known, so one is put in."""
    start = page(stack)
    assert (await call(stack, ASK)).status == 200
    well = await booked(stack)
    monkeypatch.setattr("gateway.pipeline.request_headers", a_fault)
    answer = await call(stack, ASK)
    wrong = await booked(stack)

    assert (answer.status, answer.json["error"]["type"]) == (500, "api_error")
    assert "failed inside the gateway" in caplog.text
    assert "RuntimeError: a fault" in caplog.text
    trial = Trial(quiet=(start, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayInternalErrors", tmp_path, trial)


async def test_a_store_that_is_far_away_makes_calls_slow_and_fires_both_alerts(tmp_path: Path) -> None:
    """A ninth of a second: within the store's deadline, and more than a call should wait for it."""
    with RedisServer(tmp_path / "redis") as redis:
        async with ChaosProxy(redis.port) as proxy:
            environ = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", "GATEWAY_STORE__KIND": "redis"}
            async with a_stack(tmp_path, environ=environ) as stack:
                assert (await call(stack, ASK)).status == 200
                well = await booked(stack)
                proxy.to_client.delay_seconds = 0.11
                async with asyncio.timeout(60):  # on a machine that is busy, not each is in time
                    for _ in range(3):
                        while (await call(stack, ASK)).status != 200:
                            pass
                wrong = await booked(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), every=10)
    assert_fires("GatewayOverheadHigh", tmp_path, trial)
    assert_fires("GatewayStoreSlow", tmp_path, trial)


async def test_a_loop_that_is_kept_busy_lags(stack: Stack, tmp_path: Path) -> None:
    def turns() -> float:
        return value(page(stack), "gateway_event_loop_lag_seconds_count")

    well = page(stack)
    time.sleep(1.5)  # noqa: ASYNC251  # the fault itself: nothing else runs meanwhile
    await eventually(lambda: turns() > value(well, "gateway_event_loop_lag_seconds_count"))
    wrong = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong))
    assert_fires("GatewayEventLoopLag", tmp_path, trial)


async def test_clients_that_use_up_the_descriptors_fire(stack: Stack, tmp_path: Path) -> None:
    """The process may have so few that some dozens of connections are most of them."""
    host, _, port = stack.url.removeprefix("http://").partition(":")
    well = page(stack)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = int(value(well, "process_open_fds"))
    with ExitStack() as clients:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 100, hard))
        clients.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(45):  # both ends are of this process
            clients.enter_context(closing(socket.create_connection((host, int(port)))))
        await eventually(lambda: len(os.listdir("/proc/self/fd")) >= before + 85)
        wrong = page(stack)
    await eventually(lambda: len(os.listdir("/proc/self/fd")) < before + 30)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=page(stack))
    assert_fires("GatewayFileDescriptors", tmp_path, trial)


async def test_a_refused_configuration_fires_until_one_is_taken_over(stack: Stack, tmp_path: Path) -> None:
    limits = stack.state.parent / "config" / "limits.yaml"
    well = page(stack)
    limits.write_text(LIMITS + "nonsense: true\n")
    stack.service.reload_soon()
    await eventually(lambda: _successful(stack) == 0)
    wrong = page(stack)
    limits.write_text(LIMITS)
    stack.service.reload_soon()
    await eventually(lambda: _successful(stack) == 1)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=page(stack))
    assert_fires("GatewayConfigRefused", tmp_path, trial)


def _successful(stack: Stack) -> float:
    return value(page(stack), "gateway_config_last_reload_successful")


async def test_a_replica_that_a_stream_holds_for_long_as_it_drains_fires(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with a_stack(tmp_path, clock=clock, environ={"GATEWAY_DRAIN__TIMEOUT": "1h"}) as stack:
        well = page(stack)
        stack.simulator.faults.add(Fault(kind=FaultKind.STALL))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(call(stack, ASK))
            await eventually(lambda: stack.service.pipeline.open)
            drain = tasks.create_task(stack.service.drain(announce=False))
            await eventually(lambda: stack.service._refusing)
            clock.jump(16 * 60)
            await asyncio.sleep(0.1)  # two looks at whether all is done
            wrong = page(stack)
            assert not drain.done()
            await stack.service.stop()
            assert answer.exception() or answer.result().status >= 500, "a second signal cuts what runs"

    gone = Page(at=wrong.at, values={}, cumulative=frozenset())
    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=gone)
    assert_fires("GatewayDrainingLong", tmp_path, trial)


async def test_a_log_that_nobody_reads_fires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr("gateway.service.AccessLog", lambda **_: AccessLog(write, human=False, limit=3))
    async with a_stack(tmp_path, quiet=False) as stack:
        well = page(stack)
        os.set_blocking(write, False)
        with ExitStack() as full:
            full.callback(os.close, read)
            while True:
                try:
                    os.write(write, b"x" * 4096)
                except BlockingIOError:
                    break
            os.set_blocking(write, True)
            for _ in range(8):
                assert (await call(stack, ASK)).status == 200
            await eventually(lambda: value(page(stack), "gateway_access_log_dropped_total"))
            wrong = page(stack)

    os.close(write)
    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayAccessLogDropped", tmp_path, trial)


async def test_more_workspaces_than_labels_fire(tmp_path: Path) -> None:
    names = [f"demo-{number}" for number in range(12)]
    workspaces = WORKSPACES + "".join(f"  {name}: {{upstream: default}}\n" for name in names)
    settings = "metrics: {max_label_sets: 10}\n"
    async with a_stack(tmp_path, workspaces=workspaces, settings=settings) as stack:
        well = page(stack)
        await stack.service.spending._read_gauges()
        wrong = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayLabelOverflow", tmp_path, trial)


@pytest.mark.parametrize("observer", [Ledger, AccessLog])
async def test_an_observer_that_fails_once_fires(
    tmp_path: Path, observer: type, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """None is known to fail, so a fault is put in."""
    async with a_stack(tmp_path, quiet=False) as stack:
        assert (await call(stack, ASK)).status == 200
        well = await booked(stack)
        monkeypatch.setattr(observer, "observe", a_fault)
        assert (await call(stack, ASK)).status == 200
        wrong = await booked(stack)
        monkeypatch.undo()

    assert f"observer {observer.__name__} failed" in caplog.text
    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayObserverFailing", tmp_path, trial)
