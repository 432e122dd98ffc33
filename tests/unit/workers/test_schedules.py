"""Schedules over a clock that is moved by hand: they fire at their time, once, and nothing ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.adapters.no_peers import NoPeers
from gateway.core.schedule import UNREAD_FIRINGS, Firing, FiringState, Schedule
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState
from gateway.workers.prompt_warmer import PromptWarmer
from gateway.workers.schedules import LATE_SECONDS, Schedules
from tests.support.clock import FakeClock

BODY = b'{"model":"claude-opus-5-5","messages":[{"role":"user","content":"warmup %d"}]}\n'
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HOUR = 3_600.0


class World:
    """One schedule at 08:45 each day, and what it sends."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(MIDNIGHT)
        self.prompts = folder / "prompts.jsonl"
        self.prompts.write_bytes(BODY % 1 + BODY % 2)
        self.sent: list[WarmRequest] = []
        self.state = WarmState.WARMED
        self.reads = 0
        self.fired: asyncio.Queue[Firing] = asyncio.Queue()
        self.schedules = Schedules(
            [
                Schedule(
                    name="morning",
                    cron="45 8 * * *",
                    timezone="UTC",
                    workspace="demo",
                    prompts=str(self.prompts),
                )
            ],
            PromptWarmer(self.warm, self.clock, per_minute=6_000),
            clock=self.clock,
            peers=NoPeers(),
            replica="one",
            random=lambda: 0.5,
            reads=lambda name: self.reads,
            fired=self.fired.put_nowait,
        )

    async def warm(self, request: WarmRequest) -> WarmOutcome:
        self.sent.append(request)
        return WarmOutcome(state=self.state, reason="As told.", written_tokens=5_000, exchange_id="gw_1")

    async def until(self, condition: Callable[[], bool], seconds: float = 30 * HOUR) -> None:
        """Let time pass in small steps until the condition holds."""
        while not condition():
            assert seconds > 0, "it did not come to pass"
            if self.clock.sleeping:
                self.clock.advance(15.0)
                seconds -= 15.0
            await asyncio.sleep(0)

    async def next_firing(self) -> Firing:
        await self.until(lambda: not self.fired.empty())
        return self.fired.get_nowait()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.get_running_loop().create_task(world.schedules.run())
    try:
        yield world
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(World(tmp_path)) as world:
        yield world


async def test_it_fires_at_its_time_with_every_prompt_of_the_file(world: World) -> None:
    firing = await world.next_firing()

    assert 0 <= world.clock.now() - (MIDNIGHT + 8.75 * HOUR) < 60
    assert (firing.state, firing.prompts, firing.warm) == (FiringState.DONE, 2, 2)
    assert firing.written_tokens == 10_000
    assert [request.body for request in world.sent] == [(BODY % 1).strip(), (BODY % 2).strip()]
    assert {(r.workspace, r.cause, r.name) for r in world.sent} == {("demo", WarmCause.SCHEDULE, "morning")}


async def test_it_fires_again_the_next_day_and_says_when(world: World) -> None:
    await world.next_firing()
    (status,) = world.schedules.report()
    assert status.next_at == MIDNIGHT + 32.75 * HOUR
    assert status.last is not None

    assert (await world.next_firing()).due_at == MIDNIGHT + 32.75 * HOUR


async def test_it_is_not_fired_twice_though_the_clock_is_set_back(world: World) -> None:
    first = await world.next_firing()
    world.clock.jump(-HOUR)
    second = await world.next_firing()

    assert second.due_at == first.due_at + 24 * HOUR
    assert len(world.sent) == 4


async def test_what_is_far_too_late_is_missed_and_the_next_is_not(world: World) -> None:
    await world.until(lambda: world.clock.now() > MIDNIGHT + 8 * HOUR)
    world.clock.jump(HOUR + LATE_SECONDS)

    assert (await world.next_firing()).state is FiringState.MISSED
    assert world.sent == []
    assert (await world.next_firing()).state is FiringState.DONE


@pytest.mark.parametrize("content", [None, b"{\n", b""])
async def test_a_broken_file_is_said_and_does_not_end_the_schedule(
    world: World, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        world.prompts.unlink()
    else:
        world.prompts.write_bytes(content)
    firing = await world.next_firing()

    assert firing.state is FiringState.BROKEN
    assert str(world.prompts) in firing.reason
    assert firing.reason in caplog.text
    world.prompts.write_bytes(BODY % 3)
    assert (await world.next_firing()).state is FiringState.DONE


async def test_a_file_that_is_missing_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.prompts.unlink()
    async with running(world):
        await world.until(lambda: "cannot be read" in caplog.text, seconds=300)

    assert "schedule morning" in caplog.text


async def test_what_nobody_reads_is_skipped_with_what_to_do_until_the_file_changes(world: World) -> None:
    for _ in range(UNREAD_FIRINGS):
        assert (await world.next_firing()).state is FiringState.DONE

    skipped = await world.next_firing()

    assert skipped.state is FiringState.UNREAD
    assert "Nobody read" in skipped.reason
    assert "take the schedule out of gateway.yaml" in skipped.reason
    world.prompts.write_bytes(BODY % 7)
    assert (await world.next_firing()).state is FiringState.DONE


async def test_what_somebody_reads_goes_on(world: World) -> None:
    for _ in range(2 * UNREAD_FIRINGS):
        assert (await world.next_firing()).state is FiringState.DONE
        world.reads += 1


async def test_prompts_that_were_refused_do_not_count_as_unread(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    world.state = WarmState.OVER_BUDGET
    for _ in range(2 * UNREAD_FIRINGS):
        firing = await world.next_firing()

    assert firing.state is FiringState.PARTLY
    assert firing.reason == "0 of 2 prompts are warm. Line 1: As told. Line 2: As told."
    assert firing.reason in caplog.text
