"""Warm-ups in the running gateway: real sockets, the simulator's own books, time that is jumped over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.core.ids import WorkspaceId
from gateway.core.ledger import Dimension
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState
from gateway.sim.records import Received
from gateway.workers.prewarmer import Prewarmer
from tests.support.clock import ShiftedClock
from tests.support.stack import WORKSPACES, Stack, a_stack

MODEL = "claude-opus-5-5"
SYSTEM = "You are brief and kind. " * 700
LEARNED = {
    "GATEWAY_PLACEMENT__POLICY": "learned",
    "GATEWAY_PLACEMENT__LAYERED_TRUST": "0",
    "GATEWAY_PLACEMENT__REGRET_SHARE": "0.1",
}
PAUSE_SECONDS = 420.0


@asynccontextmanager
async def warming_stack(
    folder: Path, *, environ: Mapping[str, str] | None = None, budget: str = "$5.00"
) -> AsyncIterator[tuple[Stack, ShiftedClock]]:
    clock = ShiftedClock()
    demo = "demo: {upstream: default"
    workspaces = WORKSPACES.replace(demo, f"{demo}, warming_per_day: {budget}")
    async with a_stack(folder, clock=clock, environ=environ, workspaces=workspaces) as stack:
        yield stack, clock


def prewarmer_of(stack: Stack) -> Prewarmer:
    return stack.service.warming.prewarmer


async def ask(stack: Stack, body: Any, **headers: str) -> Any:
    lines = {"x-api-key": stack.keys["demo"], "anthropic-version": "2023-06-01", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.url + "/v1/messages", data=json.dumps(body), headers=lines) as response,
    ):
        assert response.status == 200, await response.text()
        return await response.json()


async def warm(stack: Stack, body: Any, **headers: str) -> WarmOutcome:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    data = json.dumps(body).encode()
    request = WarmRequest(
        workspace=WorkspaceId("demo"), body=data, headers=lines, cause=WarmCause.ASKED, name="morning"
    )
    return await prewarmer_of(stack).warm(request)


def warm_ups(stack: Stack) -> list[Received]:
    """Those that upstream has seen and answered."""
    return [each for each in stack.simulator.requests if b'"max_tokens":0' in each.body and each.usage]


def turns(session: int, count: int) -> dict[str, Any]:
    """A conversation at its turn number `count`, with a long beginning of its own."""
    messages: list[Any] = [{"role": "user", "content": f"{session} " * 8_000}]
    for turn in range(count):
        messages.append({"role": "assistant", "content": f"answer {turn} " * 200})
        messages.append({"role": "user", "content": f"question {turn}"})
    return {"model": MODEL, "max_tokens": 9, "messages": messages}


async def learn_that_users_come_back(stack: Stack, clock: ShiftedClock) -> None:
    """Sessions whose user returns after seven minutes, again and again."""
    for session in range(30):
        for turn in range(4):
            await ask(stack, turns(session, turn))
            clock.jump(20.0 if turn % 2 == 0 else PAUSE_SECONDS)


async def a_session_that_pauses(stack: Stack, clock: ShiftedClock) -> Any:
    """Its latest answer: the user is gone for now."""
    await ask(stack, turns(99, 0))
    clock.jump(20.0)
    return await ask(stack, turns(99, 1))


async def pass_slowly(clock: ShiftedClock, seconds: float) -> None:
    """Three times as fast as real time: the loop has to see each of its moments."""
    for _ in range(round(seconds)):
        clock.jump(1.0 - 1 / 3)
        await asyncio.sleep(1 / 3)


async def test_trap_28_an_entry_is_kept_alive_past_its_end(tmp_path: Path) -> None:
    async with warming_stack(tmp_path, environ=LEARNED) as (stack, clock):
        await learn_that_users_come_back(stack, clock)
        assert warm_ups(stack) == [], "time jumped over every moment to send one"
        first = await a_session_that_pauses(stack, clock)
        began = clock.now()
        clock.jump(283.0)
        await pass_slowly(clock, 15.0)
        (sent,) = warm_ups(stack)
        clock.jump(began + PAUSE_SECONDS - clock.now())
        later = await ask(stack, turns(99, 2))
        report = prewarmer_of(stack).report()
        bill = stack.simulator.bill
        books = {total.group: total for total in await stack.books(Dimension.KEY)}

    prompt = first["usage"]["cache_read_input_tokens"]
    assert sent.usage is not None
    assert sent.usage["cache_read_input_tokens"] == prompt > 5_000
    assert sent.usage["cache_creation_input_tokens"] == 0
    assert 285.0 <= sent.received_at - began <= 300.0
    assert later["usage"]["cache_read_input_tokens"] == prompt, "seven minutes after it was written"
    assert books["warming:demo",].cost_nanousd == sent.cost_nanousd > 0
    assert sum(total.cost_nanousd for total in books.values()) == bill.total_nanousd
    assert [(prefix.bridged, prefix.tokens) for prefix in report] == [(1, prompt)]
    assert report[0].profit_nanousd > 0


async def test_nothing_is_kept_alive_over_budget(tmp_path: Path) -> None:
    async with warming_stack(tmp_path, environ=LEARNED, budget="$0.000001") as (stack, clock):
        await learn_that_users_come_back(stack, clock)
        await a_session_that_pauses(stack, clock)
        clock.jump(283.0)
        await pass_slowly(clock, 15.0)
        outcome = await warm(stack, {"model": MODEL, "max_tokens": 5, "system": SYSTEM, "messages": [HELLO]})
        sent = warm_ups(stack)
        books = {total.group: total for total in await stack.books(Dimension.KEY)}

    assert sent == []
    assert outcome.state is WarmState.OVER_BUDGET
    assert books["warming:demo",].cost_nanousd == 0, "asked, and refused"


HELLO = {"role": "user", "content": "Hello there!"}


@pytest.mark.parametrize("policy", ["rules", "learned"])
async def test_trap_33_prompts_can_be_warm_before_their_first_real_call(tmp_path: Path, policy: str) -> None:
    tools = [{"name": "look", "description": "Looks. " * 300, "input_schema": {"type": "object"}}]
    body = {"model": MODEL, "max_tokens": 50, "stream": True, "system": SYSTEM, "tools": tools}
    environ = {"GATEWAY_PLACEMENT__POLICY": policy}
    beta = {"anthropic-beta": "context-management-2025-06-27"}
    async with warming_stack(tmp_path, environ=environ) as (stack, _):
        outcome = await warm(stack, {**body, "messages": [{"role": "user", "content": "warmup"}]}, **beta)
        again = await warm(stack, {**body, "messages": [HELLO]}, **beta)
        real = await ask(stack, {**body, "stream": False, "messages": [HELLO]}, **beta)
        report = prewarmer_of(stack).report()
        reads = prewarmer_of(stack).book.reads_of("morning")

    assert (outcome.state, again.state) == (WarmState.WARMED, WarmState.ALREADY_WARM)
    assert outcome.written_tokens > 2_000
    assert real["usage"]["cache_read_input_tokens"] == outcome.written_tokens == again.read_tokens
    assert [(prefix.warm_ups, prefix.reads) for prefix in report] == [(2, 1)]
    assert reads == 1


async def test_trap_30_upstream_never_sees_what_it_would_refuse(tmp_path: Path) -> None:
    body = {"model": MODEL, "max_tokens": 50, "system": SYSTEM, "messages": [HELLO]}
    more: list[dict[str, Any]] = [
        {"thinking": {"type": "enabled", "budget_tokens": 1_024}},
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
        {"tool_choice": {"type": "any"}},
        {"compaction": {"type": "summarize"}},
        {"thread": {"type": "create"}},
        {
            "stream": True,
            "cache_control": {"type": "ephemeral"},
            "diagnostics": {"previous_message_id": None},
        },
    ]
    async with warming_stack(tmp_path) as (stack, _):
        outcomes = [await warm(stack, {**body, **each}) for each in more]
        statuses = [each.status for each in stack.simulator.requests]

    assert [outcome.state for outcome in outcomes] == [WarmState.NOT_WARMABLE] * 5 + [WarmState.WARMED]
    assert statuses == [200]
