"""Either end vanishes, at any moment: the other end is told at once, and the books are right."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
import pytest

from gateway.core.ledger import Dimension
from gateway.sim.faults import Fault, FaultKind
from gateway.sim.pacing import Pacing
from tests.e2e.whole.calls import eventually
from tests.support.stack import Stack, a_stack

ASK = {
    "model": "claude-opus-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Say 40 words."}],
}


def headers_of(stack: Stack) -> dict[str, str]:
    return {"x-api-key": stack.keys["demo"], "anthropic-version": "2023-06-01"}


async def read_stream(stack: Stack) -> tuple[int, bytes, bool]:
    """Status, all bytes that came, and whether the body ended properly."""
    received = bytearray()
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            stack.url + "/v1/messages", json={**ASK, "stream": True}, headers=headers_of(stack)
        ) as response,
    ):
        try:
            async for chunk in response.content.iter_any():
                received += chunk
        except aiohttp.ClientPayloadError:
            return response.status, bytes(received), False
        return response.status, bytes(received), True


@pytest.mark.parametrize("mid_event", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("at_event", [1, 3, 8])
async def test_trap_39_an_upstream_cut_ends_in_an_error_event_and_no_clean_end(
    at_event: int, reset: bool, mid_event: bool, stack: Stack
) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=at_event, reset=reset, mid_event=mid_event))
    status, received, clean = await read_stream(stack)
    last = received.rstrip(b"\n").rpartition(b"\n\n")[2].decode()

    assert status == 200
    assert "event: error" in last
    assert "Upstream" in last or "upstream" in last
    assert not clean
    assert len(stack.simulator.requests) == 1
    totals = await stack.books(Dimension.WORKSPACE)
    assert (totals[0].failed, totals[0].guessed_nanousd > 0) == (1, True)


async def test_a_cut_before_the_head_is_a_502_and_is_booked_on_the_estimate(stack: Stack) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=None))
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.url + "/v1/messages", json=ASK, headers=headers_of(stack)) as response,
    ):
        answer = await response.json()

    assert (response.status, answer["error"]["type"]) == (502, "api_error")
    assert len(stack.simulator.requests) == 1
    totals = await stack.books(Dimension.WORKSPACE)
    assert totals[0].guessed_nanousd > 0


async def test_a_plain_answer_that_is_cut_does_not_look_complete(stack: Stack) -> None:
    stack.simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=1))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.post(
                stack.url + "/v1/messages", json=ASK, headers=headers_of(stack)
            ) as response:
                await response.read()


@pytest.mark.parametrize("fault", [FaultKind.GARBAGE, FaultKind.MALFORMED_EVENT])
async def test_trap_37_malformed_events_pass_and_do_not_break_the_books(
    fault: FaultKind, stack: Stack
) -> None:
    stack.simulator.faults.add(Fault(kind=fault, at_event=3))
    status, received, clean = await read_stream(stack)

    assert (status, clean) == (200, True)
    assert b"message_stop" in received
    totals = await stack.books(Dimension.WORKSPACE)
    assert totals[0].cost_nanousd == stack.simulator.bill.total_nanousd > 0


@pytest.mark.parametrize("streams", [False, True])
async def test_trap_41_a_client_that_leaves_cancels_upstream_at_once(streams: bool, tmp_path: Path) -> None:
    """Also on plain calls, where nothing has been relayed yet."""
    slow = Pacing(first_byte_seconds=0.0 if streams else 30.0, events_per_second=20)
    async with a_stack(tmp_path, pacing=slow) as stack:
        async with aiohttp.ClientSession() as session:
            call = asyncio.get_running_loop().create_task(_first_byte(session, stack, streams))
            await eventually(lambda: stack.simulator.requests)
            if streams:
                await call
            else:
                await asyncio.sleep(0.1)
                call.cancel()
        left = time.monotonic()
        await eventually(lambda: stack.simulator.requests[0].ended == "client_left")

        assert time.monotonic() - left < 15, "where it was let run, its first byte would come after 30"
        totals = await stack.books(Dimension.WORKSPACE)
        assert (totals[0].failed, totals[0].guessed_nanousd > 0) == (1, True)


async def _first_byte(session: aiohttp.ClientSession, stack: Stack, streams: bool) -> bytes:
    response = await session.post(
        stack.url + "/v1/messages", json={**ASK, "stream": streams}, headers=headers_of(stack)
    )
    first = await response.content.readany()
    response.close()
    return first


async def test_trap_48_an_error_that_is_not_the_apis_own_arrives_as_it_was(stack: Stack) -> None:
    page = "<html><body>413 Request Entity Too Large</body></html>"
    stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=413, html=page))
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.url + "/v1/messages", json=ASK, headers=headers_of(stack)) as response,
    ):
        assert (response.status, await response.text()) == (413, page)


async def test_trap_34_events_arrive_one_by_one_and_not_at_the_end(tmp_path: Path) -> None:
    async with a_stack(tmp_path, pacing=Pacing(events_per_second=30)) as stack:
        arrivals: list[float] = []
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                stack.url + "/v1/messages", json={**ASK, "stream": True}, headers=headers_of(stack)
            ) as response,
        ):
            async for chunk in response.content.iter_any():
                if b"content_block_delta" in chunk:
                    arrivals.append(time.monotonic())

    assert len(arrivals) >= 5
    assert arrivals[-1] - arrivals[0] > 0.1


async def test_requests_of_one_connection_do_not_mix(stack: Stack) -> None:
    """A stream that a client left must not leak into the connection's next exchange, up or down."""
    async with aiohttp.ClientSession() as session:
        for number in range(5):
            ask = {**ASK, "messages": [{"role": "user", "content": f"Number {number}, 30 words."}]}
            async with session.post(
                stack.url + "/v1/messages", json=ask, headers=headers_of(stack)
            ) as response:
                message = await response.json()
                assert message["id"] == stack.simulator.requests[-1].message_id
        assert json.loads(stack.simulator.requests[-1].body)["messages"][0]["content"].startswith("Number 4")
