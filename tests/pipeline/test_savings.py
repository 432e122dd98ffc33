"""From decision to books: what a policy decides and upstream reports is what a record says of savings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.core.headers import value_of
from gateway.core.ids import PrefixKey
from gateway.core.misses import Miss, MissCause
from gateway.core.models import ModelFacts
from gateway.core.placement import Breakpoint, Occasion, Placement
from gateway.core.prompt import TTL, Prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Workspace
from gateway.core.savings import Cohort, Savings
from tests.support.fakes import KEY, Played, World, a_message

DECIDED = Placement(
    breakpoints=(Breakpoint(0, TTL.FIVE_MINUTES, "the system prompt returns"),),
    prompt_tokens=1_000,
    read_tokens=500,
    write_5m_tokens=400,
    miss=Miss(0, MissCause.EXPIRED, 300, seconds=9.0),
)


class Decided(RulePolicy):
    """Always the same."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion | None = None,
    ) -> Placement:
        return self._placement


ANSWER = a_message(input_tokens=200, cache_read_input_tokens=1_000, cache_creation_input_tokens=800)
"""Twice the tokens that were estimated."""


async def test_a_call_that_was_placed_says_what_it_saved_and_lost(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[ANSWER]), policy=Decided(DECIDED))
    reply = await world.call()

    assert value_of(reply.headers, b"x-gateway-cache") == b"placed; read=500; write=400; miss=expired"
    assert world.seen.records[0].savings == Savings(
        cohort=Cohort.PLACED,
        plain_nanousd=2_000 * 4_000,
        paid_nanousd=200 * 4_000 + 1_000 * 200 + 800 * 5_000,
        expected_read_tokens=1_000,
        miss_cause=MissCause.EXPIRED,
        miss_tokens=600,
        miss_nanousd=600 * 4_800,
    )


async def test_a_call_in_shadow_mode_says_what_it_would_have_cost(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        Played(pieces=[a_message(input_tokens=2_000)]),
        policy=Decided(DECIDED),
        environ={"GATEWAY_PLACEMENT__MODE": "shadow"},
    )
    reply = await world.call()

    savings = world.seen.records[0].savings
    assert savings is not None
    assert value_of(reply.headers, b"x-gateway-cache") == b"shadow; read=500; write=400; miss=expired"
    assert (savings.cohort, savings.paid_nanousd) == (Cohort.SHADOW, 2_000 * 4_000)
    assert savings.shadow_nanousd == 1_000 * 200 + 800 * 5_000 + 200 * 4_000


async def test_a_call_that_opts_out_is_its_own_cohort(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]), policy=Decided(DECIDED))
    reply = await world.call(headers=[(b"x-api-key", KEY.encode()), (b"x-gateway-placement", b"off")])

    assert value_of(reply.headers, b"x-gateway-cache") == b"off"
    assert world.seen.records[0].savings is not None
    assert world.seen.records[0].savings.cohort is Cohort.OFF


async def test_what_upstream_rejected_saved_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, Played(status=529, pieces=[b"{}"]), policy=Decided(DECIDED))
    await world.call()

    assert world.seen.records[0].savings is None
