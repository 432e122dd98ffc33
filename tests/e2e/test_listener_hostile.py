"""What no client of good will sends: smuggling, slow heads, floods."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from gateway.core.errors import (
    TooLarge,
)
from gateway.web.listener import (
    ClientReply,
    InboundRequest,
    ListenerLimits,
    read_body,
)
from tests.support.listeners import echo, listening
from tests.support.raw_client import RawClient

HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: gateway.test\r\n"
QUICK = ListenerLimits(head_seconds=1.0, idle_seconds=1.0, slow_client_seconds=1.0, linger_seconds=1.0)


LONG = b"".join(b"x%d: %b\r\n" % (n, b"a" * 20_000) for n in range(5))

SMUGGLED = {
    "length and chunked": HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET",
    "chunked and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET",
    "two lengths": HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\nbody",
    "the same length twice": HEAD + b"content-length: 4\r\ncontent-length: 4\r\n\r\nbody",
    "a list of lengths": HEAD + b"content-length: 4, 4\r\n\r\nbody",
    "signed length": HEAD + b"content-length: +4\r\n\r\nbody",
    "negative length": HEAD + b"content-length: -4\r\n\r\nbody",
    "hexadecimal length": HEAD + b"content-length: 0x4\r\n\r\nbody",
    "bare line feed": b"POST / HTTP/1.1\nhost: a\ncontent-length: 0\n\n",
    "bare carriage return": HEAD + b"x: a\rcontent-length: 4\r\n\r\nbody",
    "folded line": HEAD + b"x: a\r\n b\r\n\r\n",
    "NUL in a value": HEAD + b"x: a\0b\r\n\r\n",
    "NUL in a name": HEAD + b"x\0: a\r\n\r\n",
    "space before the colon": HEAD + b"content-length : 4\r\n\r\nbody",
    "line without a colon": HEAD + b"nonsense\r\n\r\n",
    "two hosts": HEAD + b"host: other\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "unknown coding": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "disguised coding": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "malformed chunk size": HEAD + b"transfer-encoding: chunked\r\n\r\n0x4\r\nbody\r\n0\r\n\r\n",
    "chunk longer than said": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nbody\r\n0\r\n\r\n",
    "chunk extension with a bare line feed": HEAD
    + b"transfer-encoding: chunked\r\n\r\n4;a\nbody\r\n0\r\n\r\n",
    "unknown version": b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "endless request line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    "endless header": HEAD + b"x: " + b"a" * 40_000 + b"\r\n\r\n",
    "too many headers": HEAD + b"".join(b"x%d: a\r\n" % n for n in range(300)) + b"\r\n",
    "endless head": HEAD + LONG,
    "long head": HEAD + LONG + b"\r\n",
    "unknown expectation": HEAD + b"expect: the-spanish-inquisition\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("sent", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_refuses_what_two_readers_could_read_differently(sent: bytes) -> None:
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(sent)
        response = await client.response()
        error = json.loads(response.body)

        assert response.status == 400
        assert response.header(b"connection") == b"close"
        assert error["type"] == "error"
        assert error["error"]["type"] == "invalid_request_error"
        assert error["request_id"].encode() == response.header(b"request-id")
        assert await client.ended()


async def test_good_requests_before_a_malformed_one_are_answered() -> None:
    good = HEAD + b"content-length: 2\r\n\r\nok"
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(good)
        assert (await client.response()).status == 200
        await client.send(good + b"GET / HTTP/1.1\r\n")
        assert (await client.response()).status == 200
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.response()).status == 400
        assert await client.ended()


async def test_a_body_that_breaks_on_its_way_is_refused_at_once() -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n")
        await asyncio.sleep(0.05)
        await client.send(b"what\r\n")
        response = await asyncio.wait_for(client.response(), 20)

        assert response.status == 400
        assert await client.ended()


async def test_a_long_target_passes() -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.post("/v1/files?after_id=" + "x" * 12_000)
        assert (await client.response()).status == 200


async def test_a_long_list_of_betas_passes() -> None:
    betas = b", ".join(b"some-beta-of-%d-2026-01-01" % n for n in range(600))
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.post("/", b"x", b"anthropic-beta: " + betas)
        assert (await client.response()).status == 200


async def test_a_head_of_some_long_lines_passes() -> None:
    long = [b"x%d: " % n + b"a" * 20_000 for n in range(3)]
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.post("/", b"x" * 200_000, *long)
        assert (await client.response()).status == 200


@pytest.mark.parametrize("at_once", [False, True], ids=["bit by bit", "at once"])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n", id="trailers"),
        pytest.param(HEAD + b"content-length: 0\r\n\r\n" + HEAD, id="the next head"),
    ],
)
async def test_what_comes_behind_a_request_is_bounded_too(before: bytes, at_once: bool) -> None:
    """Trailers, and the next head while nothing is answered yet: each could hold megabytes."""
    sent = [before, *(b"x%d: %b\r\n" % (n, b"a" * 1_000) for n in range(100))]

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        if not request.payload.is_eof():
            await read_body(request, limit_bytes=1_000, timeout_seconds=20)
        else:
            await asyncio.sleep(0.5)
            await echo(request, reply)

    async with listening(handle, QUICK) as (_, port), await RawClient.connect(port) as client:
        for piece in [b"".join(sent)] if at_once else sent:
            await client.send(piece)
        statuses = [(await client.response()).status]
        if statuses == [200]:
            statuses.append((await client.response()).status)

        assert statuses[-1] == 400
        assert await client.ended()


async def test_what_comes_in_one_read_behind_a_long_body_is_bounded_too() -> None:
    body = b"content-length: 40000\r\n\r\n" + b"b" * 40_000
    lines = b"".join(b"x%d: %b\r\n" % (n, b"a" * 1_000) for n in range(100))
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + body + HEAD + lines)
        statuses = [(await client.response()).status]
        if statuses == [200]:
            statuses.append((await client.response()).status)

        assert statuses[-1] == 400
        assert await client.ended()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/mess", HEAD + b"x: y\r\n"])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(sent)
        answer = await client.rest()

    assert answer == b"" if not sent else answer.startswith(b"HTTP/1.1 408")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.post(body=b"x")
        await client.response()
        assert await client.rest() == b""


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_cannot_break_its_line(value: bytes) -> None:
    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        with pytest.raises(ValueError, match="line break"):
            reply.start(200, [(b"x", value)])
        raise TooLarge("as an answer")

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.response()).status == 413


async def test_refuses_connections_beyond_its_limit() -> None:
    async with (
        listening(echo, ListenerLimits(connections=1, linger_seconds=0.2)) as (_, port),
        await RawClient.connect(port) as first,
    ):
        await first.post(body=b"x")
        await first.response()
        async with await RawClient.connect(port) as second:
            assert (await second.response()).status == 529
            assert await second.ended()
        await first.post(body=b"y")
        assert (await first.response()).status == 200


async def test_a_flood_of_connections_takes_no_open_files() -> None:
    """Also a refusal takes one until it is read."""
    limits = ListenerLimits(connections=1, linger_seconds=60.0)
    async with listening(echo, limits) as (listener, port), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(port)) for _ in range(150)]
        assert await clients[-1].ended()
        assert len(listener.open) < 80
        assert (await clients[1].response()).status == 529
        await clients[0].post(body=b"x")
        assert (await clients[0].response()).status == 200


async def test_a_connection_beyond_the_limit_is_not_kept_by_sending_on() -> None:
    limits = ListenerLimits(connections=1, linger_seconds=0.5, head_seconds=1.0)
    async with (
        listening(echo, limits) as (listener, port),
        await RawClient.connect(port) as first,
    ):
        await first.post(body=b"x")
        await first.response()
        async with await RawClient.connect(port) as second:
            with pytest.raises(ConnectionError):
                for _ in range(50):
                    await second.send(b"x")
                    await asyncio.sleep(0.1)
        assert len(listener.open) == 1


async def test_an_upgrade_is_ignored() -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.send(
            b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello"
        )
        response = await client.response()
        assert response.body == b"GET / "
        assert response.header(b"connection") == b"close"
        assert await client.ended()


H2C = HEAD + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAE\r\n"
UPGRADING = {
    "length": [H2C + b"content-length: 4\r\n\r\nbody"],
    "length, in two parts": [H2C + b"content-length: 4\r\n\r\nbo", b"dy"],
    "chunked": [H2C + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"],
}


@pytest.mark.parametrize("parts", UPGRADING.values(), ids=UPGRADING.keys())
async def test_nothing_is_lost_in_silence_behind_an_upgrade_that_is_ignored(parts: list[bytes]) -> None:
    """aiohttp's parser drops it: its client would wait for an answer for as long as it likes."""
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        for part in parts[:-1]:
            await client.send(part)
            await asyncio.sleep(0.02)
        await client.send(parts[-1] + b"GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
        response = await client.response()

        assert response.body == b"POST /v1/messages body"
        assert response.header(b"connection") == b"close"
        assert await client.ended()


@pytest.mark.parametrize("parts", [UPGRADING["length"], UPGRADING["length, in two parts"]])
async def test_who_offers_an_upgrade_with_each_request_keeps_its_connection(parts: list[bytes]) -> None:
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        for _ in range(3):
            for part in parts:
                await client.send(part)
                await asyncio.sleep(0.02)
            response = await client.response()
            assert response.body == b"POST /v1/messages body"
            assert response.header(b"connection") is None


TRAILED = (
    HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-gateway-cache: off\r\nx-api-key: k\r\n\r\n"
)


async def _headers_seen(*sent: bytes) -> list[list[bytes]]:
    """The names of the headers of each request, sent one after the answer to the other."""
    seen: list[list[bytes]] = []

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        seen.append([name for name, _ in request.headers])
        await echo(request, reply)

    async with listening(handle, QUICK) as (_, port), await RawClient.connect(port) as client:
        for data in sent:
            await client.send(data)
            assert (await client.response()).status == 200
    return seen


async def test_a_trailer_is_no_header_of_the_next_request() -> None:
    """aiohttp's parser takes it for one, which a proxy would make another client's header."""
    whole = HEAD + b"content-length: 0\r\n\r\n"
    first, second, third = await _headers_seen(TRAILED, whole, whole)

    assert first == [b"host", b"transfer-encoding"]
    assert second == third == [b"host", b"content-length"]


async def test_a_request_right_behind_a_chunked_one_is_not_read() -> None:
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(TRAILED + b"GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.response()).body == b"POST /v1/messages body"
        assert await client.ended()


async def test_a_connection_serves_on_after_chunked_bodies_however_they_come() -> None:
    large = HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"20000\r\n" + b"a" * 0x20000 + b"\r\n" * 1
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        for _ in range(2):
            await client.send(large)
            for piece in (b"4\r", b"\nbody\r\n0\r\n\r", b"\n"):
                await client.send(piece)
                await asyncio.sleep(0)
            assert (await client.response()).body.endswith(b"aabody")


async def test_a_request_line_without_a_protocol_is_refused() -> None:
    async with listening(echo, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(b"POST /v1/messages\nhost: a\r\n\r\n")
        assert (await client.response()).status == 400
        assert await client.ended()
