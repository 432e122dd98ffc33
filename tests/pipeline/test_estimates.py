"""From bill to reservation: what calls were billed moves what is set aside for the next ones like them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.bucket import Amounts
from gateway.core.errors import UpstreamCut
from gateway.core.learned_estimates import enough
from gateway.core.plan import estimate_plan
from tests.support.fakes import STREAM_HEAD, Played, World, a_body, a_message, a_stream
from tests.unit.planner.callers import SYSTEM, Caller, a_call, a_warm_up

ENOUGH = enough(0.9)


async def calls(world: World, count: int, **body: Any) -> Amounts:
    """What was set aside for the last of so many calls."""
    for _ in range(count):
        await world.call(body=a_body(max_tokens=9_000, **body))
    reservation = world.seen.records[-1].reservation
    assert reservation is not None
    return reservation.amounts


async def test_what_was_billed_moves_what_is_set_aside(tmp_path: Path) -> None:
    answers = [Played(pieces=[a_message(input_tokens=6_000, output_tokens=200)]) for _ in range(ENOUGH + 1)]
    world = World(tmp_path, *answers)
    untaught = await calls(world, ENOUGH)
    taught = await calls(world, 1)

    assert untaught.output_tokens == 8_192
    assert 200 <= taught.output_tokens < 230
    assert 6_000 <= taught.prompt_tokens < 6_300
    assert taught.nanousd < untaught.nanousd / 3


async def test_an_answer_that_was_cut_teaches_nothing(tmp_path: Path) -> None:
    """What it would have come to is not known."""
    pieces = a_stream()[:3]
    cut = [
        Played(pieces=pieces, headers=STREAM_HEAD, ends_with=UpstreamCut("gone")) for _ in range(ENOUGH + 1)
    ]
    world = World(tmp_path, *cut)
    for _ in range(ENOUGH + 1):
        with pytest.raises(UpstreamCut):
            await calls(world, 1, stream=True)
    reservation = world.seen.records[-1].reservation

    assert len(world.seen.records) == ENOUGH + 1
    assert reservation is not None
    assert reservation.amounts.output_tokens == 8_192


def test_a_warm_up_of_our_own_is_set_aside_as_the_read_that_it_is(tmp_path: Path) -> None:
    """Of a prefix that is known to be cached; one that is not is set aside as a write."""
    caller = Caller(tmp_path)
    cold = caller.ask(a_warm_up(SYSTEM), warm_up=True, answer=False)
    caller.policy.failed("1", caller.at)
    for _ in range(3):
        caller.ask(a_call("q" * 900, system=SYSTEM), seconds=20.0)
    kept = caller.ask(a_warm_up(SYSTEM), seconds=20.0, warm_up=True, answer=False)
    written, read = (
        estimate_plan(plan, rules=caller.rules, workspace=caller.workspace, at=caller.at)
        for plan in (cold, kept)
    )

    assert read.usage.output_tokens == 0
    assert read.usage.cache_read_tokens > 0.9 * read.amounts.prompt_tokens
    assert read.nanousd < written.nanousd / 5
