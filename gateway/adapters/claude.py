"""`Upstream` over sockets: connect and pool by aiohttp's connector, everything after that read below it.

One attempt per call. Redirects are answers. Nothing here reads bodies, knows budgets or decides on retries.
The connection itself is `claude_wire.py`.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from gateway.adapters.claude_wire import Head, HeadParser, Wire
from gateway.adapters.unreached import unreached
from gateway.core.errors import BadRequest, UpstreamTimeout, UpstreamUnreachable
from gateway.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiohttp.connector import Connection

    from gateway.core.headers import Headers
    from gateway.core.rules import Route
    from gateway.ports import Answer, BodyStream, UpstreamRequest

_KEEPALIVE_IDLE_SECONDS = 60
_MAX_ORIGINS = 256


class ClaudeUpstream:
    """Pooled HTTP/1.1 connections to the origins of the routes. Make it inside the running loop.

    Timeouts, in seconds: `connect` covers DNS, TCP, a proxy's tunnel and TLS; `head` from sending to the
    response's head; `idle` between two reads of the body; `send` while upstream takes no byte of the request.
    The last three are looked at once a second, or four times within the shortest of them.
    """

    def __init__(
        self,
        *,
        connect_timeout_seconds: float = 5.0,
        head_timeout_seconds: float = 600.0,
        idle_timeout_seconds: float = 300.0,
        send_timeout_seconds: float = 60.0,
        keepalive_seconds: float = 30.0,
        max_connections: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(
            limit=max_connections,
            keepalive_timeout=keepalive_seconds,
            ssl=True if tls is None else tls,
            ttl_dns_cache=30,
            socket_factory=_keepalive_socket,
        )
        # The one private name of the connector that is touched: which protocol it puts on a new socket.
        self._connector._factory = functools.partial(Wire, self._loop, HeadParser(self._loop))  # type: ignore[assignment]
        self._connect = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_seconds, sock_connect=connect_timeout_seconds
        )
        self._origins: dict[tuple[str, str | None], _Origin] = {}
        self._senders = TaskSet()
        self._watch = _Watch(
            self._loop,
            head_seconds=head_timeout_seconds,
            idle_seconds=idle_timeout_seconds,
            send_seconds=send_timeout_seconds,
        )

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Answer]:
        return _Opening(self, request)

    def exchanges(self) -> int:
        """How many are open."""
        return len(self._watch)

    async def close(self) -> None:
        """Close pooled connections at once; exchanges still open fail."""
        self._watch.stop()
        await self._connector.close()
        await self._senders.drain(1.0)

    def _origin(self, route: Route) -> _Origin:
        key = (route.base_url, route.proxy)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _MAX_ORIGINS:
                self._origins.clear()
            origin = self._origins[key] = _Origin(route.base_url, route.proxy, self._loop)
        return origin

    async def _connection(self, origin: _Origin) -> Connection:
        try:
            return await self._connector.connect(origin.template, [], self._connect)
        except TimeoutError as error:
            raise UpstreamTimeout("no connection to upstream in time", request_sent=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachable(
                f"no connection to upstream: {unreached(error)}", request_sent=False
            ) from error


class _Origin:
    """What is the same for all requests to one base URL: the connector's template, the host line, the prefix
    of the target."""

    __slots__ = ("host_line", "prefix", "template")

    def __init__(self, base_url: str, proxy: str | None, loop: asyncio.AbstractEventLoop) -> None:
        url = URL(base_url)
        self.template = ClientRequest(
            "GET", url, loop=loop, proxy=URL(proxy) if proxy else None, response_class=aiohttp.ClientResponse
        )
        host = url.raw_host or ""
        if ":" in host:
            host = f"[{host}]"
        if not url.is_default_port() and url.explicit_port is not None:
            host = f"{host}:{url.explicit_port}"
        self.host_line = b"host: " + host.encode("ascii")
        self.prefix = url.raw_path.rstrip("/")
        if proxy and url.scheme == "http":
            self.prefix = f"http://{host}{self.prefix}"  # a plain proxy wants the absolute form


class _Opening:
    """The context of one exchange with upstream."""

    __slots__ = ("_connection", "_request", "_sender", "_upstream", "_wire")

    def __init__(self, upstream: ClaudeUpstream, request: UpstreamRequest) -> None:
        self._upstream = upstream
        self._request: UpstreamRequest | None = request
        self._connection: Connection | None = None
        self._wire: Wire | None = None
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Answer:
        request, self._request = self._request, None  # the body is let go of once it is written
        assert request is not None, "a context is entered once"
        origin = self._upstream._origin(request.route)
        head = _request_head(origin, request)
        connection = await self._upstream._connection(origin)
        wire = connection.protocol
        assert isinstance(wire, Wire)
        self._connection, self._wire = connection, wire
        answer = wire.begin(request.method)
        self._upstream._watch.add(wire)
        try:
            if not answer.done():
                request.on_sent()
            stream = request.body_stream
            if stream is None:
                wire.send([head, *request.body])
                wire.request_written = True
            else:
                wire.send([head])
                self._sender = self._upstream._senders.spawn(
                    _send_stream(wire, stream, answer), name="upstream body"
                )
            del request
            return _Answer(wire, await answer)
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        wire, connection = self._wire, self._connection
        if wire is None or connection is None:
            return
        self._wire = self._connection = None
        self._upstream._watch.discard(wire)
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        if wire.end():
            connection.release()
        else:
            connection.close()


class _Answer:
    __slots__ = ("_wire", "headers", "status")

    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self.status = head.status
        self.headers: Headers = head.headers

    def pump(self, feed: Callable[[bytes], bool]) -> Coroutine[None, None, bool]:
        self.headers = ()  # a stream lasts for minutes
        return self._wire.pump(feed)


async def _send_stream(wire: Wire, stream: BodyStream, answer: asyncio.Future[Head]) -> None:
    """Relay the client's body. What `stream` raises becomes the exchange's error; an early answer ends it."""
    chunked = stream.length is None
    try:
        while not answer.done():
            piece = await stream.read()
            if not piece:
                if chunked:
                    wire.send([b"0\r\n\r\n"])
                wire.request_written = True
                return
            wire.send([b"%x\r\n" % len(piece), piece, b"\r\n"] if chunked else [piece])
            await wire.writable()
    except Exception as error:
        if not answer.done():
            answer.set_exception(error)


def _request_head(origin: _Origin, request: UpstreamRequest) -> bytes:
    """The request's head, ready to be written. Raises `BadRequest` for whatever could end a line early."""
    try:
        lines = [f"{request.method} {origin.prefix}{request.target} HTTP/1.1".encode("ascii")]
    except UnicodeEncodeError as error:
        raise BadRequest("The request's target has characters that a URL must escape.") from error
    if lines[0].count(b" ") != 2:
        raise BadRequest("The request's target has a space in it.")
    lines.append(origin.host_line)
    lines += [name + b": " + value for name, value in request.headers]
    if request.body_stream is not None:
        length = request.body_stream.length
        lines.append(b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length)
    elif request.body or request.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        lines.append(b"content-length: %d" % sum(map(len, request.body)))
    head = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if head.count(b"\r") != breaks or head.count(b"\n") != breaks or b"\0" in head:
        raise BadRequest("The request's target or a header has a line break or a NUL in it.")
    return head + b"\r\n\r\n"


class _Watch:
    """One timer for all open exchanges: no read re-arms anything."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        head_seconds: float,
        idle_seconds: float,
        send_seconds: float,
    ) -> None:
        self._loop = loop
        self._head_seconds = head_seconds
        self._idle_seconds = idle_seconds
        self._send_seconds = send_seconds
        self._interval = min(1.0, min(head_seconds, idle_seconds, send_seconds) / 4)
        self._open: dict[Wire, _Quiet] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, wire: Wire) -> None:
        now = self._loop.time()
        self._open[wire] = _Quiet(now)
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._look)

    def discard(self, wire: Wire) -> None:
        self._open.pop(wire, None)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        for wire, quiet in list(self._open.items()):
            self._judge(wire, quiet, now)
        self._timer = self._loop.call_later(self._interval, self._look) if self._open else None

    def _judge(self, wire: Wire, quiet: _Quiet, now: float) -> None:
        unsent = wire.unsent_bytes
        if unsent != quiet.unsent or not unsent:
            quiet.unsent, quiet.unsent_since = unsent, now
        elif now - quiet.unsent_since >= self._send_seconds:
            wire.time_out("upstream stopped taking the request")
            return
        uploading = wire.head_awaited and not wire.request_written
        # What comes of a head before its end is no answer: one that drips has a head's time as well.
        answering = wire.heard and not wire.head_awaited
        if answering or uploading or not wire.waiting:
            wire.heard = False
            quiet.since = now
        elif wire.head_awaited:
            if now - quiet.since >= self._head_seconds:
                wire.time_out("upstream did not answer in time")
        elif now - quiet.since >= self._idle_seconds:
            wire.time_out("upstream fell silent within its answer")


class _Quiet:
    __slots__ = ("since", "unsent", "unsent_since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.unsent = 0
        self.unsent_since = now


def _keepalive_socket(address: Any) -> socket.socket:
    """Silent minutes are normal: the kernel asks whether the peer still lives (errors page: set TCP
    keep-alive)."""
    family, kind, protocol = address[0], address[1], address[2]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
    return made
