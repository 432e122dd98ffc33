"""The official SDK, current version, through the gateway: an app changes base URL and key, nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool

from gateway.core.ledger import Dimension
from gateway.sim.faults import Fault, FaultKind
from tests.support.stack import Stack

MODEL = "claude-opus-5-5"
LONG = "You are brief and kind. " * 400
ASK: list[Any] = [{"role": "user", "content": "Hello"}]


def client_of(stack: Stack, workspace: str = "demo", **options: Any) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=stack.url, api_key=stack.keys[workspace], **options)


async def test_create_async(stack: Stack) -> None:
    async with client_of(stack) as client:
        message = await client.messages.create(model=MODEL, max_tokens=30, messages=ASK)

    assert message.content[0].type == "text"
    assert message.usage.output_tokens <= 30
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


async def test_create_sync(stack: Stack) -> None:
    def work() -> int:
        with Anthropic(base_url=stack.url, api_key=stack.keys["demo"]) as client:
            return client.messages.create(model=MODEL, max_tokens=30, messages=ASK).usage.output_tokens

    assert 0 < await asyncio.to_thread(work) <= 30


async def test_stream_helper_async(stack: Stack) -> None:
    async with (
        client_of(stack) as client,
        client.messages.stream(model=MODEL, max_tokens=60, messages=ASK) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert text == "".join(block.text for block in final.content if block.type == "text")
    assert final.stop_reason is not None


async def test_stream_helper_sync(stack: Stack) -> None:
    def work() -> str:
        with (
            Anthropic(base_url=stack.url, api_key=stack.keys["demo"]) as client,
            client.messages.stream(model=MODEL, max_tokens=60, messages=ASK) as stream,
        ):
            return "".join(stream.text_stream)

    assert await asyncio.to_thread(work)


async def test_the_gateway_makes_the_second_turn_read_the_cache(stack: Stack) -> None:
    messages: list[Any] = [*ASK]
    async with client_of(stack) as client:
        first = await client.messages.create(model=MODEL, max_tokens=50, system=LONG, messages=messages)
        messages += [{"role": "assistant", "content": first.content}, *ASK]
        second = await client.messages.create(model=MODEL, max_tokens=50, system=LONG, messages=messages)

    assert first.usage.cache_creation_input_tokens > 1_000  # type: ignore[operator]
    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens


async def test_shadow_leaves_every_byte_alone(stack: Stack) -> None:
    async with client_of(stack, "shadow") as client:
        message = await client.messages.create(model=MODEL, max_tokens=50, system=LONG, messages=ASK)

    assert message.usage.cache_creation_input_tokens == 0
    assert b"cache_control" not in stack.simulator.requests[-1].body


async def test_tool_runner_on_message_threads(stack: Stack) -> None:
    """The runner keeps the conversation upstream: ids must reach the client, errors keep their details."""
    seen: list[str] = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Which city.
        """
        seen.append(city)
        return json.dumps({"city": city, "weather": "rain"})

    def work() -> list[Any]:
        with Anthropic(base_url=stack.url, api_key=stack.keys["demo"]) as client:
            runner = client.beta.messages.tool_runner(
                model=MODEL,
                max_tokens=300,
                tools=[get_weather],
                messages=[{"role": "user", "content": "Please use the get_weather tool."}],
            )
            return list(runner)

    messages = await asyncio.to_thread(work)

    assert len(seen) == 1
    assert messages[-1].stop_reason == "end_turn"
    bodies = [json.loads(request.body) for request in stack.simulator.requests]
    assert [body["thread"]["type"] for body in bodies] == ["create", "continue"]


async def test_a_client_may_mark_what_it_adds_to_a_thread(stack: Stack) -> None:
    """Breakpoints stay in a thread, so that any of the gateway's would be in the way of these."""
    mark = {"type": "ephemeral", "ttl": "1h"}
    async with client_of(stack, "demo") as client:
        asked: dict[str, Any] = {"thread": {"type": "create"}, "system": LONG, "messages": ASK}
        for turn in range(5):
            answer = await client.beta.messages.create(
                model=MODEL, max_tokens=20, betas=["message-threads-2026-08-12"], **asked
            )
            text = {
                "type": "text",
                "text": f"turn {turn} " * 900,
                **({"cache_control": mark} if turn < 4 else {}),
            }
            thread = {"type": "continue", "previous_message_id": answer.id}
            asked = {"thread": thread, "messages": [{"role": "user", "content": [text]}]}

    assert [b"cache_control" in request.body for request in stack.simulator.requests] == [False] + [True] * 4


async def test_count_tokens(stack: Stack) -> None:
    async with client_of(stack, "poor") as client:
        counted = await client.messages.count_tokens(model=MODEL, system=LONG, messages=ASK)

    assert counted.input_tokens > 1_000


async def test_trap_67_models_are_those_the_workspace_may_use(stack: Stack) -> None:
    async with client_of(stack, "small") as client:
        ids = [model.id async for model in client.models.list()]
        one_by_one = [model.id async for model in client.models.list(limit=1)]
        one = await client.models.retrieve("claude-haiku-5-5")
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve(MODEL)

    assert len(ids) > 1
    assert all(name.startswith("claude-haiku-") for name in ids)
    assert one_by_one == ids
    assert one.id == "claude-haiku-5-5"


async def test_batches_stay_inside_the_gateway(stack: Stack) -> None:
    params: Any = {"model": MODEL, "max_tokens": 20, "messages": ASK}
    async with client_of(stack) as client:
        batch = await client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
        while batch.processing_status != "ended":
            batch = await client.messages.batches.retrieve(batch.id)
        results = [result async for result in await client.messages.batches.results(batch.id)]

    assert batch.results_url is not None
    assert batch.results_url.startswith(stack.url)
    assert [result.custom_id for result in results] == ["a"]
    assert results[0].result.type == "succeeded"


async def test_trap_68_files_stream_both_ways(stack: Stack) -> None:
    content = bytes(range(256)) * 4_000
    async with client_of(stack) as client:
        file = await client.beta.files.upload(file=("data.bin", content, "application/octet-stream"))
        listed = [item.id async for item in client.beta.files.list()]
        await client.beta.files.delete(file.id)

    assert file.id in listed
    assert file.size_bytes == len(content)
    made = stack.simulator.add_file(workspace="wrkspc_1", filename="made.bin", content=content)
    async with client_of(stack) as client:
        downloaded = await (await client.beta.files.download(made)).read()
    assert downloaded == content


ERRORS: list[tuple[int, str, type[anthropic.APIStatusError]]] = [
    (400, "invalid_request_error", anthropic.BadRequestError),
    (401, "authentication_error", anthropic.AuthenticationError),
    (403, "permission_error", anthropic.PermissionDeniedError),
    (404, "not_found_error", anthropic.NotFoundError),
    (409, "conflict_error", anthropic.ConflictError),
    (413, "request_too_large", anthropic.APIStatusError),
    (429, "rate_limit_error", anthropic.RateLimitError),
    (500, "api_error", anthropic.InternalServerError),
    (504, "timeout_error", anthropic.InternalServerError),
    (529, "overloaded_error", anthropic.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind", "error"), ERRORS)
async def test_upstreams_errors_arrive_as_the_sdks_own_classes(
    status: int, kind: str, error: type[anthropic.APIStatusError], stack: Stack
) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=status, error_type=kind, times=1))
    async with client_of(stack, max_retries=0) as client:
        with pytest.raises(error) as raised:
            await client.messages.create(model=MODEL, max_tokens=10, messages=ASK)

    assert raised.value.status_code == status
    assert raised.value.type == kind
    assert raised.value.request_id is not None
    assert raised.value.request_id.startswith("req_")


async def test_trap_49_waits_as_upstream_asks_and_succeeds(stack: Stack) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=429, retry_after=1, times=1))
    started = time.monotonic()
    async with client_of(stack) as client:
        await client.messages.create(model=MODEL, max_tokens=10, messages=ASK)

    assert time.monotonic() - started >= 1.0
    assert len(stack.simulator.requests) == 2


async def test_trap_40_an_error_event_in_a_stream_raises(stack: Stack) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.ERROR_EVENT, at_event=2, error_type="overloaded_error"))
    async with client_of(stack) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            async with client.messages.stream(model=MODEL, max_tokens=60, messages=ASK) as stream:
                await stream.get_final_message()

    assert raised.value.type == "overloaded_error"


@pytest.mark.parametrize("key", ["unknown", "expired"])
async def test_a_bad_key_is_told_nothing_and_not_retried(key: str, stack: Stack) -> None:
    async with client_of(stack, key) as client:
        with pytest.raises(anthropic.AuthenticationError) as raised:
            await client.messages.create(model=MODEL, max_tokens=10, messages=ASK)

    assert raised.value.response.headers["x-should-retry"] == "false"
    assert "does not accept the credential" in raised.value.message
    assert stack.simulator.requests == []


async def test_a_model_that_is_not_allowed_is_a_403(stack: Stack) -> None:
    async with client_of(stack, "small") as client:
        with pytest.raises(anthropic.PermissionDeniedError, match="claude-haiku"):
            await client.messages.create(model=MODEL, max_tokens=10, messages=ASK)

    assert stack.simulator.requests == []


async def test_trap_47_a_spent_budget_is_a_429_that_nobody_retries(stack: Stack) -> None:
    async with client_of(stack, "poor") as client:
        started = time.monotonic()
        with pytest.raises(anthropic.RateLimitError) as raised:
            await client.messages.create(model=MODEL, max_tokens=1_000, messages=ASK)

    assert time.monotonic() - started < 5
    assert raised.value.response.headers["x-gateway-limit"] == "month"
    assert stack.simulator.requests == []


async def test_the_books_equal_the_simulators_bill(stack: Stack) -> None:
    async with client_of(stack) as client:
        for model in (MODEL, "claude-sonnet-5-5", "claude-haiku-5-5"):
            await client.messages.create(model=model, max_tokens=40, system=LONG, messages=ASK)
            async with client.messages.stream(
                model=model, max_tokens=40, system=LONG, messages=ASK
            ) as stream:
                await stream.get_final_message()

    totals = await stack.books(Dimension.MODEL)

    assert len(totals) == 3
    assert sum(total.cost_nanousd for total in totals) == stack.simulator.bill.total_nanousd
