"""One client's connection: requests read by aiohttp's C parser, answered one after the other.

One task per request and none per idle connection. Timers live in the listener, which looks at all connections
once a second. What a request means, and what an error looks like, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Protocol, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.tcp_helpers import tcp_keepalive

from gateway.core.errors import BadRequest, ClientGone, GatewayError, Overloaded, RequestTimeout
from gateway.web.client_reply import ClientReply
from gateway.web.faults import render
from gateway.web.inbound import InboundRequest, ListenerLimits
from gateway.web.request_parser import HeadTooLong, RequestParser

log = logging.getLogger(__name__)

_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)
"""Linux tells of a peer that has finished sending; elsewhere only of one that is gone."""

_MAX_QUEUED = 8
"""Requests that a client may send ahead on one connection."""


_WRONG = {LineTooLong: "a line of its head is too long", HeadTooLong: "its head is too long"}
_MOST_REFUSED = 64
"""Connections beyond the bound that are told so. More are closed in silence: a refusal takes an open file,
too, until it is read."""


Handle = Callable[[InboundRequest, ClientReply], Awaitable[None]]


class Owner(Protocol):
    """What a connection needs of its listener."""

    handle: Handle
    new_id: Callable[[], str]
    limits: ListenerLimits
    accepting: bool
    open: set[Connection]


class _State(Enum):
    IDLE = "idle"
    HEAD = "head"
    """A part of a request's head has come."""
    BUSY = "busy"
    LINGER = "linger"
    """Answered; what the client still sends is dropped, so that it can read the answer."""
    CLOSING = "closing"
    """Closed here; the rest of the answer is on its way out."""


class Connection(asyncio.Protocol):
    """A socket's protocol, and the `Line` of its replies."""

    __slots__ = (
        "_broken", "_heard", "_linger_end", "_loop", "_owner", "_parser", "_payload", "_queue", "_queue_full",
        "_reading_paused", "_relief", "_reply", "_retired", "_since", "_state", "_task", "congested",
        "transport",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport | None = None
        self.congested = False
        self._owner = owner
        self._loop = loop
        self._state = _State.HEAD  # a new connection is there to send something
        self._since = loop.time()
        self._linger_end = 0.0
        self._heard = False
        """Whether anything ever came."""
        self._queue: list[tuple[RawRequestMessage | GatewayError, StreamReader]] = []
        self._queue_full = False
        self._broken = False
        """Nothing more of this connection's input is understood."""
        self._retired = False
        self._task: asyncio.Task[None] | None = None
        self._reply: ClientReply | None = None
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._relief: asyncio.Future[None] | None = None
        self._reading_paused = False  # the name that aiohttp's StreamReader looks for
        self._parser = RequestParser(self, loop, owner.limits, most_queued=_MAX_QUEUED)

    @property
    def busy(self) -> bool:
        return self._state is _State.BUSY

    @property
    def connected(self) -> bool:
        """What aiohttp's StreamReader asks before it waits."""
        return self.transport is not None

    @property
    def unfinished(self) -> bool:
        """Whether an answer is being made, or is still on its way out of this process."""
        if self._state in (_State.BUSY, _State.CLOSING, _State.LINGER):
            return True
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    # The listener's side

    def retire(self) -> None:
        """Close once what runs is answered; at once where nothing does."""
        self._retired = True
        if self._state in (_State.IDLE, _State.HEAD):
            self._close()

    def cancel(self, why: str) -> asyncio.Task[None] | None:
        """Cancel what runs; `why` is the message of its `CancelledError`."""
        task = self._task
        if task is not None:
            task.cancel(why)
        return task

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def judge(self, now: float) -> None:
        """Bound in time whatever waits for the client."""
        quiet = now - self._since
        limits = self._owner.limits
        if self._state is _State.IDLE and quiet >= limits.idle_seconds:
            self._close()
        elif self._state is _State.HEAD and quiet >= limits.head_seconds:
            if self._heard:
                self._refuse(RequestTimeout("The request's head did not arrive in time."))
            else:
                self._close()
        elif self._state is _State.LINGER and (quiet >= limits.linger_seconds or now >= self._linger_end):
            self._close()
        elif self._state is _State.CLOSING and quiet >= limits.slow_client_seconds:
            self.cut()
        elif self._state is _State.BUSY and (self._reading_paused or self._queue_full) and self._hung_up():
            self._left()  # a socket that is not read does not tell by itself

    # The socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        tcp_keepalive(self.transport)
        beyond = len(self._owner.open) - self._owner.limits.connections
        self._owner.open.add(self)
        if beyond >= _MOST_REFUSED:
            self.transport.abort()
        elif beyond >= 0:
            self._refuse(
                Overloaded("This gateway has as many connections open as it may.", retry_after_seconds=1)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._owner.open.discard(self)
        self._left()
        self._queue.clear()

    def eof_received(self) -> None:
        """A client that has finished sending has left: none of those we serve half-closes."""
        self._left()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._broken or self._state in (_State.LINGER, _State.CLOSING):
            if self._state is _State.LINGER:
                self._since = self._loop.time()
            return
        try:
            messages, self._broken = self._parser.feed(data, len(self._queue))
        except HttpProcessingError as error:
            self._misunderstood(error)
            return
        self._queue.extend(messages)
        if len(self._queue) >= _MAX_QUEUED and not self._queue_full:
            self._queue_full = True  # the parser has stopped, too
            if self.transport is not None:
                self.transport.pause_reading()
        if self._state is not _State.BUSY:
            if self._queue:
                self._next()
            elif self._state is _State.IDLE and data:
                self._enter(_State.HEAD)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._relieve()

    def body_taken(self) -> None:
        self._payload = EMPTY_PAYLOAD

    def ends_here(self) -> bool:
        """Whether no request is read after the one that runs: what is left of its body will not be, or
        nothing behind it is understood."""
        if not self._payload.is_eof() or (self._broken and not self._queue):
            return True
        return self._parser.ends_with(self._payload)

    async def relieved(self) -> None:
        if self.congested and self.transport is not None:
            self._relief = self._loop.create_future()
            await self._relief

    # What aiohttp's StreamReader asks for when nobody takes what it holds

    def pause_reading(self) -> None:
        self._reading_paused = True
        self._parser.pause_reading()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if not self._reading_paused:
            return
        self._reading_paused = False
        if resume_parser and self.transport is not None:
            self.data_received(b"")
        self._resume_transport()

    # Within

    def _next(self) -> None:
        message, payload = self._queue.pop(0)
        if isinstance(message, GatewayError):
            self._refuse(message)
            return
        self._enter(_State.BUSY)
        self._parser.message_consumed()
        self._payload = payload
        request = InboundRequest(self, message, payload)
        self._reply = ClientReply(
            self,
            method=request.method,
            version_11=request.version_11,
            keep_alive=request.version_11 and not message.should_close and self._owner.accepting,
            slow_client_seconds=self._owner.limits.slow_client_seconds,
        )
        self._task = self._loop.create_task(self._serve(request, self._reply), name="exchange")

    async def _serve(self, request: InboundRequest, reply: ClientReply) -> None:
        try:
            error = _unsupported(request)
            if error is None:
                await self._owner.handle(request, reply)
            else:
                self._answer(error, reply)
        except ClientGone:
            reply.abort()
        except GatewayError as error:
            self._answer(error, reply)
        except Exception:
            log.exception("an exchange failed")
            self._answer(GatewayError("The gateway failed on this request."), reply)
        except BaseException:
            reply.abort()
            raise
        else:
            if not reply.ended:
                log.error("an exchange ended without finishing its answer")
                self._answer(GatewayError("The gateway failed on this request."), reply)
        finally:
            self._served(reply)

    def _answer(self, error: GatewayError, reply: ClientReply) -> None:
        """The last resort: handlers render their own errors."""
        if reply.started or reply.gone:
            reply.abort()
            return
        rendered = render(error, self._owner.new_id())
        reply.keep_alive = False
        reply.start(rendered.status, rendered.headers)
        reply.write(rendered.body)
        reply.finish()

    def _served(self, reply: ClientReply) -> None:
        self._task = self._reply = None
        ends, self._payload = self.ends_here(), EMPTY_PAYLOAD
        transport = self.transport
        if transport is None:
            return
        if transport.is_closing():
            self._enter(_State.CLOSING)
        elif ends:
            self._linger()
        elif not reply.keep_alive:
            self._close()
        elif self._queue:
            self._next()
            self._drain_queue()
        elif self._retired:
            self._close()
        else:
            # Also where leaving was announced since the answer's head said that the connection stays: a
            # proxy may be sending the next request on it, and that one is told.
            self._enter(_State.IDLE)
            self._drain_queue()

    def _drain_queue(self) -> None:
        if self._queue_full and len(self._queue) <= _MAX_QUEUED // 2:
            self._queue_full = False
            self.data_received(b"")  # the parser stopped in the middle of what it had
            self._resume_transport()

    def _resume_transport(self) -> None:
        if self._reading_paused or self._queue_full:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _misunderstood(self, error: HttpProcessingError) -> None:
        self._broken = True
        what = _WRONG.get(type(error), "it is malformed")
        refusal = BadRequest(f"The request is not HTTP/1.1 as this gateway understands it: {what}.")
        if self._state is _State.BUSY and not self._payload.is_eof():
            self._payload.set_exception(refusal)
            return
        self._queue.append((refusal, EMPTY_PAYLOAD))
        if self._state is not _State.BUSY:
            self._next()

    def _refuse(self, error: GatewayError) -> None:
        """Answer without a request, and close."""
        self._broken = True
        reply = ClientReply(self, method="", version_11=True, keep_alive=False, slow_client_seconds=1.0)
        self._answer(error, reply)
        self._linger()

    def _linger(self) -> None:
        """Closing with unread input would reset the connection and take the answer from the client."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._enter(_State.LINGER)
        limits = self._owner.limits
        crowded = len(self._owner.open) > limits.connections  # then who sends on keeps others out
        self._linger_end = self._since + (limits.linger_seconds if crowded else limits.linger_most_seconds)
        if transport.can_write_eof():
            transport.write_eof()
        self._reading_paused = self._queue_full = False
        transport.resume_reading()

    def _left(self) -> None:
        self._relieve()
        if not self._payload.is_eof():
            self._payload.set_exception(ClientGone("the client has left"))
        if self._task is not None and self._reply is not None and not self._reply.ended:
            self._task.cancel()

    def _hung_up(self) -> bool:
        connected = None if self.transport is None else self.transport.get_extra_info("socket")
        if connected is None:
            return False
        poll = select.poll()
        poll.register(connected.fileno(), _HUNG_UP)  # hang-ups and errors are reported in any case
        return bool(poll.poll(0))

    def _relieve(self) -> None:
        relief, self._relief = self._relief, None
        if relief is not None and not relief.done():
            relief.set_result(None)

    def _close(self) -> None:
        self._enter(_State.CLOSING)
        if self.transport is not None:
            self.transport.close()

    def _enter(self, state: _State) -> None:
        self._state = state
        self._since = self._loop.time()


def _unsupported(request: InboundRequest) -> GatewayError | None:
    """What the parser lets pass and nobody further on could treat properly."""
    if not (request.version_11 or request.version_10):  # a request line may end before it names any
        return BadRequest("No protocol but HTTP/1.1 is spoken here.")
    for name, value in request.headers:
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return BadRequest("No transfer-encoding but `chunked` is understood here.")
        if name == b"expect" and value.strip().lower() != b"100-continue":
            return BadRequest("No expectation but `100-continue` is understood here.")
    return None
