"""Scripted faults, as a client on the socket sees them, and what they leave on the bill."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.sim import Fault, FaultKind, Match, Pacing, Simulator
from gateway.sim.faults import Faults, parse_fault
from tests.e2e.whole.calls import eventually
from tests.sim.conftest import KEY, MODEL

HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}


def call(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": "Hello."}]} | changes


async def raw_stream(simulator: Simulator, **changes: Any) -> tuple[bytes, BaseException | None]:
    """Everything that arrives on a socket of our own for one streamed request, and how it ended."""
    port = urlsplit(simulator.url).port
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(call(**({"stream": True} | changes))).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: sim\r\n{head}content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n".encode()
        + body
    )
    got = b""
    end: BaseException | None = None
    try:
        while chunk := await reader.read(65536):
            got += chunk
    except ConnectionError as error:
        end = error
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return got, end


async def test_status_fault_answers_with_the_envelope_and_retry_after(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=429, retry_after=3))
    async with raw.post("/v1/messages", json=call()) as response:
        body = await response.json()

    assert response.status == 429
    assert response.headers["retry-after"] == "3"
    assert body["error"]["type"] == "rate_limit_error"
    assert body["request_id"] == response.headers["request-id"]
    assert simulator.bill.lines == []
    assert simulator.requests[-1].fault == "status"


async def test_status_fault_may_have_a_body_that_is_not_the_apis(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    """413 may come from the edge, before the API (errors page)."""
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=413, html="<html>too large</html>"))
    async with raw.post("/v1/messages", json=call()) as response:
        assert response.status == 413
        assert response.content_type == "text/html"
        assert await response.text() == "<html>too large</html>"


@pytest.mark.parametrize("reset", [True, False])
async def test_cut_before_the_head_sends_nothing(simulator: Simulator, reset: bool) -> None:
    simulator.faults.add(Fault(kind=FaultKind.CUT, reset=reset))
    got, end = await raw_stream(simulator)

    assert got == b""
    assert isinstance(end, ConnectionResetError) is reset
    assert simulator.bill.lines == []
    assert (simulator.requests[-1].ended, simulator.requests[-1].status) == ("cut", None)


async def test_cut_of_a_processed_request_is_billed_in_full(simulator: Simulator) -> None:
    simulator.faults.add(Fault(kind=FaultKind.CUT, processed=True))
    got, _ = await raw_stream(simulator)
    lost = simulator.bill.lines[0]
    await raw_stream(simulator)

    assert got == b""
    assert lost.usage["output_tokens"] == simulator.bill.lines[1].usage["output_tokens"] > 0


@pytest.mark.parametrize("mid_event", [True, False])
async def test_cut_in_a_stream_ends_without_the_last_chunk_and_bills_what_was_said(
    simulator: Simulator, mid_event: bool
) -> None:
    await raw_stream(simulator)
    simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=6, mid_event=mid_event, reset=False))
    got, _ = await raw_stream(simulator)
    whole, cut = simulator.bill.lines

    assert got.count(b"event: ") == 6 + mid_event
    assert not got.endswith(b"0\r\n\r\n")
    assert b"message_stop" not in got
    assert 0 < cut.usage["output_tokens"] < whole.usage["output_tokens"]
    assert (whole.complete, cut.complete) == (True, False)
    assert simulator.requests[-1].ended == "cut"


async def test_cut_in_a_plain_body_sends_half(raw: aiohttp.ClientSession, simulator: Simulator) -> None:
    simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=1, reset=False))
    with pytest.raises(aiohttp.ClientPayloadError):
        async with raw.post("/v1/messages", json=call()) as response:
            await response.read()


async def test_error_event_comes_in_a_200_stream(simulator: Simulator) -> None:
    simulator.faults.add(Fault(kind=FaultKind.ERROR_EVENT, status=529, at_event=5))
    got, _ = await raw_stream(simulator)

    assert got.startswith(b"HTTP/1.1 200")
    assert b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"' in got
    assert got.endswith(b"0\r\n\r\n")
    assert b"message_stop" not in got
    assert not simulator.bill.lines[0].complete


async def test_garbage_and_malformed_events_do_not_end_the_stream(simulator: Simulator) -> None:
    simulator.faults.add(Fault(kind=FaultKind.GARBAGE, at_event=4))
    simulator.faults.add(Fault(kind=FaultKind.MALFORMED_EVENT, at_event=4))
    garbage, _ = await raw_stream(simulator)
    malformed, _ = await raw_stream(simulator)

    assert b"\x00\xff\xfe\x80garbage" in garbage
    assert b'data: {"type": "content_block_delta", \n\n' in malformed
    assert b"message_stop" in garbage
    assert b"message_stop" in malformed


async def test_stall_before_the_head_lasts_until_the_client_leaves(
    raw: aiohttp.ClientSession, simulator: Simulator
) -> None:
    simulator.faults.add(Fault(kind=FaultKind.STALL))
    asking = asyncio.get_running_loop().create_task(raw.post("/v1/messages", json=call()))
    await eventually(lambda: simulator.requests)
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1):
            await asking
    await simulator.idle()

    assert simulator.requests[0].ended == "client_left"
    assert simulator.bill.lines == []


async def test_stall_in_a_stream_then_goes_on(simulator: Simulator) -> None:
    simulator.faults.add(Fault(kind=FaultKind.STALL_STREAM, at_event=4, seconds=0.15))
    started = asyncio.get_running_loop().time()
    got, _ = await raw_stream(simulator)

    assert asyncio.get_running_loop().time() - started >= 0.15
    assert b"message_stop" in got


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_billed_for_what_was_generated(stream: bool) -> None:
    simulator = Simulator(pacing=Pacing(events_per_second=40))
    await simulator.start()
    body = call(stream=stream, messages=[{"role": "user", "content": "Say 600 words."}], max_tokens=4_000)
    try:
        async with aiohttp.ClientSession(simulator.url, headers=HEADERS) as session:
            asking = asyncio.get_running_loop().create_task(_read(session, body))
            await eventually(lambda: simulator.requests)
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.5):
                    await asking
        await simulator.idle()
    finally:
        await simulator.stop()

    line = simulator.bill.lines[0]
    assert simulator.requests[0].ended == "client_left"
    assert not line.complete
    assert line.usage["input_tokens"] > 0
    assert 5 < line.usage["output_tokens"] < 400
    assert simulator.requests[0].cost_nanousd == line.cost_nanousd


async def _read(session: aiohttp.ClientSession, body: dict[str, Any]) -> bytes:
    async with session.post("/v1/messages", json=body) as response:
        return await response.read()


def strikes(faults: Faults, **request: Any) -> bool:
    shape: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/messages",
        "model": MODEL,
        "stream": False,
    } | request
    return faults.strike(**shape) is not None


def test_a_fault_strikes_the_next_n_matching_requests_after_those_skipped() -> None:
    faults = Faults(seed=1)
    faults.add(Fault(kind=FaultKind.STATUS, match=Match(model=MODEL, stream=True), times=2, skip=1))

    assert not strikes(faults, model="other", stream=True)
    assert not strikes(faults, stream=False)
    assert [strikes(faults, stream=True) for _ in range(4)] == [False, True, True, False]


def test_a_fault_matches_by_path() -> None:
    faults = Faults(seed=1)
    faults.add(Fault(kind=FaultKind.STATUS, match=Match(path="/v1/models"), times=None))

    assert not strikes(faults)
    assert all(strikes(faults, path="/v1/models/x") for _ in range(5))


def test_probability_is_seeded() -> None:
    def run(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add(Fault(kind=FaultKind.STATUS, probability=0.3, times=None))
        return [strikes(faults) for _ in range(200)]

    assert run(7) == run(7) != run(8)
    assert 30 < sum(run(7)) < 90


def test_a_fault_can_be_written_on_a_command_line() -> None:
    written = parse_fault("status,status=529,times=3,model=claude-opus-5-5,retry_after=1.5")
    match = Match(model="claude-opus-5-5")

    assert written == Fault(kind=FaultKind.STATUS, status=529, times=3, retry_after=1.5, match=match)
    assert parse_fault("cut,reset=false") == Fault(kind=FaultKind.CUT, reset=False)
    for wrong in ("flood", "status,529", "status,colour=red"):
        with pytest.raises(ValueError, match=r"."):
            parse_fault(wrong)


async def test_faults_can_be_armed_over_http(raw: aiohttp.ClientSession, simulator: Simulator) -> None:
    fault = {"kind": "status", "status": 529, "times": 2, "match": {"path": "/v1/messages"}}
    async with raw.post("/_sim/faults", json=fault) as response:
        assert (await response.json())["faults"] == [{"kind": "status", "left": 2, "skip": 0}]
    async with raw.post("/v1/messages", json=call()) as response:
        assert response.status == 529
    async with raw.delete("/_sim/faults") as response:
        assert (await response.json())["faults"] == []
    for wrong in ({"kind": "flood"}, {"kind": "status", "colour": "red"}, {"kind": "cut", "match": {"x": 1}}):
        async with raw.post("/_sim/faults", json=wrong) as response:
            assert response.status == 400
