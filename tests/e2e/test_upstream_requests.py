"""What goes to upstream over real sockets: heads that cannot be broken, bodies whole and streamed."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.claude import ClaudeUpstream
from gateway.core.errors import (
    BadRequest,
    ClientGone,
    UpstreamTimeout,
)
from tests.support.mock_upstream import MockUpstream, Peer, forever
from tests.support.upstreams import ANSWERS, StreamOf, a_request, read_all


async def test_an_upstream_that_stops_reading_the_request_is_a_timeout(upstream: ClaudeUpstream) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with MockUpstream(script) as mock:
        with pytest.raises(UpstreamTimeout):
            async with upstream.open(a_request(mock.base_url, body=[bytes(20_000_000)])):
                pass


async def test_reads_an_answer_that_comes_before_the_request_was_sent(patient: ClaudeUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked(body=False)
        await peer.answer(b'{"type":"error"}', status=b"413 Content Too Large")
        peer.finish()  # with most of the body unread, which resets the connection

    async with MockUpstream(script) as mock:
        for _ in range(10):
            async with patient.open(a_request(mock.base_url, body=[bytes(10_000_000)])) as answer:
                assert answer.status == 413
                assert await read_all(answer) == b'{"type":"error"}'

    assert mock.connections == 10


async def test_an_early_answer_ends_a_streamed_body(patient: ClaudeUpstream) -> None:
    waiting = asyncio.Event()

    class Endless(StreamOf):
        async def read(self) -> bytes:
            if self.reads > 2:
                await waiting.wait()
            return await super().read()

    async def script(peer: Peer) -> None:
        await peer.asked(body=False)
        await peer.answer(b"{}", status=b"401 Unauthorized")
        await peer.left()

    async with MockUpstream(script) as mock:
        for _ in range(2):
            stream = Endless(*[b"x" * 1000] * 50)
            async with patient.open(a_request(mock.base_url, stream=stream)) as answer:
                assert answer.status == 401
                assert await read_all(answer) == b"{}"

    assert mock.connections == 2  # half a request is on the first


@pytest.mark.parametrize("length", [None, 60_000])
async def test_streams_a_body_with_and_without_a_length(patient: ClaudeUpstream, length: int | None) -> None:
    stream = StreamOf(*[bytes([n]) * 1000 for n in range(60)], length=length)
    async with MockUpstream(forever(ANSWERS["length"])) as mock:
        async with patient.open(a_request(mock.base_url, stream=stream)) as answer:
            await read_all(answer)
        async with patient.open(a_request(mock.base_url)) as answer:
            await read_all(answer)

    assert mock.requests[0].body == b"".join(bytes([n]) * 1000 for n in range(60))
    assert mock.connections == 1


async def test_a_streamed_body_waits_for_upstream_to_read(patient: ClaudeUpstream) -> None:
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        asked = await peer.asked(body=False)
        await read_on.wait()
        await peer.reader.readexactly(int(asked.header(b"content-length") or 0))
        await peer.answer()

    stream = StreamOf(*[bytes(100_000)] * 300, length=30_000_000)
    async with MockUpstream(script) as mock, asyncio.TaskGroup() as group:
        opening = patient.open(a_request(mock.base_url, stream=stream))
        task = group.create_task(opening.__aenter__())
        before = -1
        while before != stream.reads:
            before = stream.reads
            await asyncio.sleep(0.2)
        assert stream.reads < 150
        read_on.set()
        answer = await task
        assert answer.status == 200
        await opening.__aexit__(None, None, None)


async def test_what_the_clients_stream_raises_ends_the_exchange(patient: ClaudeUpstream) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked(body=False)
        await peer.left()
        left.set()

    stream = StreamOf(b"some", ClientGone("the client has left"), length=100)
    async with MockUpstream(script) as mock:
        with pytest.raises(ClientGone):
            async with patient.open(a_request(mock.base_url, stream=stream)):
                pass
        await asyncio.wait_for(left.wait(), 20)


@pytest.mark.parametrize(
    "bad",
    [
        {"headers": [(b"x", b"a\r\nx-api-key: b")]},
        {"headers": [(b"x\nb", b"a")]},
        {"headers": [(b"x", b"a\rb")]},
        {"headers": [(b"x", b"a\0")]},
        {"target": "/v1/messages HTTP/1.1\r\nx: y"},
        {"target": "/v1/mess ages"},
        {"target": "/v1/\u00fc"},
        {"method": "POST /x"},
    ],
)
async def test_nothing_from_outside_can_end_a_line(patient: ClaudeUpstream, bad: dict[str, object]) -> None:
    async with MockUpstream(forever(ANSWERS["length"])) as mock:
        with pytest.raises(BadRequest):
            async with patient.open(a_request(mock.base_url, **bad)):  # type: ignore[arg-type]
                pass

    assert mock.connections == 0
