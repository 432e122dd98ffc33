"""The wire of the simulated Messages API, over a real socket with a plain HTTP client."""

from __future__ import annotations

import asyncio
import gzip
import io
import json

import aiohttp
import pytest

from gateway.sim import Pacing, Scripted, Simulator
from gateway.sim.wire import JsonObject
from tests.sim.calls import LONG, call, error, post
from tests.sim.conftest import KEY
from tests.support.clock import FakeClock


async def test_answers_a_message_with_full_usage_and_headers(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    async with raw.post("/v1/messages?beta=true", json=call(system=LONG)) as response:
        message = await response.json()
        headers = response.headers

    assert response.status == 200
    assert message["type"] == "message"
    assert message["stop_reason"] == "end_turn"
    assert "diagnostics" in message
    assert set(message["usage"]) == {
        "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation",
        "output_tokens", "output_tokens_details", "server_tool_use", "service_tier", "inference_geo", "speed",
    }  # fmt: skip
    written = message["usage"]["cache_creation_input_tokens"]
    assert written > 2_000
    assert message["usage"]["cache_creation"] == {
        "ephemeral_5m_input_tokens": written,
        "ephemeral_1h_input_tokens": 0,
    }
    assert headers["request-id"].startswith("req_")
    assert headers["anthropic-workspace-id"] == simulator.requests[-1].workspace
    assert headers["anthropic-organization-id"]
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        for what in ("limit", "remaining", "reset"):
            assert f"anthropic-ratelimit-{name}-{what}" in headers


async def test_streams_events_in_the_documented_order(raw: aiohttp.ClientSession) -> None:
    plain = (await post(raw, call(system=LONG)))[1]
    async with raw.post("/v1/messages", json=call(system=LONG, stream=True)) as response:
        text = (await response.read()).decode()
    events = [
        (lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: ")))
        for lines in (part.split("\n") for part in text.strip().split("\n\n"))
    ]
    names = [name for name, _ in events]
    said = "".join(e["delta"]["text"] for n, e in events if n == "content_block_delta")
    first, last = events[0][1]["message"], events[-2][1]

    assert response.headers["content-type"].startswith("text/event-stream")
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert all(name == data["type"] for name, data in events)
    assert said == plain["content"][0]["text"]
    assert first["usage"]["cache_read_input_tokens"] == plain["usage"]["cache_creation_input_tokens"]
    assert first["usage"]["cache_creation"]["ephemeral_5m_input_tokens"] == 0
    assert last["usage"]["output_tokens"] == plain["usage"]["output_tokens"]
    # The split by TTL, tier, geography and speed come in message_start only.
    assert not {"cache_creation", "service_tier", "inference_geo", "speed"} & set(last["usage"])


async def test_a_slow_stream_pings_between_its_deltas() -> None:
    simulator = Simulator(pacing=Pacing(events_per_second=20, ping_seconds=0.02))
    await simulator.start()
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    asked = [{"role": "user", "content": "Say 9 words."}]
    try:
        async with (
            aiohttp.ClientSession(simulator.url, headers=headers) as session,
            session.post("/v1/messages", json=call(stream=True, messages=asked)) as response,
        ):
            text = (await response.read()).decode()
    finally:
        await simulator.stop()

    deltas = text.count("event: content_block_delta")
    assert deltas == 3
    assert text.count("event: ping") == 1 + 2 * deltas


@pytest.mark.parametrize(
    ("changes", "status", "kind", "message"),
    [
        ({"model": None}, 400, "invalid_request_error", "model: Field required"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Field required"),
        ({"messages": []}, 400, "invalid_request_error", "messages: at least one message is required"),
        ({"model": "claude-nope"}, 404, "not_found_error", "model: claude-nope"),
        ({"gateway": 1}, 400, "invalid_request_error", "gateway: Extra inputs are not permitted"),
        ({"thread": {"type": "create"}}, 400, "invalid_request_error", "thread: Extra inputs are not"),
        ({"max_tokens": 128_001}, 400, "invalid_request_error", "128001 > 128000"),
        ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error", "forced tool use"),
        ({"thinking": {"type": "disabled"}}, 400, "invalid_request_error", "thinking.type"),
        ({"thinking": {"type": "enabled"}}, 400, "invalid_request_error", "thinking.type"),
        ({"speed": "fast", "model": "claude-opus-5"}, 400, "invalid_request_error", "fast-mode-2026-02-01"),
        ({"inference_geo": "us", "model": "claude-haiku-4-5"}, 400, "invalid_request_error", "inference_geo"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            400, "invalid_request_error", "prefill",
        ),
        ({"system": [{"type": "text", "text": ""}]}, 400, "invalid_request_error", "non-empty"),
        ({"system": [*LONG, *LONG, *LONG, *LONG, *LONG]}, 400, "invalid_request_error", "Found 5."),
    ],
)  # fmt: skip
async def test_refuses_in_the_apis_words(
    raw: aiohttp.ClientSession, changes: JsonObject, status: int, kind: str, message: str
) -> None:
    got = await error(raw, call(**changes))

    assert got[:2] == (status, kind)
    assert message in got[2]


async def test_error_envelope_carries_the_request_id_of_the_header(raw: aiohttp.ClientSession) -> None:
    async with raw.get("/v1/nowhere") as response:
        body = await response.json()

    assert response.status == 404
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert body["request_id"] == response.headers["request-id"]


async def test_sampling_parameters_are_legal_under_the_old_version_only(raw: aiohttp.ClientSession) -> None:
    """2026-10-21 refuses temperature, top_p and top_k (versioning page, October 2026)."""
    for name, value in (("temperature", 1.0), ("top_p", 0.5), ("top_k", 5)):
        assert (await post(raw, call(**{name: value})))[0] == 200
        assert (await error(raw, call(**{name: value}), anthropic_version="2026-10-21"))[0] == 400


async def test_new_version_refuses_documents_of_the_assistant_and_citations_of_the_user(
    raw: aiohttp.ClientSession,
) -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    cited = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}
    bodies = [
        call(messages=[{"role": "assistant", "content": [document]}, {"role": "user", "content": "x"}]),
        call(messages=[{"role": "user", "content": [cited]}]),
    ]
    for body in bodies:
        assert (await post(raw, body))[0] == 200
        assert (await post(raw, body, anthropic_version="2026-10-21"))[0] == 400


async def test_caches_age_by_the_clock(raw: aiohttp.ClientSession, clock: FakeClock) -> None:
    await post(raw, call(system=LONG))
    clock.advance(299)
    warm = await post(raw, call(system=LONG))
    clock.advance(301)
    cold = await post(raw, call(system=LONG))

    assert warm[1]["usage"]["cache_read_input_tokens"] > 0
    assert cold[1]["usage"]["cache_read_input_tokens"] == 0


async def test_cold_requests_side_by_side_each_write() -> None:
    """An entry is readable from the first byte of the response that wrote it."""
    simulator = Simulator(pacing=Pacing(first_byte_seconds=0.2))
    await simulator.start()
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    try:
        async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
            answers = await asyncio.gather(*(post(session, call(system=LONG)) for _ in range(3)))
            later = await post(session, call(system=LONG))
    finally:
        await simulator.stop()

    assert all(answer[1]["usage"]["cache_creation_input_tokens"] > 0 for answer in answers)
    assert later[1]["usage"]["cache_creation_input_tokens"] == 0


async def test_prewarm_writes_and_answers_nothing(raw: aiohttp.ClientSession, simulator: Simulator) -> None:
    message = (await post(raw, call(system=LONG, max_tokens=0)))[1]
    later = (await post(raw, call(system=LONG)))[1]

    assert message["content"] == []
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 0
    assert simulator.bill.lines[0].cost_nanousd > 0
    assert later["usage"]["cache_read_input_tokens"] == message["usage"]["cache_creation_input_tokens"]


@pytest.mark.parametrize(
    "clash",
    [
        {"stream": True},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "model": "claude-sonnet-4-6"},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"tool_choice": {"type": "any"}, "model": "claude-opus-5"},
        {"tool_choice": {"type": "tool", "name": "t"}, "model": "claude-opus-5"},
    ],
)
async def test_prewarm_refuses_what_would_sample(raw: aiohttp.ClientSession, clash: JsonObject) -> None:
    status, _, message = await error(raw, call(max_tokens=0, **clash))

    assert status == 400
    assert "`max_tokens: 0` cannot be combined with" in message


async def test_count_tokens_takes_its_own_fields_only(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    path = "/v1/messages/count_tokens"
    counted = await post(raw, call(system=LONG, max_tokens=None), path=path)
    message = await post(raw, call(system=LONG))

    usage = message[1]["usage"]
    assert counted[1] == {"input_tokens": usage["input_tokens"] + usage["cache_creation_input_tokens"]}
    assert (await error(raw, call(), path=path))[2] == "max_tokens: Extra inputs are not permitted"
    for name in ("stream", "metadata", "temperature", "service_tier", "stop_sequences"):
        refused = await error(raw, call(max_tokens=None, **{name: 1}), path=path)
        assert refused[2] == f"{name}: Extra inputs are not permitted"
    five = call(max_tokens=None, system=LONG * 5)
    assert "Found 5." in (await error(raw, five, path=path))[2]
    assert len(simulator.bill.lines) == 1


async def test_gzip_bodies_are_read_and_others_refused(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    packed = gzip.compress(json.dumps(call()).encode())
    async with raw.post("/v1/messages", data=packed, headers={"content-encoding": "gzip"}) as response:
        assert response.status == 200
    assert simulator.requests[-1].body == packed
    async with raw.post("/v1/messages", data=b"x", headers={"content-encoding": "zstd"}) as response:
        body = await response.json()
    assert body["error"]["details"]["error_code"] == "request_body_encoding_unsupported"


async def test_bodies_over_32_megabytes_are_refused(raw: aiohttp.ClientSession) -> None:
    async with raw.post("/v1/messages", data=io.BytesIO(b" " * (32 * 1024 * 1024 + 1))) as response:
        assert response.status == 413
        assert (await response.json())["error"]["type"] == "request_too_large"


async def test_output_never_exceeds_max_tokens(raw: aiohttp.ClientSession) -> None:
    asked = [{"role": "user", "content": "Say 300 words."}]
    short = (await post(raw, call(messages=asked, max_tokens=10)))[1]
    whole = (await post(raw, call(messages=asked, max_tokens=4_000)))[1]

    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 10)
    assert whole["stop_reason"] == "end_turn"
    assert len(whole["content"][0]["text"].split()) == 300
    assert whole["content"][0]["text"].startswith(short["content"][0]["text"])


async def test_a_scripted_answer_is_exact_and_billed_as_scripted(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 1_000_000, "output_tokens": 3}
    simulator.script.add(Scripted(content="Just so.", usage=usage))
    message = (await post(raw, call()))[1]

    assert message["content"] == [{"type": "text", "text": "Just so."}]
    assert message["usage"] | usage == message["usage"]
    assert simulator.bill.lines[-1].cost_nanousd == 10 * 4000 + 1_000_000 * 200 + 3 * 20_000


async def test_a_hook_may_script_by_the_request() -> None:
    def hook(body: JsonObject) -> Scripted | None:
        return Scripted(content="No.", stop_reason="refusal") if body["max_tokens"] == 1 else None

    simulator = Simulator(script=hook)
    await simulator.start()
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    try:
        async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
            refused = await post(session, call(max_tokens=1))
            usual = await post(session, call())
    finally:
        await simulator.stop()

    assert refused[1]["stop_reason"] == "refusal"
    assert usual[1]["stop_reason"] == "end_turn"


async def test_fast_and_us_are_reported_and_billed(raw: aiohttp.ClientSession, simulator: Simulator) -> None:
    await post(raw, call())
    fast = (await post(raw, call(speed="fast", inference_geo="us")))[1]
    usual, dear = simulator.bill.lines

    assert (fast["usage"]["speed"], fast["usage"]["inference_geo"]) == ("fast", "us")
    assert dear.cost_nanousd * 10 == usual.cost_nanousd * 22
