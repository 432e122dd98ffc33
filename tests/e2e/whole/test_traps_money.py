"""Traps of the API that lie in the money: what is billed, by which price, and what a reservation can bound.

The numbers are those of the checklist in `tests/test_traps.py`. What is booked is compared with the
simulator's own bill, which shares no code with the gateway's prices.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.sim.answers import Scripted
from tests.e2e.whole.calls import ASK, LONG, MODEL, call, eventually, in_front_of
from tests.support.mock_upstream import Peer
from tests.support.stack import Stack, a_stack

GEO = {"inference_geo": "us"}
TOKENS: dict[str, Any] = {"input_tokens": 1_000, "output_tokens": 300}


def iteration(kind: str, model: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "model": model, "cache_read_input_tokens": 0, **TOKENS, **more}


def one_limit(amount: str, *, unit: str = "usd", per: str = "month") -> str:
    return f"""\
defaults:
  - {{id: only, scope: workspace, unit: {unit}, amount: {amount}, per: {per}, comment: test}}
"""


async def scripted(stack: Stack, *, stop: str = "end_turn", details: Any = None, **usage: Any) -> int:
    """Cost of one streamed and one plain call that are answered alike, which the bill confirms."""
    content: Any = [] if stop == "refusal" else "Said."
    answer = Scripted(content=content, stop_reason=stop, stop_details=details, usage=TOKENS | usage, times=2)
    stack.simulator.script.add(answer)
    for stream in (False, True):
        got = await call(stack, {**ASK, "stream": stream})
        assert got.status == 200
    (total,) = await stack.books()
    assert total.guessed_nanousd == 0
    assert total.cost_nanousd == stack.simulator.bill.total_nanousd
    return total.cost_nanousd


PLAIN_NANOUSD = 2 * (1_000 * 4_000 + 300 * 20_000)
"""Twice 1,000 tokens at $4 and 300 at $20 per million."""


async def test_trap_54_geography_and_speed_are_those_of_the_answer(stack: Stack) -> None:
    """The request names neither: a workspace's default, or upstream, chose them."""
    assert await scripted(stack, **GEO) == PLAIN_NANOUSD * 11 // 10


async def test_trap_54_an_alias_is_priced_as_the_model_that_answered(stack: Stack) -> None:
    await call(stack, {**ASK, "model": "claude-haiku-4-5"})
    (total,) = await stack.books()

    assert total.cost_nanousd == stack.simulator.bill.total_nanousd > 0
    assert total.fallback_nanousd == 0


async def test_trap_55_iterations_outside_the_totals_are_billed(stack: Stack) -> None:
    compacted = iteration("compaction", MODEL, input_tokens=50_000)
    listed = [compacted, iteration("message", MODEL)]

    assert await scripted(stack, iterations=listed) == 2 * PLAIN_NANOUSD + 2 * 49_000 * 4_000


async def test_trap_56_thinking_and_the_split_of_writes_are_within_the_totals(stack: Stack) -> None:
    cost = await scripted(
        stack,
        cache_creation_input_tokens=1_000,
        cache_creation={"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
        output_tokens_details={"thinking_tokens": 290},
    )

    assert cost == PLAIN_NANOUSD + 2 * (400 * 5_000 + 600 * 8_000)


async def test_trap_57_writes_without_a_split_are_those_of_five_minutes(stack: Stack) -> None:
    stack.simulator.script.add(
        Scripted(
            content="Said.",
            usage=TOKENS | {"cache_creation_input_tokens": 1_000, "cache_creation": None},
        )
    )
    await call(stack, ASK)
    (total,) = await stack.books()

    assert (total.cache_write_5m_tokens, total.cache_write_1h_tokens) == (1_000, 0)
    assert total.cost_nanousd == PLAIN_NANOUSD // 2 + 1_000 * 5_000


@pytest.mark.parametrize(("category", "billed"), [("cyber", False), ("bio", True), ("frontier_llm", True)])
async def test_trap_58_refusals_before_output_are_free_but_for_three_categories(
    category: str, billed: bool, stack: Stack
) -> None:
    details = {"type": "refusal", "category": category}
    cost = await scripted(stack, stop="refusal", details=details, output_tokens=0)

    assert cost == (2 * 1_000 * 4_000 if billed else 0)


async def test_trap_59_web_searches_are_billed_beside_the_tokens(stack: Stack) -> None:
    cost = await scripted(stack, server_tool_use={"web_search_requests": 3, "web_fetch_requests": 5})

    assert cost == PLAIN_NANOUSD + 2 * 3 * 10_000_000


async def test_trap_60_what_is_set_aside_is_refused_to_others_and_comes_back(tmp_path: Path) -> None:
    """Each call may cost four cents and costs next to nothing; the month has six."""
    answering = asyncio.Event()
    body = (
        b'{"id": "msg_1", "type": "message", "model": "claude-opus-5-5", "content": [], "stop_reason": "x",'
        b' "usage": {"input_tokens": 1, "output_tokens": 1}}'
    )

    async def script(peer: Peer) -> None:
        while True:
            await peer.asked()
            await asyncio.wait_for(answering.wait(), 30)
            await peer.answer(body, b"content-type: application/json")

    ask = {**ASK, "max_tokens": 1_800}
    async with in_front_of(script, tmp_path, limits=one_limit("$0.06")) as (stack, upstream):
        first = asyncio.get_running_loop().create_task(call(stack, ask))
        await eventually(lambda: upstream.requests)
        assert (await call(stack, ask)).status == 429
        answering.set()
        assert (await first).status == 200
        for _ in range(3):
            await eventually(lambda: not stack.service.pipeline.open_reservations())
            assert (await call(stack, ask)).status == 200


async def test_trap_61_what_exceeds_every_bound_is_charged_and_stops_the_next_call(tmp_path: Path) -> None:
    """A loop of server tools reads and writes more than any number in the request says."""
    async with a_stack(tmp_path, limits=one_limit("$0.50")) as stack:
        loop = Scripted(content="Said.", usage={"input_tokens": 200_000, "output_tokens": 5_000})
        stack.simulator.script.add(loop)
        first = await call(stack, {**ASK, "max_tokens": 100})
        await eventually(lambda: not stack.service.pipeline.open_reservations())
        second = await call(stack, {**ASK, "max_tokens": 100})
        (total,) = await stack.books()

    assert (first.status, second.status) == (200, 429)
    assert total.cost_nanousd == 200_000 * 4_000 + 5_000 * 20_000


async def test_trap_64_what_is_read_from_the_cache_uses_up_no_input_tokens(tmp_path: Path) -> None:
    """The minute has room for one prompt written and hardly more, and thrice as much is read."""
    async with a_stack(tmp_path, limits=one_limit("20k", unit="input_tokens", per="minute")) as stack:
        for number in range(4):
            got = await call(stack, {**ASK, "system": LONG * 3, "max_tokens": 10})
            assert got.status == 200, number
            await eventually(lambda: not stack.service.pipeline.open_reservations())
        (total,) = await stack.books()

    assert total.cache_read_tokens > 20_000


async def test_trap_66_token_counting_passes_a_spent_budget_and_costs_nothing(stack: Stack) -> None:
    ask = {"model": MODEL, "messages": ASK["messages"]}
    counted = [await call(stack, ask, path="/v1/messages/count_tokens", key="poor") for _ in range(5)]
    (total,) = await stack.books()

    assert {got.status for got in counted} == {200}
    assert (total.requests, total.refused, total.cost_nanousd) == (5, 0, 0)
