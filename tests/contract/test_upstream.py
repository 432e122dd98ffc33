"""What the port `Upstream` promises, over every way of reaching an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from gateway.adapters.claude import ClaudeUpstream
from gateway.core.errors import UpstreamCut, UpstreamUnreachable
from gateway.ports import Upstream, UpstreamRequest
from tests.support.http_proxy import HttpProxy
from tests.support.mock_upstream import MockUpstream, Peer, Script, chunked, forever
from tests.support.tls import Certificate, make_certificate
from tests.support.upstreams import StreamOf, a_request, read_all

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\n"
PLAIN = OK + b"content-length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certificate]:
    yield make_certificate(tmp_path_factory.mktemp("tls"))


@dataclass
class Way:
    """One way to an upstream: directly or through a proxy, with TLS or without."""

    stack: AsyncExitStack
    upstream: Upstream
    certificate: Certificate | None = None
    proxy: HttpProxy | None = None
    mock: MockUpstream | None = None

    async def to(self, script: Script) -> MockUpstream:
        tls = self.certificate.server() if self.certificate else None
        self.mock = await self.stack.enter_async_context(MockUpstream(script, tls))
        return self.mock

    def request(self, **more: object) -> UpstreamRequest:
        assert self.mock is not None
        proxy = self.proxy.url if self.proxy else None
        return a_request(self.mock.base_url, proxy=proxy, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["direct", "tls", "proxy", "tls-proxy"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    certificate = request.getfixturevalue("certificate") if "tls" in request.param else None
    upstream = ClaudeUpstream(tls=certificate.client() if certificate else None)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(upstream.close)
        made = Way(stack, upstream, certificate)
        if "proxy" in request.param:
            made.proxy = await stack.enter_async_context(HttpProxy())
        yield made


async def test_relays_request_and_answer_to_the_byte(way: Way) -> None:
    mock = await way.to(forever(OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(b"a" * 70_000, b"b")))
    request = way.request(
        target="/v1//messages/%2f?beta=true",
        body=(b'{"a":', b"1" * 200_000, b"}"),
        headers=[(b"x-test", b"\xe4 value"), (b"anthropic-beta", b"one,two")],
    )

    async with way.upstream.open(request) as answer:
        assert answer.status == 200
        assert (b"request-id", b"req_1") in answer.headers
        assert await read_all(answer) == b"a" * 70_000 + b"b"

    asked = mock.requests[0]
    assert asked.line == b"POST /v1//messages/%2f?beta=true HTTP/1.1"
    assert asked.body == b'{"a":' + b"1" * 200_000 + b"}"
    assert asked.header(b"x-test") == b"\xe4 value"
    assert asked.header(b"host") == f"127.0.0.1:{mock.port}".encode()
    assert asked.header(b"content-length") == b"200006"


async def test_one_connection_serves_one_exchange_after_the_other(way: Way) -> None:
    mock = await way.to(forever(PLAIN))
    for _ in range(4):
        async with way.upstream.open(way.request()) as answer:
            assert await read_all(answer) == b"{}"

    assert mock.connections == 1


async def test_exchanges_at_once_have_connections_of_their_own(way: Way) -> None:
    mock = await way.to(forever(PLAIN))

    async def one() -> bytes:
        async with way.upstream.open(way.request()) as answer:
            return await read_all(answer)

    assert await asyncio.gather(*(one() for _ in range(20))) == [b"{}"] * 20
    assert mock.connections <= 20


async def test_a_method_without_a_body_sends_none(way: Way) -> None:
    mock = await way.to(forever(PLAIN))
    async with way.upstream.open(way.request(method="GET", body=(), headers=())) as answer:
        await read_all(answer)

    assert mock.requests[0].header(b"content-length") is None
    assert mock.requests[0].header(b"transfer-encoding") is None


async def test_a_streamed_body_arrives_whole(way: Way) -> None:
    mock = await way.to(forever(PLAIN))
    pieces = [bytes([n]) * 3_000 for n in range(100)]
    async with way.upstream.open(way.request(stream=StreamOf(*pieces))) as answer:
        await read_all(answer)

    assert mock.requests[0].body == b"".join(pieces)


async def test_events_arrive_as_they_are_sent(way: Way) -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(b"first", end=False))
        await read.wait()
        await peer.say(chunked(b"second"))

    seen: list[bytes] = []

    def feed(data: bytes) -> bool:
        seen.append(data)
        read.set()
        return False

    await way.to(script)
    async with way.upstream.open(way.request()) as answer:
        assert await answer.pump(feed)

    assert seen == [b"first", b"second"]


async def test_a_cut_is_told_from_an_end(way: Way) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"content-length: 10\r\n\r\nfive!")
        peer.finish()

    await way.to(script)
    with pytest.raises(UpstreamCut):
        async with way.upstream.open(way.request()) as answer:
            await read_all(answer)


async def test_leaving_early_is_noticed_upstream(way: Way) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"content-length: 10\r\n\r\n")
        await peer.left()
        left.set()

    await way.to(script)
    async with way.upstream.open(way.request()):
        pass
    await asyncio.wait_for(left.wait(), 20)


async def test_a_certificate_that_is_not_trusted_is_unreachable(certificate: Certificate) -> None:
    upstream = ClaudeUpstream()
    async with MockUpstream(forever(PLAIN), certificate.server()) as mock:
        with pytest.raises(UpstreamUnreachable) as caught:
            async with upstream.open(a_request(mock.base_url)):
                pass
    await upstream.close()

    assert not caught.value.request_sent
    assert mock.requests == []


async def test_a_proxy_that_refuses_is_unreachable(certificate: Certificate) -> None:
    upstream = ClaudeUpstream(tls=certificate.client())
    async with MockUpstream(forever(PLAIN), certificate.server()) as mock, HttpProxy(refuse=True) as proxy:
        with pytest.raises(UpstreamUnreachable) as caught:
            async with upstream.open(a_request(mock.base_url, proxy=proxy.url)):
                pass
    await upstream.close()

    assert not caught.value.request_sent
    assert proxy.asked[0].startswith(b"CONNECT 127.0.0.1:")
    assert mock.requests == []


async def test_a_path_prefix_of_the_base_url_is_kept(way: Way) -> None:
    mock = await way.to(forever(PLAIN))
    proxy = way.proxy.url if way.proxy else None
    async with way.upstream.open(a_request(mock.base_url + "/anthropic", proxy=proxy)) as answer:
        await read_all(answer)

    assert mock.requests[0].line == b"POST /anthropic/v1/messages HTTP/1.1"
