"""Message threads as the SDK's tool runner and its thread helper use them (beta page, November 2026)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic import beta_async_tool, beta_tool

from gateway.sim import Fault, FaultKind, Simulator
from gateway.sim.wire import JsonObject
from tests.sim.conftest import KEY, MODEL
from tests.support.clock import FakeClock

BETA = "message-threads-2026-08-12"
ASK: Any = [{"role": "user", "content": "Please use the get_weather tool."}]


@beta_async_tool
async def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


@beta_tool
def get_weather_now(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


def bodies(simulator: Simulator) -> list[JsonObject]:
    return [json.loads(received.body) for received in simulator.requests]


async def test_the_tool_runner_goes_on_in_a_thread(
    client: anthropic.AsyncAnthropic, simulator: Simulator
) -> None:
    runner = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=500, messages=ASK, tools=[get_weather], system="You are terse."
    )
    messages = [message async for message in runner]
    create, go_on = bodies(simulator)

    assert [m.stop_reason for m in messages] == ["tool_use", "end_turn"]
    assert create["thread"] == {"type": "create"}
    assert go_on["thread"] == {"type": "continue", "previous_message_id": messages[0].id}
    assert len(go_on["messages"]) == 1
    assert not {"system", "tools"} & set(go_on)
    # The prompt is the whole conversation all the same.
    assert messages[1].usage.input_tokens > messages[0].usage.input_tokens + messages[0].usage.output_tokens


def run_in_turn(url: str) -> list[str | None]:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        asked: Any = [{"role": "user", "content": "Please use the get_weather_now tool."}]
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=500, messages=asked, tools=[get_weather_now], stream=True
        )
        return [stream.get_final_message().stop_reason for stream in runner]


async def test_the_synchronous_tool_runner_streams_in_a_thread(simulator: Simulator) -> None:
    assert await asyncio.to_thread(run_in_turn, simulator.url) == ["tool_use", "end_turn"]
    assert [body["thread"]["type"] for body in bodies(simulator)] == ["create", "continue"]


async def test_the_tool_runner_recovers_from_a_lost_thread(
    client: anthropic.AsyncAnthropic, simulator: Simulator
) -> None:
    """State is kept best effort; `error.details.error_code` leads the SDK to replay everything."""
    runner = client.beta.messages.tool_runner(model=MODEL, max_tokens=500, messages=ASK, tools=[get_weather])
    reasons = []
    async for message in runner:
        reasons.append(message.stop_reason)
        simulator.threads.clear()

    assert reasons == ["tool_use", "end_turn"]
    assert [r.status for r in simulator.requests] == [200, 404, 200]
    assert [body["thread"]["type"] for body in bodies(simulator)] == ["create", "continue", "create"]


async def turn(raw: aiohttp.ClientSession, thread: JsonObject, **changes: Any) -> tuple[int, JsonObject]:
    betas = changes.pop("betas", BETA)
    key = changes.pop("key", KEY)
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi."}]}
    headers = {"anthropic-beta": betas, "x-api-key": key}
    async with raw.post("/v1/messages", json=body | {"thread": thread} | changes, headers=headers) as answer:
        return answer.status, await answer.json()


def code(answer: tuple[int, JsonObject]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["details"]["error_code"]


def after(answer: tuple[int, JsonObject]) -> JsonObject:
    return {"type": "continue", "previous_message_id": answer[1]["id"]}


async def test_a_response_can_be_continued_once(raw: aiohttp.ClientSession) -> None:
    first = await turn(raw, {"type": "create"})
    second = await turn(raw, after(first))

    assert second[0] == 200
    assert code(await turn(raw, after(first))) == (400, "thread_already_continued")
    assert (await turn(raw, after(second)))[0] == 200


async def test_a_thread_is_not_found_elsewhere_or_later(raw: aiohttp.ClientSession, clock: FakeClock) -> None:
    first = await turn(raw, {"type": "create"})

    assert code(await turn(raw, after(first), key="sk-test-else")) == (404, "thread_not_found")
    clock.advance(301)
    assert code(await turn(raw, after(first))) == (404, "thread_not_found")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "claude-opus-5"},
        {"thinking": {"type": "adaptive"}},
        {"tool_choice": {"type": "none"}},
        {"cache_control": {"type": "ephemeral"}},
        {"betas": f"{BETA},context-management-2025-06-27"},
    ],
)
async def test_what_a_thread_was_made_with_must_stay(raw: aiohttp.ClientSession, changes: JsonObject) -> None:
    first = await turn(raw, {"type": "create"})

    assert code(await turn(raw, after(first), **changes)) == (400, "thread_fingerprint_mismatch")


async def test_system_must_not_be_repeated(raw: aiohttp.ClientSession) -> None:
    first = await turn(raw, {"type": "create"}, system="You are terse.")

    assert (await turn(raw, after(first), system="You are terse."))[0] == 400


async def test_breakpoints_count_over_the_whole_thread(raw: aiohttp.ClientSession) -> None:
    marked = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]
    first = await turn(raw, {"type": "create"}, messages=[{"role": "user", "content": marked * 4}])
    status, answer = await turn(raw, after(first), messages=[{"role": "user", "content": marked}])

    assert status == 400
    assert "Found 5." in answer["error"]["message"]


async def test_a_cut_continue_can_be_sent_again_and_a_lost_reply_cannot(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    first = await turn(raw, {"type": "create"})
    simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=3))
    with pytest.raises(aiohttp.ClientError):
        await turn(raw, after(first), stream=True)
    simulator.faults.add(Fault(kind=FaultKind.CUT, processed=True))
    with pytest.raises(aiohttp.ClientError):
        await turn(raw, after(first))

    assert code(await turn(raw, after(first))) == (400, "thread_already_continued")
