"""What the alerts on caching are about, caused for real: each fires on what was exposed."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from gateway.core.ids import WorkspaceId
from gateway.core.warmup import WarmCause, WarmRequest, WarmState
from gateway.sim.faults import Fault, FaultKind
from tests.deploy.traffic import SYSTEM, question, teach
from tests.e2e.whole.calls import ASK, call, eventually
from tests.support.alert_trial import Page, Trial, assert_fires, booked, page, value
from tests.support.clock import ShiftedClock
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack


async def after(stack: Stack, *bodies: object) -> Page:
    """After these calls were made, one by one, and booked."""
    for body in bodies:
        assert (await call(stack, body)).status == 200
    return await booked(stack)


async def test_a_prompt_whose_beginning_changes_with_each_call_fires(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        await teach(stack)
        start = await booked(stack)
        well = await after(stack, *(question(number) for number in range(4)))
        wrong = await after(stack, *(question(number, f"It is {number}. {SYSTEM}") for number in range(4)))

    trial = Trial(quiet=(start, well), wrong=(well, wrong), every=300, lasts=2 * 3_600)
    assert_fires("GatewayCacheReadsFell", tmp_path, trial)


async def test_breakpoints_of_an_app_that_nobody_reads_fire(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        well = await after(stack, question(0))
        marks = {"type": "ephemeral", "ttl": "1h"}
        wrong = await after(
            stack,
            *(
                question(n, [{"type": "text", "text": f"{n} {SYSTEM}", "cache_control": marks}])  # type: ignore[arg-type]
                for n in range(3)
            ),
        )

    assert value(wrong, "gateway_input_paid_usd_total", cohort="client") > 0
    trial = Trial(quiet=(well, well), wrong=(well, wrong), every=300)
    assert_fires("GatewayCachingAtLoss", tmp_path, trial)


async def test_a_warm_up_that_nobody_reads_fires(tmp_path: Path) -> None:
    """A long prompt, once."""
    async with a_stack(tmp_path) as stack:
        well = page(stack)
        body = json.dumps({**ASK, "system": SYSTEM * 40}).encode()
        asked = WarmRequest(workspace=WorkspaceId("demo"), body=body, cause=WarmCause.ASKED, name="morning")
        outcome = await stack.service.warming.prewarmer.warm(asked)
        wrong = await booked(stack)

    assert outcome.state is WarmState.WARMED, outcome
    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True, every=300)
    assert_fires("GatewayWarmingAtLoss", tmp_path, trial)


async def test_a_herd_behind_a_slow_call_fires(tmp_path: Path) -> None:
    """Upstream says nothing for six seconds, which are jumped over."""
    clock = ShiftedClock()
    async with a_stack(tmp_path, clock=clock) as stack:
        await teach(stack)
        well = await booked(stack)
        stack.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=2.0))
        cold, flights = SYSTEM + "Another one.", stack.service.pipeline._placing._flights
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(call(stack, question(number, cold))) for number in range(12)]
            await eventually(lambda: sum(each.waiting for each in flights._unanswered.values()) == 11)
            clock.jump(6.0)
        wrong = await booked(stack)

    assert {each.result().status for each in calls} == {200}
    assert value(wrong, "gateway_hold_seconds_count", outcome="read") == 11
    trial = Trial(quiet=(well, well), wrong=(well, wrong))
    assert_fires("GatewayHoldsLong", tmp_path, trial)


async def test_a_herd_behind_calls_that_fail_fires(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        await teach(stack)
        well = await booked(stack)
        stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, times=None))
        cold = SYSTEM + "Another one."
        answers = await asyncio.gather(*(call(stack, question(number, cold)) for number in range(12)))
        wrong = await booked(stack)

    assert {answer.status for answer in answers} == {500}
    trial = Trial(quiet=(well, well), wrong=(well, wrong))
    assert_fires("GatewayHoldsInVain", tmp_path, trial)


async def test_a_planner_that_fails_once_fires_and_the_call_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not known to, so a fault is put in."""
    async with a_stack(tmp_path) as stack:
        well = await after(stack, ASK)
        policy = type(stack.service.warming.policy)
        monkeypatch.setattr(policy, "plan", None)
        wrong = await after(stack, ASK)

    assert "planning failed" in caplog.text
    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayPlacementFailing", tmp_path, trial)


async def test_a_schedule_without_its_file_fires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Due each minute, which is jumped over."""
    monkeypatch.setattr("gateway.workers.schedules.JITTER_SECONDS", 0.0)
    monkeypatch.setattr("gateway.workers.schedules.SLICE_SECONDS", 0.05)
    clock = ShiftedClock()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(question(0)) + "\n")
    schedule = f"cron: '* * * * *', timezone: UTC, workspace: demo, prompts: {prompts}"
    settings = f"warming: {{schedules: {{morning: {{{schedule}}}}}}}\n"
    async with a_stack(tmp_path, settings=settings, clock=clock) as stack:
        well = page(stack)
        prompts.unlink()
        (waiting,) = stack.service.warming._schedules._waiting
        async with asyncio.timeout(40):
            while waiting._last is None:
                clock.jump(60.0)
                await asyncio.sleep(0.1)
        wrong = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayScheduleBroken", tmp_path, trial)


async def test_replicas_without_their_redis_fire(tmp_path: Path) -> None:
    """At the pace at which each of them tries again."""
    with RedisServer(tmp_path / "redis") as redis:
        environ = {"REDIS_URL": redis.url, "GATEWAY_STORE__KIND": "redis"}
        async with a_stack(tmp_path, environ=environ) as stack:
            well = page(stack)
            redis.stop()
            await eventually(lambda: stack.service.metrics._peer_failures("listen")._value.get() >= 2)
            wrong = page(stack)

    seconds = max(1, round(wrong.at - well.at))
    assert_fires(
        "GatewayPeersFailing", tmp_path, Trial(quiet=(well, well), wrong=(well, wrong), every=seconds)
    )


async def test_a_recording_on_a_disk_that_is_full_fires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two news in memory, where there is room for 20,000."""
    write = os.write
    settings = f"placement: {{recording: {tmp_path / 'recording'}}}\n"
    async with a_stack(tmp_path, settings=settings) as stack:
        well = page(stack)
        learning = stack.service._learning
        assert learning is not None
        recording = learning._recording
        assert recording is not None
        recording._writer._limit = 2

        def full(fd: int, data: bytes | memoryview) -> int:
            if fd == recording._fd:
                raise OSError(28, "No space left on device")
            return write(fd, data)

        monkeypatch.setattr("os.write", full)
        for number in range(3):
            await after(stack, question(number))
        await eventually(lambda: recording.dropped)
        wrong = page(stack)
        monkeypatch.undo()

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayRecordingGaps", tmp_path, trial)
