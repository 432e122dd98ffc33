"""A client may leave at any instant. Whatever the pipeline was waiting for, nothing stays behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.exchange import Basis, State
from tests.support.clock import FakeClock
from tests.support.fakes import (
    STREAM_HEAD,
    FakeReply,
    Played,
    Stage,
    World,
    a_body,
    a_message,
    a_stream,
    an_event,
)

SCRIPTS = {
    "plain": ([Played(pieces=[a_message()])], False),
    "stream": ([Played(headers=STREAM_HEAD, pieces=a_stream())], True),
    "second attempt": (
        [
            Played(error=UpstreamUnreachable("refused", request_sent=False)),
            Played(pieces=[a_message()]),
        ],
        False,
    ),
    "rejected": ([Played(status=529, pieces=[b'{"type":"error"}'])], False),
}


async def awaits_of(script: str, tmp_path: Path) -> int:
    played, streams = SCRIPTS[script]
    world = World(tmp_path, *played)
    await world.call(FakeReply(world.stage, slow=True), body=a_body(stream=streams))
    return world.stage.passed


@pytest.mark.parametrize("script", SCRIPTS)
async def test_leaves_nothing_open_when_cancelled_at_any_await(script: str, tmp_path: Path) -> None:
    awaits = await awaits_of(script, tmp_path)

    assert awaits >= 6
    for cut_at in range(1, awaits + 1):
        played, streams = SCRIPTS[script]
        world = World(tmp_path, *played, stage=Stage(cut_at))
        with pytest.raises(asyncio.CancelledError):
            await world.call(FakeReply(world.stage, slow=True), body=a_body(stream=streams))

        assert world.upstream.opened == world.upstream.closed, cut_at
        assert world.pipeline.open_reservations() == [], cut_at
        assert [len(world.seen.records), world.seen.records[0].id] == [1, "gw_1"], cut_at
        assert await world.open_reservations() == 0, cut_at


@pytest.mark.parametrize("cut_at", range(1, 5))
async def test_costs_nothing_when_cancelled_before_sending(cut_at: int, tmp_path: Path) -> None:
    """Awaits 1 to 4: the body, the store before it acts, the store's answer on its way, connecting."""
    world = World(tmp_path, Played(pieces=[a_message()]), stage=Stage(cut_at))
    with pytest.raises(asyncio.CancelledError):
        await world.call()

    assert world.seen.records[0].state is State.CUT_BY_CLIENT
    assert world.seen.records[0].basis is Basis.NONE
    assert await world.spent_nanousd() == 0


async def test_books_the_estimate_when_cancelled_while_upstream_thinks(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]), stage=Stage(cut_at=5))
    with pytest.raises(asyncio.CancelledError):
        await world.call()

    record = world.seen.records[0]
    assert (record.state, record.basis) == (State.CUT_BY_CLIENT, Basis.ESTIMATED)
    assert record.cost is not None
    assert await world.spent_nanousd() == record.cost.total_nanousd > 0


async def test_trap_41_settles_on_partial_usage_when_client_leaves_a_stream(tmp_path: Path) -> None:
    """Awaits 7 and on are the stream's events: the first told of its input, and some words were seen."""
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=a_stream(20)), stage=Stage(cut_at=17))
    with pytest.raises(asyncio.CancelledError):
        await world.call(body=a_body(stream=True))

    record = world.seen.records[0]
    assert (record.state, record.basis) == (State.CUT_BY_CLIENT, Basis.PARTIAL)
    assert record.usage is not None
    assert record.usage.uncached_input_tokens == 10
    assert 1 < record.usage.output_tokens < 60
    assert await world.spent_nanousd() == record.cost.total_nanousd  # type: ignore[union-attr]


class _Patience(Stage):
    """So many seconds pass before the client leaves."""

    clock: FakeClock
    seconds: float

    async def step(self) -> None:
        if self.passed + 1 == self.cut_at:
            self.clock.advance(self.seconds)
        await super().step()


async def _left_after(tmp_path: Path, seconds: float, played: Played, cut_at: int, **body: object) -> World:
    stage = _Patience(cut_at)
    world = World(tmp_path, played, stage=stage)
    stage.clock, stage.seconds = world.clock, seconds
    with pytest.raises(asyncio.CancelledError):
        await world.call(body=a_body(max_tokens=64_000, **body))
    return world


async def test_trap_41_a_call_that_is_given_up_after_minutes_is_booked_at_what_it_may_have_written(
    tmp_path: Path,
) -> None:
    """Not at what those came to that ended: others like it are shorter, or it would not be given up."""
    world = await _left_after(tmp_path, 200.0, Played(pieces=[a_message()]), 5)

    record = world.seen.records[0]
    assert record.basis is Basis.ESTIMATED
    assert record.usage is not None
    assert record.usage.output_tokens == 20_000
    assert await world.spent_nanousd() == record.cost.total_nanousd  # type: ignore[union-attr]


async def test_trap_41_a_stream_that_is_left_while_it_thinks_is_booked_at_what_it_may_have_written(
    tmp_path: Path,
) -> None:
    start, *rest = a_stream(20)
    thinks = an_event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""})
    pieces = [start, thinks, *rest]
    world = await _left_after(tmp_path, 30.0, Played(headers=STREAM_HEAD, pieces=pieces), 9, stream=True)

    record = world.seen.records[0]
    assert (record.basis, record.usage and record.usage.uncached_input_tokens) == (Basis.PARTIAL, 10)
    assert record.usage is not None
    assert record.usage.output_tokens == 3_000
