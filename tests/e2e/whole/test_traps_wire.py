"""Traps of the API that lie on the wire: streams, headers, errors, retries, bodies too large to hold.

The numbers are those of the checklist in `tests/test_traps.py`. Where an answer must be spelled to the byte,
or one side must wait for the other, upstream is a script; elsewhere it is the simulator.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import pytest

from gateway.core.ledger import Total
from gateway.settings.traffic import Sizes, Timeouts
from gateway.sim.faults import Fault, FaultKind
from gateway.sim.pacing import Pacing
from tests.e2e.whole.calls import ASK, LONG, VERSION, call, in_front_of
from tests.support.mock_upstream import Peer, chunked, forever
from tests.support.raw_client import RawClient
from tests.support.stack import Stack, a_stack

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
START = (
    b'event: message_start\r\ndata: {"type": "message_start", "message": {"id": "msg_1", \r\n'
    b'data:  "type": "message", "model": "claude-opus-5-5",\r\n'
    b'data:  "usage": {"input_tokens": 100, "output_tokens": 1,\r\n'
    b'data:  "inference_geo": "us", "of_next_year": {"a": 1.0}}}}\r\n\r\n'
)
EVENTS = (
    START[:90],  # events straddle pieces
    START[90:],
    b": a comment\n\n",
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b'event: hologram_delta\ndata: {"type": "hologram_delta", "n": 1e2}\n\n',
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": {"type":'
    b' "text_delta", "text": "Hello"}}\n\n',
    b'event: message_delta\ndata: {"type": "message_delta", "usage": {"output_tokens": 7}}\n\n',
    b'event: message_delta\ndata: {"type": "message_delta", "usage": {"output_tokens": 20}}\n\n',
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
)
STREAMED_NANOUSD = 100 * 4_400 + 20 * 22_000
"""100 tokens at $4 and 20 at $20 per million, a tenth more in the geography that only the start names."""
MESSAGE = (
    b'{"id": "msg_1", "type":"message",  "model": "claude-opus-5-5", "diagnostics": {"x": 1.0, "x": 2},\n'
    b' "input_transformations": ["a"], "stop_reason": "of_next_year", "content": [{"type": "hologram"}],'
    b' "usage": {"input_tokens": 100, "output_tokens": 20, "inference_geo": "us", "tier_2": null}}'
)


def plain(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", *headers]
    return b"\r\n".join(lines) + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def in_steps(pieces: Sequence[bytes], folder: Path) -> tuple[bytes, Mapping[str, str], Total]:
    """Stream through the gateway, where upstream says no piece until the client has the one before: what
    arrived, and what was booked. A gateway that waits for more before it sends would wait for ever."""
    arrived = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(STREAM_HEAD)
        for piece in pieces:
            await peer.say(chunked(piece, end=False))
            await asyncio.wait_for(arrived.wait(), 30)
            arrived.clear()
        await peer.say(b"0\r\n\r\n")

    async with in_front_of(script, folder) as (stack, _), aiohttp.ClientSession() as session:
        ask, headers = {**ASK, "stream": True}, {"x-api-key": stack.keys["demo"]}
        async with session.post(stack.url + "/v1/messages", json=ask, headers=headers) as response:
            received, expected = b"", b""
            for piece in pieces:
                expected += piece
                while len(received) < len(expected):
                    more = await asyncio.wait_for(response.content.readany(), 30)
                    assert more, "the stream ended early"
                    received += more
                assert received == expected
                arrived.set()
            assert await response.content.read() == b""
        (total,) = await stack.books()
    return received, response.headers, total


async def test_trap_34_upstream_says_no_more_until_the_client_has_what_it_said(tmp_path: Path) -> None:
    _, headers, _ = await in_steps(EVENTS, tmp_path)

    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers


async def test_trap_35_an_answer_compressed_unasked_crosses_as_it_is_and_is_booked(tmp_path: Path) -> None:
    packed = gzip.compress(MESSAGE)
    answer = plain(packed, b"content-encoding: gzip")
    async with in_front_of(forever(answer), tmp_path) as (stack, upstream):
        got = await call(stack, ASK, headers=[("accept-encoding", "gzip, br, zstd")])
        (total,) = await stack.books()

    assert upstream.requests[0].header(b"accept-encoding") == b"identity"
    assert (got.headers["content-encoding"], got.body) == ("gzip", packed)
    assert total.cost_nanousd == STREAMED_NANOUSD


async def test_trap_36_a_body_far_over_a_megabyte_is_read_whole(tmp_path: Path) -> None:
    async with in_front_of(forever(plain(MESSAGE)), tmp_path) as (stack, upstream):
        sent = json.dumps({**ASK, "system": "x" * (30 << 20)}).encode()
        got = await call(stack, sent, headers=[("x-gateway-placement", "off")])

    assert got.status == 200
    assert upstream.requests[0].body == sent


def test_trap_36_by_default_the_longest_call_and_the_largest_bodies_of_the_api_pass() -> None:
    """Ten minutes for a call that does not stream; 32, 256 and 500 MB."""
    timeouts, sizes = Timeouts(), Sizes()

    assert timeouts.upstream_head > 600
    assert timeouts.upstream_idle > 60
    assert [sizes.messages, sizes.batches, sizes.files] == [32 << 20, 256 << 20, 500 << 20]


async def test_trap_37_events_split_folded_and_unknown_are_read_on_a_copy(tmp_path: Path) -> None:
    stream = b"".join(EVENTS)
    received, _, total = await in_steps([stream[at : at + 7] for at in range(0, len(stream), 7)], tmp_path)

    assert received == stream
    assert total.cost_nanousd == STREAMED_NANOUSD


async def test_trap_38_of_several_cumulative_counts_the_last_is_booked(tmp_path: Path) -> None:
    async with in_front_of(forever(STREAM_HEAD + chunked(*EVENTS)), tmp_path) as (stack, _):
        await call(stack, {**ASK, "stream": True})
        (total,) = await stack.books()

    assert total.output_tokens == 20


async def test_trap_40_a_stream_that_fails_after_its_200_is_an_error_and_billed_so_far(stack: Stack) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.ERROR_EVENT, at_event=4, error_type="overloaded_error"))
    got = await call(stack, {**ASK, "stream": True})
    async with aiohttp.ClientSession() as session, session.get(stack.service.admin_url + "/metrics") as page:
        metrics = await page.text()
    (total,) = await stack.books()

    assert got.status == 200
    assert 'outcome="stream_error"' in metrics
    assert 'outcome="answered"' not in metrics
    assert total.uncached_input_tokens == stack.simulator.bill.lines[0].usage["input_tokens"]
    assert total.cost_nanousd > 0


async def test_trap_42_names_of_events_arrive(tmp_path: Path) -> None:
    async with in_front_of(forever(STREAM_HEAD + chunked(*EVENTS)), tmp_path) as (stack, _):
        got = await call(stack, {**ASK, "stream": True})

    assert got.body.count(b"event: ") == b"".join(EVENTS).count(b"event: ") == 7


async def test_trap_43_headers_of_the_clients_hop_stay_on_it_and_betas_become_one_list(
    tmp_path: Path,
) -> None:
    body = json.dumps(ASK).encode()
    async with (
        in_front_of(forever(plain(MESSAGE)), tmp_path) as (stack, upstream),
        await RawClient.connect(int(stack.url.rpartition(":")[2])) as client,
    ):
        await client.post(
            "/v1/messages",
            body,
            b"x-api-key: " + stack.keys["demo"].encode(),
            b"connection: keep-alive, x-mine",
            b"x-mine: 1",
            b"keep-alive: timeout=5",
            b"proxy-authorization: Basic eA==",
            b"te: trailers",
            b"anthropic-beta: b-2026-01-01,a-2026-01-01",
            b"anthropic-beta: c-2026-01-01",
        )
        got = await client.response()
        host = upstream.base_url.removeprefix("http://").encode()

    (asked,) = upstream.requests
    names = [name for name, _ in asked.headers]
    assert got.status == 200
    assert not {b"x-mine", b"keep-alive", b"proxy-authorization", b"te"} & set(names)
    assert [names.count(name) for name in (b"host", b"content-length", b"anthropic-beta")] == [1, 1, 1]
    assert asked.header(b"host") == host
    assert asked.header(b"anthropic-beta") == b"b-2026-01-01,a-2026-01-01,c-2026-01-01"


TARGETS = [
    ("POST", "/v1/messages?beta=true"),
    ("POST", "/v1/messages?beta=true&x=%7e&x="),
    ("GET", "/v1/files/file%2F1//a%20b?q=a+b"),
    ("DELETE", "/v1/files/file_1/"),
    ("GET", "/v1/skills//x"),
]


@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_trap_44_a_target_goes_up_as_it_was_spelled_and_no_redirect_leads_out(
    method: str, target: str, tmp_path: Path
) -> None:
    moved = plain(b"{}", b"location: /elsewhere", status=b"307 Temporary Redirect")
    async with in_front_of(forever(moved), tmp_path) as (stack, upstream):
        port = int(stack.url.rpartition(":")[2])
        async with await RawClient.connect(port) as client:
            key = b"x-api-key: " + stack.keys["demo"].encode()
            body = json.dumps(ASK).encode() if method == "POST" else b""
            lines = [f"{method} {target} HTTP/1.1".encode(), b"host: x", key]
            lines.append(b"content-length: %d" % len(body))
            await client.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            got = await client.response()

    assert (got.status, got.header(b"location")) == (307, None)
    assert [asked.line for asked in upstream.requests] == [f"{method} {target} HTTP/1.1".encode()]


async def test_trap_46_upstreams_request_id_is_left_alone_and_local_errors_have_one(stack: Stack) -> None:
    answered = await call(stack, ASK)
    rejected = await call(stack, {**ASK, "max_tokens": "x"})
    refused = await call(stack, ASK, key="unknown")

    for got, request in zip((answered, rejected), stack.simulator.requests, strict=True):
        assert got.headers["request-id"] == request.request_id
        assert got.headers["x-gateway-exchange-id"].startswith("gw_")
    assert refused.headers["request-id"] == refused.json["request_id"]
    assert refused.headers["request-id"].startswith("gw_")


ERROR = (
    b'{"type":"error",  "error":{"type":"billing_error","message":"Your credit \\u00e9 is too low\\/"},\n'
    b'"request_id":"req_9"}'
)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"402 Payment Required", b"529 Overloaded"])
async def test_trap_47_an_error_of_upstream_is_not_rewritten(status: bytes, tmp_path: Path) -> None:
    async with in_front_of(forever(plain(ERROR, status=status)), tmp_path) as (stack, _):
        got = await call(stack, ASK)

    assert (got.status, got.body) == (int(status[:3]), ERROR)


async def test_trap_49_upstreams_advice_on_retries_reaches_the_client(tmp_path: Path) -> None:
    advice = {"retry-after": "7", "retry-after-ms": "6500", "x-should-retry": "true"}
    lines = [f"{name}: {value}".encode() for name, value in advice.items()]
    answer = plain(ERROR, *lines, status=b"429 Too Many Requests")
    async with in_front_of(forever(answer), tmp_path) as (stack, _):
        got = await call(stack, ASK)

    assert {name: got.headers[name] for name in advice} == advice


@pytest.mark.parametrize("count", ["0", "1"])
@pytest.mark.parametrize("status", [429, 500, 529])
async def test_trap_50_the_gateway_repeats_no_answer_and_hands_the_clients_count_on(
    status: int, count: str, stack: Stack
) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=status, times=None))
    got = await call(stack, ASK, headers=[("x-stainless-retry-count", count)])

    assert got.status == status
    assert "retry-after" not in got.headers
    assert [request.header("x-stainless-retry-count") for request in stack.simulator.requests] == [count]


async def test_trap_53_a_call_may_be_silent_for_longer_than_an_idle_connection(tmp_path: Path) -> None:
    slow = Pacing(first_byte_seconds=1.5)
    short = {"GATEWAY_TIMEOUTS__CLIENT_KEEP_ALIVE": "300ms", "GATEWAY_TIMEOUTS__UPSTREAM_IDLE": "300ms"}
    async with a_stack(tmp_path, pacing=slow, environ=short) as stack:
        got = await call(stack, ASK)

    assert got.status == 200


async def test_trap_68_a_file_goes_up_while_it_is_still_coming_in(tmp_path: Path) -> None:
    half = b"x" * 300_000
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked(body=False)
        await peer.reader.readexactly(100_000)
        seen.set()
        await peer.reader.readuntil(b"\r\n0\r\n\r\n")
        await peer.answer(b"{}", b"content-type: application/json")

    async def pieces() -> AsyncIterator[bytes]:
        yield half
        await asyncio.wait_for(seen.wait(), 30)
        yield half

    async with in_front_of(script, tmp_path) as (stack, _), aiohttp.ClientSession() as session:
        headers = {"x-api-key": stack.keys["demo"], "content-type": "multipart/form-data; boundary=x"}
        async with session.post(stack.url + "/v1/files", data=pieces(), headers=headers) as response:
            assert response.status == 200


@pytest.mark.parametrize("path", ["/v1/messages/batches/msgbatch_1/results", "/v1/files/file_1/content"])
async def test_trap_68_results_and_files_come_down_while_upstream_still_sends(
    path: str, tmp_path: Path
) -> None:
    line = b'{"custom_id": "a", "result": "' + b"x" * 300_000 + b'"}\n'
    arrived = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * len(line)) + line)
        await asyncio.wait_for(arrived.wait(), 30)
        await peer.say(line)

    async with in_front_of(script, tmp_path) as (stack, _), aiohttp.ClientSession() as session:
        headers = {"x-api-key": stack.keys["demo"]}
        async with session.get(stack.url + path, headers=headers) as response:
            assert await asyncio.wait_for(response.content.readexactly(len(line)), 30) == line
            arrived.set()
            assert await response.content.read() == line


async def test_trap_69_what_is_new_in_an_answer_arrives_and_is_booked(tmp_path: Path) -> None:
    async with in_front_of(forever(plain(MESSAGE)), tmp_path) as (stack, _):
        got = await call(stack, ASK)
        (total,) = await stack.books()

    assert (got.status, got.body) == (200, MESSAGE)
    assert total.cost_nanousd == STREAMED_NANOUSD


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21", "2031-01-01"])
async def test_trap_70_what_is_legal_is_upstreams_to_judge_in_every_version(
    version: str, tmp_path: Path
) -> None:
    sent = json.dumps({**ASK, "temperature": 7, "top_k": -1, "thinking": {"type": "x"}}).encode()
    async with (
        in_front_of(forever(plain(MESSAGE)), tmp_path) as (stack, upstream),
        aiohttp.ClientSession() as session,
    ):
        headers = {"x-api-key": stack.keys["demo"], VERSION[0]: version}
        async with session.post(stack.url + "/v1/messages", data=sent, headers=headers) as response:
            assert response.status == 200

    assert upstream.requests[0].body == sent
    assert upstream.requests[0].header(b"anthropic-version") == version.encode()


async def test_trap_71_no_log_ledger_or_metric_holds_content_or_a_credential(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    history = [
        {"role": "user", "content": "canary-question"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "canary-thought", "signature": "canary-signature"}],
        },
        {"role": "user", "content": "canary-more"},
    ]
    async with a_stack(tmp_path, quiet=False) as stack:
        body = {**ASK, "system": "canary-system " + LONG, "messages": history}
        await call(stack, body, path="/v1/messages?q=canary-query")
        await call(
            stack, {**body, "stream": True}, headers=[("authorization", f"Bearer {stack.keys['demo']}")]
        )
        await call(stack, body, key="unknown")
        await call(stack, method="GET", path="/v1/files/canary-id?q=canary-query")
        stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, message="canary-error"))
        await call(stack, body)
        stack.simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=3))
        with pytest.raises(aiohttp.ClientPayloadError):
            await call(stack, {**body, "stream": True})
        async with (
            aiohttp.ClientSession() as session,
            session.get(stack.service.admin_url + "/metrics") as page,
        ):
            metrics = await page.text()
        await stack.service.stop()
        printed = capfd.readouterr()
        kept = b"".join(path.read_bytes() for path in stack.state.iterdir())
        traces = printed.out + printed.err + caplog.text + metrics + kept.decode("latin-1")

    assert printed.out.count('"endpoint":"messages"') == 5
    assert "canary" not in traces
    assert not [name for name, key in stack.keys.items() if key in traces]
