"""Request bodies over real sockets: whole, encoded, relayed, late, too large."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import resource
import time
import zlib

import pytest

from gateway.core.errors import (
    ClientGone,
    GatewayError,
    RequestTimeout,
    TooLarge,
    UnsupportedEncoding,
)
from gateway.web.listener import (
    ClientReply,
    InboundRequest,
    ListenerLimits,
    RelayedBody,
    read_body,
)
from tests.support.listeners import echo, listening
from tests.support.raw_client import RawClient

HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: gateway.test\r\n"
QUICK = ListenerLimits(head_seconds=1.0, idle_seconds=1.0, slow_client_seconds=1.0, linger_seconds=1.0)


def outcome_of(error: type[Exception], outcomes: list[object]) -> object:
    """A handler that reads a small body, and notes what comes of it."""

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        try:
            body = await read_body(request, limit_bytes=1_000, timeout_seconds=1.0)
        except error as caught:
            outcomes.append(caught)
            raise
        outcomes.append(body)
        reply.start(200, [(b"content-length", b"0")])
        reply.finish()

    return handle


async def test_invites_the_body_that_a_client_holds_back() -> None:
    async with listening(echo) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"content-length: 4\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.response()).status == 100
        await client.send(b"body")
        assert (await client.response()).body == b"POST /v1/messages body"


async def test_a_refusal_needs_no_invitation() -> None:
    outcomes: list[object] = []
    handle = outcome_of(TooLarge, outcomes)
    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"content-length: 9000\r\nexpect: 100-continue\r\n\r\n")
        response = await client.response()

        assert response.status == 413
        assert json.loads(response.body)["error"]["type"] == "request_too_large"
        assert await client.ended()


@pytest.mark.parametrize(
    "framing",
    [
        pytest.param(b"content-length: 500000\r\n\r\n", id="length"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n7a120\r\n", id="chunked"),
    ],
)
async def test_a_client_can_read_the_refusal_of_a_body_it_is_still_sending(framing: bytes) -> None:
    outcomes: list[object] = []
    handle = outcome_of(TooLarge, outcomes)
    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + framing)
        for _ in range(50):
            await client.send(b"x" * 10_000)
            await asyncio.sleep(0.001)
        response = await client.response()

    assert response.status == 413
    assert isinstance(outcomes[0], TooLarge)


async def _refused_while_sending(limits: ListenerLimits) -> tuple[int, float]:
    """The answer's status for a client that reads it after all is sent, or 0 where it is cut before; and for
    how long that was."""

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        raise TooLarge("as an answer")

    began = asyncio.get_running_loop().time()
    async with listening(handle, limits) as (_, port), await RawClient.connect(port) as client:
        try:
            await client.send(HEAD + b"content-length: 1000000\r\n\r\n")
            for _ in range(25):
                await client.send(b"x" * 1_000)
                await asyncio.sleep(0.1)
            status = (await client.response()).status
        except ConnectionError:
            status = 0
        return status, asyncio.get_running_loop().time() - began


async def test_a_refusal_waits_for_a_client_that_goes_on_sending() -> None:
    status, _ = await _refused_while_sending(ListenerLimits(linger_seconds=1.0, head_seconds=1.0))

    assert status == 413


async def test_a_refusal_does_not_wait_for_ever() -> None:
    limits = ListenerLimits(linger_seconds=1.0, linger_most_seconds=1.2, head_seconds=1.0)
    status, seconds = await _refused_while_sending(limits)

    assert status == 0
    assert seconds < 2.4


async def test_an_answer_before_the_bodys_end_says_that_the_connection_ends() -> None:
    """Whoever would send the next request on it lost that one."""

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        await RelayedBody(request, limit_bytes=10_000, timeout_seconds=5).read()
        reply.start(413, [(b"content-length", b"4")])  # as upstream's own refusal is relayed
        reply.write(b"full")
        reply.finish()

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"content-length: 9000\r\n\r\nsome")
        response = await client.response()

        assert response.body == b"full"
        assert response.header(b"connection") == b"close"
        assert await client.ended()


@pytest.mark.parametrize(
    "sent", [b"content-length: 900\r\n\r\nsome", b"transfer-encoding: chunked\r\n\r\n5\r\nab"]
)
async def test_a_half_sent_body_times_out(sent: bytes) -> None:
    outcomes: list[object] = []
    handle = outcome_of(RequestTimeout, outcomes)
    async with listening(handle, QUICK) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + sent)
        response = await client.response()

        assert response.status == 408
        assert await client.ended()
    assert isinstance(outcomes[0], RequestTimeout)


async def test_a_dripping_body_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.request_body._RATE_WINDOW_SECONDS", 0.2)

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        await read_body(request, limit_bytes=10_000, timeout_seconds=60)

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"content-length: 5000\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            response = group.create_task(client.response())
            while not response.done():
                client.writer.write(b"x")
                await asyncio.sleep(0.05)

    assert response.result().status == 408


async def test_a_body_may_not_take_longer_than_its_time() -> None:
    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        await read_body(request, limit_bytes=10**9, timeout_seconds=0.5)

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"content-length: 100000000\r\n\r\n")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            response = group.create_task(client.response())
            while not response.done():
                client.writer.write(b"x" * 10_000)
                await asyncio.sleep(0.02)

    assert response.result().status == 408


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        (b"gzip", gzip.compress(b"a" * 500, mtime=0) + gzip.compress(b"b" * 400, mtime=0)),
        (b"deflate", zlib.compress(b"a" * 500 + b"b" * 400)),
        (b"deflate", zlib.compress(b"a" * 500 + b"b" * 400, wbits=-15)),
        (b"identity", b"a" * 500 + b"b" * 400),
    ],
)
async def test_takes_content_encodings_off_and_says_so(encoding: bytes, encoded: bytes) -> None:
    outcomes: list[object] = []
    handle = outcome_of(GatewayError, outcomes)
    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.post("/", encoded, b"content-encoding: " + encoding)
        assert (await client.response()).status == 200

    body = outcomes[0]
    assert body.data == b"a" * 500 + b"b" * 400  # type: ignore[attr-defined]
    assert body.decoded is (encoding != b"identity")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("encoding", "sent", "error"),
    [
        (b"br", b"x", UnsupportedEncoding),
        (b"zstd", b"x", UnsupportedEncoding),
        (b"gzip, gzip", b"x", UnsupportedEncoding),
        (b"gzip", b"not gzip", UnsupportedEncoding),
        (b"gzip", gzip.compress(b"x" * 900, mtime=0)[:-4], UnsupportedEncoding),
        (b"deflate", zlib.compress(b"x") + b"tail", UnsupportedEncoding),
        (b"gzip", gzip.compress(bytes(1_001), mtime=0), TooLarge),
        (b"deflate", zlib.compress(bytes(900_000)), TooLarge),
    ],
)
async def test_refuses_encodings_it_cannot_read(encoding: bytes, sent: bytes, error: type[Exception]) -> None:
    outcomes: list[object] = []
    handle = outcome_of(GatewayError, outcomes)
    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.post("/", sent, b"content-encoding: " + encoding)
        response = await client.response()

    assert isinstance(outcomes[0], error)
    assert response.status in (400, 413)


async def test_a_decompression_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        await read_body(request, limit_bytes=4_000_000, timeout_seconds=5)

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.post("/", bomb, b"content-encoding: gzip")
        assert (await client.response()).status == 413

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


async def test_members_of_a_gzip_body_cost_no_more_than_their_bytes() -> None:
    """What follows a member was copied for each of them: a body of some megabytes took a minute of CPU."""
    plain = random.Random(1).randbytes(20_000_000)
    empty = gzip.compress(b"", mtime=0)
    seen: list[bytes] = []

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        seen.append((await read_body(request, limit_bytes=30_000_000, timeout_seconds=20)).data)
        reply.start(200, [(b"content-length", b"0")])
        reply.finish()

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        before = time.process_time()
        await client.post("/", empty * 900 + gzip.compress(plain, 0, mtime=0), b"content-encoding: gzip")
        assert (await client.response()).status == 200
        assert time.process_time() - before < 0.7
        await client.post("/", empty * 10_001, b"content-encoding: gzip")
        assert (await client.response()).status == 400

    assert seen == [plain]


async def test_a_client_that_leaves_while_sending_ends_the_reading() -> None:
    outcomes: list[BaseException] = []
    reading, done = asyncio.Event(), asyncio.Event()

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        reading.set()
        try:
            await read_body(request, limit_bytes=1_000, timeout_seconds=5)
        except BaseException as error:
            outcomes.append(error)
            done.set()
            raise

    async with listening(handle) as (_, port):
        client = await RawClient.connect(port)
        await client.send(HEAD + b"content-length: 900\r\n\r\nsome")
        await asyncio.wait_for(reading.wait(), 20)
        client.writer.close()
        await asyncio.wait_for(done.wait(), 20)

    assert isinstance(outcomes[0], (ClientGone, asyncio.CancelledError))


@pytest.mark.parametrize("chunked", [False, True])
async def test_relays_a_large_body_in_bounded_memory(chunked: bool) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 60_000_000

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        stream = RelayedBody(request, limit_bytes=10**9, timeout_seconds=10)
        assert stream.length == (None if chunked else size)
        await asyncio.sleep(0.2)  # for as much as would come to come
        taken = 0
        while piece := await stream.read():
            taken += len(piece)
        reply.start(200, [(b"x-taken", b"%d" % taken), (b"content-length", b"0")])
        reply.finish()

    piece = b"x" * 100_000
    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(
            HEAD
            + (b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: %d\r\n\r\n" % size)
        )
        for _ in range(size // len(piece)):
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await client.send(b"0\r\n\r\n" if chunked else b"")
        response = await client.response()

    assert response.header(b"x-taken") == b"%d" % size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


async def test_a_relayed_body_that_is_too_large_is_refused() -> None:
    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        stream = RelayedBody(request, limit_bytes=100, timeout_seconds=10)
        while await stream.read():
            pass

    async with listening(handle) as (_, port), await RawClient.connect(port) as client:
        await client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n")
        assert (await client.response()).status == 413
