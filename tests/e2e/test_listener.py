"""The client's end over real sockets: framing, order, leaving, failing, closing."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.core.errors import (
    ClientGone,
)
from gateway.web.listener import (
    ClientReply,
    InboundRequest,
    ListenerLimits,
    read_body,
)
from tests.support.listeners import echo, emptied, listening
from tests.support.raw_client import RawClient

HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: gateway.test\r\n"
QUICK = ListenerLimits(head_seconds=1.0, idle_seconds=1.0, slow_client_seconds=1.0, linger_seconds=1.0)


async def chunks(request: InboundRequest, reply: ClientReply) -> None:
    await read_body(request, limit_bytes=1_000_000, timeout_seconds=5)
    reply.start(200, [(b"content-type", b"text/event-stream")])
    for piece in (b"one", b"two", b"", b"x" * 100_000):
        if reply.write(piece):
            await reply.drained()
    reply.finish()


async def test_serves_many_requests_on_one_connection() -> None:
    async with listening(echo) as (listener, port), await RawClient.connect(port) as client:
        for n in range(20):
            await client.post(f"/v1//messages/%2F?beta=true&n={n}", b"body%d" % n)
            response = await client.response()
            assert response.body == b"POST /v1//messages/%%2F?beta=true&n=%d body%d" % (n, n)
        assert len(listener.open) == 1


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("http://gateway.test/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("HTTPS://[::1]:8080/v1//a/../%2E?x=http://b/c", "/v1//a/../%2E?x=http://b/c"),
        ("http://gateway.test", "/"),
        ("http://gateway.test?a=b", "/?a=b"),
        ("http://a/http://b/v1/messages", "/http://b/v1/messages"),
        ("http://user@a/v1/messages", "http://user@a/v1/messages"),
        ("ftp://a/v1/messages", "ftp://a/v1/messages"),
    ],
)
async def test_a_target_may_name_the_server(sent: str, taken: str) -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.post(sent, b"x")
        assert (await client.response()).body == b"POST %b x" % taken.encode()


async def test_answers_pipelined_requests_in_order() -> None:
    one = HEAD + b"content-length: 2\r\n\r\n"
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"".join(one + b"%02d" % n for n in range(40)))
        for n in range(40):
            assert (await client.response()).body.endswith(b" %02d" % n)


async def test_writes_chunks_where_no_length_is_given() -> None:
    async with listening(chunks) as (_, port), await RawClient.connect(port) as client:
        for _ in range(2):
            await client.post()
            response = await client.response()
            assert response.complete
            assert response.pieces == [b"one", b"two", b"x" * 100_000]


async def test_a_streams_head_does_not_wait_for_its_body() -> None:
    go_on = asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reply.start(200, [])
        await go_on.wait()
        reply.finish()

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.post(body=b"")
        assert (await asyncio.wait_for(client.head(), 20)).status == 200
        go_on.set()
        assert await client.line() == b"0\r\n"


async def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    async with listening(chunks) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"POST / HTTP/1.0\r\ncontent-length: 0\r\n\r\n")
        response = await client.response()

    assert response.header(b"transfer-encoding") is None
    assert response.body == b"onetwo" + b"x" * 100_000


async def test_head_gets_no_body_and_keeps_the_connection() -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        for _ in range(3):
            await client.send(b"HEAD /api/hello HTTP/1.1\r\nhost: a\r\n\r\n")
            response = await client.response(head_only=True)
            assert response.header(b"content-length") == b"16"
        await client.post(body=b"x")
        assert (await client.response()).body == b"POST /v1/messages x"


async def test_closes_after_the_answer_when_asked_to() -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.post("/v1/messages", b"x", b"connection: close")
        response = await client.response()

        assert response.complete
        assert response.header(b"connection") == b"close"
        assert await client.ended()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the head", "within the body"])
async def test_a_client_that_leaves_cancels_its_exchange(how: str, when: str) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        await read_body(request, limit_bytes=1_000, timeout_seconds=5)
        if when == "within the body":
            reply.start(200, [])
            reply.write(b"some")
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            with pytest.raises(ClientGone):
                reply.write(b"more") if reply.started else reply.start(200, [])
            raise

    async with listening(handle) as (listener, port):
        client = await RawClient.connect(port)
        await client.post()
        await asyncio.wait_for(begun.wait(), 20)
        client.reset() if how == "reset" else client.writer.close()
        await asyncio.wait_for(cancelled.wait(), 20)
        await emptied(listener)


async def test_an_exchange_whose_answer_is_complete_is_not_cancelled() -> None:
    left, settled = asyncio.Event(), asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        await echo(request, reply)
        await left.wait()
        await asyncio.sleep(0.05)
        settled.set()

    async with listening(handle) as (_, port):
        async with await RawClient.connect(port) as client:
            await client.post(body=b"x")
            await client.response()
        left.set()
        await asyncio.wait_for(settled.wait(), 20)


async def test_a_slow_reader_costs_no_memory_and_is_left_in_the_end() -> None:
    written = 0
    gone = asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        nonlocal written
        reply.start(200, [])
        try:
            while True:
                written += 10_000
                if reply.write(b"x" * 10_000):
                    await reply.drained()
        except ClientGone:
            gone.set()
            raise

    async with (
        listening(handle, QUICK) as (_, port),
        await RawClient.connect(port, receive_buffer=4_096) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(gone.wait(), 20)
        assert written < 10_000_000
        assert not (await client.response()).complete


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("length", [b"", b"100"])
async def test_an_aborted_answer_never_looks_complete(version: bytes, length: bytes) -> None:
    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reply.start(200, [(b"content-length", length)] if length else [])
        reply.write(b"the last words")
        await asyncio.sleep(0.05)
        reply.abort()

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/%b\r\nhost: a\r\n\r\n" % version)
        response = await client.response()

    assert not response.complete
    if version == b"1.1" or length:
        assert b"".join(response.pieces) == b"the last words" or response.body == b"the last words"


async def test_less_body_than_announced_is_an_abort() -> None:
    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reply.start(200, [(b"content-length", b"100")])
        reply.write(b"x" * 99)
        reply.finish()

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert not (await client.response()).complete


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("raises", [False, True])
async def test_a_handler_that_fails_still_ends_the_answer(
    start: bool, raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        if start:
            reply.start(200, [])
            reply.write(b"some")
        if raises:
            raise RuntimeError("a fault of the gateway")

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        response = await client.response()

    if start:
        assert not response.complete
    else:
        assert response.status == 500
        assert json.loads(response.body)["error"]["type"] == "api_error"
    assert caplog.records


async def test_stops_accepting_but_finishes_what_runs() -> None:
    go_on = asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reply.start(200, [])
        reply.write(b"some")
        await go_on.wait()
        reply.write(b"more")
        reply.finish()

    async with listening(handle) as (listener, port):
        idle = await RawClient.connect(port)
        async with idle, await RawClient.connect(port) as client:
            await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            response_head = await client.head()
            listener.stop_accepting()
            assert await idle.ended()
            assert listener.unfinished() == 1
            with pytest.raises(ConnectionRefusedError):
                await RawClient.connect(port)
            go_on.set()
            rest = await client.rest()

    assert response_head.status == 200
    assert rest == b"4\r\nsome\r\n4\r\nmore\r\n0\r\n\r\n"


async def test_a_connection_that_was_promised_to_stay_stays_until_a_request_after_the_announcement() -> None:
    """A proxy sends the next request the moment it has an answer: a connection closed in its face would
    cost that request."""
    go_on = asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reply.start(200, [])
        await go_on.wait()
        reply.finish()

    async with listening(handle) as (listener, port), await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.head()).header(b"connection") is None
        listener.announce()
        go_on.set()
        assert [await client.line(), await client.line()] == [b"0\r\n", b"\r\n"]
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.head()).header(b"connection") == b"close"
        assert await client.rest() == b"0\r\n\r\n"


async def test_closing_cancels_what_still_runs() -> None:
    cancelled = asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reply.start(200, [])
        reply.write(b"some")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with listening(handle) as (listener, port), await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await client.head()
        await listener.close(1)

        assert cancelled.is_set()
        assert b"0\r\n\r\n" not in await client.rest()
        await emptied(listener)
