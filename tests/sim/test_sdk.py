"""The official SDK pointed straight at the simulator, on a real loopback socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam, TextBlockParam, ToolParam

from gateway.sim import Fault, FaultKind, Simulator
from tests.sim.conftest import KEY, MODEL
from tests.support.clock import FakeClock

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello."}]
LONG: list[TextBlockParam] = [
    {"type": "text", "text": "word " * 2_000, "cache_control": {"type": "ephemeral"}}
]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}


async def test_create_and_stream_give_the_same_answer(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model=MODEL, max_tokens=300, messages=HELLO, system=LONG)
    async with client.messages.stream(model=MODEL, max_tokens=300, messages=HELLO, system=LONG) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        streamed = await stream.get_final_message()

    assert message.content[0].type == "text"
    assert text == message.content[0].text
    assert streamed.usage.output_tokens == message.usage.output_tokens
    assert message.usage.cache_creation_input_tokens == streamed.usage.cache_read_input_tokens
    assert streamed.id != message.id


def ask_in_turn(url: str) -> tuple[str, int, list[str]]:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        with client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
            text = stream.get_final_text()
        count = client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens
        return text, count, [model.id for model in client.models.list(limit=7)]


async def test_the_synchronous_client_works_too(simulator: Simulator) -> None:
    text, count, models = await asyncio.to_thread(ask_in_turn, simulator.url)

    assert text
    assert 5 < count < 30
    assert len(models) == len(set(models)) > 14


async def test_models_are_paged_both_ways_and_found_by_id(client: anthropic.AsyncAnthropic) -> None:
    first = await client.models.list(limit=5)
    second = await first.get_next_page()
    back = await client.models.list(limit=5, before_id=second.data[0].id)
    one = await client.models.retrieve("claude-haiku-4-5")

    assert len({m.id for m in [*first.data, *second.data]}) == 10
    assert [m.id for m in back.data] == [m.id for m in first.data]
    assert one.id == "claude-haiku-4-5-20251001"
    assert one.capabilities is not None
    assert one.capabilities.thinking.types.enabled.supported
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-nope")


async def test_a_tool_is_called_when_the_user_asks_and_its_result_ends_it(
    client: anthropic.AsyncAnthropic,
) -> None:
    asked: list[MessageParam] = [{"role": "user", "content": "Please use the get_weather tool."}]
    async with client.messages.stream(model=MODEL, max_tokens=500, messages=asked, tools=[WEATHER]) as stream:
        message = await stream.get_final_message()
    use = next(block for block in message.content if block.type == "tool_use")
    answered: list[MessageParam] = [
        *asked,
        message.to_param(),
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Rain."}]},
    ]
    last = await client.messages.create(model=MODEL, max_tokens=500, messages=answered, tools=[WEATHER])

    assert message.stop_reason == "tool_use"
    assert set(use.input) == {"city", "days"}
    assert isinstance(use.input["days"], int)
    assert last.stop_reason == "end_turn"


async def test_thinking_is_shown_signed_and_counted(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(
        model=MODEL, max_tokens=2_000, messages=HELLO, thinking={"type": "adaptive"}
    ) as stream:
        message = await stream.get_final_message()
    thought = message.content[0]

    assert thought.type == "thinking"
    assert thought.signature
    details = message.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < message.usage.output_tokens


async def test_structured_output_fits_its_schema(client: anthropic.AsyncAnthropic) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "ok": {"type": "boolean"}},
    }
    message = await client.messages.create(
        model=MODEL,
        max_tokens=500,
        messages=HELLO,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert message.content[0].type == "text"
    value = json.loads(message.content[0].text)

    assert set(value) == {"name", "ok"}
    assert isinstance(value["name"], str)


async def test_errors_arrive_as_the_sdks_classes(
    client: anthropic.AsyncAnthropic, simulator: Simulator
) -> None:
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=529))
    with pytest.raises(anthropic.OverloadedError) as overloaded:
        await client.messages.create(model=MODEL, max_tokens=5, messages=HELLO)
    simulator.faults.add(Fault(kind=FaultKind.ERROR_EVENT, status=529, at_event=4))
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        async with client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
            await stream.get_final_message()

    assert overloaded.value.request_id == simulator.requests[0].request_id


async def test_the_sdk_retries_after_a_429(simulator: Simulator) -> None:
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=429, retry_after=0.01))
    async with anthropic.AsyncAnthropic(base_url=simulator.url, api_key=KEY, max_retries=1) as client:
        await client.messages.create(model=MODEL, max_tokens=5, messages=HELLO)

    assert [r.header("x-stainless-retry-count") for r in simulator.requests] == ["0", "1"]


async def test_a_batch_is_worked_through_at_half_price(
    client: anthropic.AsyncAnthropic, simulator: Simulator
) -> None:
    plain = await client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    params: Any = {"model": MODEL, "max_tokens": 100, "messages": HELLO}
    batch = await client.messages.batches.create(
        requests=[
            {"custom_id": "good", "params": params},
            {"custom_id": "stream", "params": params | {"stream": True}},
            {"custom_id": "prewarm", "params": params | {"max_tokens": 0}},
            {"custom_id": "strange", "params": params | {"colour": "red"}},
        ]
    )
    ended = await client.messages.batches.retrieve(batch.id)
    results = {line.custom_id: line.result async for line in await client.messages.batches.results(batch.id)}
    await client.messages.batches.delete(batch.id)

    assert (batch.processing_status, batch.results_url) == ("in_progress", None)
    assert ended.processing_status == "ended"
    assert ended.results_url == f"{simulator.url}/v1/messages/batches/{batch.id}/results"
    counts = ended.request_counts
    assert (counts.succeeded, counts.errored, counts.processing) == (1, 3, 0)
    good, strange = results["good"], results["strange"]
    assert good.type == "succeeded"
    assert good.message.usage.service_tier == "batch"
    assert good.message.content == plain.content
    assert strange.type == "errored"
    assert strange.error.error.message == "colour: Extra inputs are not permitted"
    whole, half = simulator.bill.lines
    assert half.cost_nanousd * 2 == whole.cost_nanousd
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(batch.id)


async def test_a_batch_runs_when_its_time_has_come_and_can_be_cancelled_before(clock: FakeClock) -> None:
    simulator = Simulator(clock=clock, batch_seconds=60)
    await simulator.start()
    request: Any = {"custom_id": "a", "params": {"model": MODEL, "max_tokens": 9, "messages": HELLO}}
    try:
        async with anthropic.AsyncAnthropic(base_url=simulator.url, api_key=KEY, max_retries=0) as client:
            batches = client.messages.batches
            first = await batches.create(requests=[request])
            second = await batches.create(requests=[request])
            with pytest.raises(anthropic.BadRequestError):
                await batches.delete(first.id)
            assert (await batches.cancel(second.id)).processing_status == "canceling"
            assert (await batches.retrieve(first.id)).processing_status == "in_progress"
            clock.advance(60)
            listed = {batch.id: batch.request_counts async for batch in batches.list(limit=1)}
    finally:
        await simulator.stop()

    assert (listed[first.id].succeeded, listed[second.id].canceled) == (1, 1)
    assert len(simulator.bill.lines) == 1


async def test_another_workspace_sees_neither_batch_nor_file(
    client: anthropic.AsyncAnthropic, simulator: Simulator
) -> None:
    request: Any = {"custom_id": "a", "params": {"model": MODEL, "max_tokens": 9, "messages": HELLO}}
    batch = await client.messages.batches.create(requests=[request])
    file = await client.files.upload(file=("a.txt", b"text", "text/plain"))
    async with anthropic.AsyncAnthropic(
        base_url=simulator.url, api_key="sk-test-else", max_retries=0
    ) as other:
        with pytest.raises(anthropic.NotFoundError):
            await other.messages.batches.retrieve(batch.id)
        with pytest.raises(anthropic.NotFoundError):
            await other.files.retrieve_metadata(file.id)
        assert [f async for f in other.files.list()] == []


async def test_files_are_uploaded_listed_and_deleted(
    client: anthropic.AsyncAnthropic, simulator: Simulator
) -> None:
    content = b"\x00binary\r\n--not-the-boundary\r\n\xff"
    file = await client.files.upload(
        file=("dir/data.bin", content, "application/x-data"), expires_in_seconds=3600
    )
    more = [await client.files.upload(file=(f"{n}.txt", b"x", "text/plain")) for n in range(3)]
    listed = [f.id async for f in client.files.list(limit=2)]
    made = simulator.add_file(
        workspace=str(simulator.requests[0].workspace), filename="made.bin", content=content
    )

    assert (file.filename, file.size_bytes, file.mime_type) == (
        "data.bin",
        len(content),
        "application/x-data",
    )
    assert file.expires_at is not None
    assert listed == [*(f.id for f in reversed(more)), file.id]
    with pytest.raises(anthropic.BadRequestError, match="not downloadable"):
        await client.files.download(file.id)
    downloaded = await client.files.download(made)
    assert await downloaded.read() == content
    await client.files.delete(file.id)
    with pytest.raises(anthropic.NotFoundError):
        await client.files.retrieve_metadata(file.id)
