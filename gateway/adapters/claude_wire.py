"""One connection to upstream: bytes out, a response's head and body bytes in.

aiohttp's connector makes and pools these; its C parser reads the head. The body is handed on from within the
socket's callback, so that a streamed event costs no switch of coroutines. What a request or an answer means
is not known here; nor are retries. `claude.py` is the port.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError

from gateway.adapters.claude_framing import Chunked, Framing, Length, NoBody, UntilClose
from gateway.core.errors import GatewayError, UpstreamCut, UpstreamTimeout, UpstreamUnreachable
from gateway.core.headers import HOP_BY_HOP, Header, connection_names

_MAX_HEAD_BYTES = 262_144
_MAX_LINE_BYTES = 65_536
_MAX_HEADERS = 256
_MAX_EARLY_BYTES = 65_536
"""Of a body whose reader has not come yet; beyond it the socket is left unread."""
_NEVER_FILLED: Final[deque[Any]] = deque(maxlen=0)
"""In place of a queue of messages that aiohttp gives each connection, and nobody reads."""


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: list[Header]


class HeadParser:
    """aiohttp's C parser, for whole heads: one for all connections, since it keeps a head until the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser: HttpResponseParser | None = None

    def parse(self, head: bytes) -> RawResponseMessage:
        """Raises `UpstreamUnreachable` for what is no head of an answer."""
        parser, self._parser = self._parser or self._fresh(), None
        try:
            messages, upgraded, _ = parser.feed_data(head)
        except HttpProcessingError as error:
            raise UpstreamUnreachable("upstream sent a malformed head", request_sent=True) from error
        if len(messages) != 1 or (upgraded and messages[0][0].code != 101):
            raise UpstreamUnreachable("upstream sent a malformed head", request_sent=True)
        message = messages[0][0]
        if not (upgraded or message.should_close):  # after which a parser takes nothing more
            self._parser = parser
        return message

    def _fresh(self) -> HttpResponseParser:
        return HttpResponseParser(
            BaseProtocol(self._loop),
            self._loop,
            2**16,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
            response_with_body=False,
            auto_decompress=False,
        )


class Wire(ResponseHandler):
    """Between exchanges, and while a proxy's tunnel is being made, it is aiohttp's own protocol; `begin` to
    `end` it belongs to one exchange. Errors are those of the port."""

    __slots__ = (
        "_early", "_early_bytes", "_failure", "_feed", "_framing", "_head", "_heads", "_keep", "_method",
        "_partial_head", "_pumping", "_resting", "busy", "heard", "request_written",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, heads: HeadParser) -> None:
        super().__init__(loop)
        self.busy = False
        self.heard = False
        """Set by every read; whoever watches the time clears it."""
        self.request_written = False
        self._heads = heads
        self._method = ""
        self._partial_head = b""
        self._head: asyncio.Future[Head] | None = None
        self._framing: Framing | None = None
        self._keep = False
        self._failure: GatewayError | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._feed: Callable[[bytes], bool] | None = None
        self._pumping: asyncio.Future[bool] | None = None
        self._resting = False

    # One exchange

    def begin(self, method: str) -> asyncio.Future[Head]:
        """Take the connection for one request; what is returned ends with the response's head."""
        self.busy = True
        self._buffer = _NEVER_FILLED
        self.heard = True
        self.request_written = False
        self._method = method
        self._partial_head = b""
        self._framing = None
        self._failure = None
        self._early_bytes = 0
        self._head = self._loop.create_future()
        if self.transport is None or self.transport.is_closing():
            self._fail(UpstreamUnreachable("upstream closed the kept connection", request_sent=False))
        return self._head

    def send(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write without joining. Nothing happens where the connection is lost: the head's future tells."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(pieces)

    async def writable(self) -> None:
        """Until less than the high-water mark waits to be sent. Returns, too, once the connection is lost."""
        if self._paused and self.transport is not None:
            try:
                await self._drain_helper()
            except ConnectionError:
                return

    @property
    def unsent_bytes(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    @property
    def waiting(self) -> bool:
        """Whether upstream is what the exchange waits for, and not the client or ourselves."""
        return (self._head is not None and not self._head.done()) or self._pumping is not None

    @property
    def head_awaited(self) -> bool:
        return self._framing is None

    async def pump(self, feed: Callable[[bytes], bool]) -> bool:
        """As `Answer.pump`."""
        assert self._framing is not None, "the head comes first"
        assert self._pumping is None, "one reader at a time"
        while self._early:
            self._early_bytes -= len(self._early[0])
            if feed(self._early.pop(0)):
                return False
        if self._framing.complete:
            return True
        if self._failure is not None:
            raise self._failure
        self._feed = feed
        self.heard = True
        self._pumping = self._loop.create_future()
        self._unrest()
        try:
            return await self._pumping
        finally:
            self._pumping = None
            self._feed = None

    def end(self) -> bool:
        """Give the connection back. True where it may carry another exchange; else it is cut at once."""
        reusable = (
            self._keep
            and self._framing is not None
            and self._framing.complete
            and not self._framing.surplus
            and self.request_written
            and self._failure is None
            and self.is_connected()
            and not self.unsent_bytes
        )
        self.busy = False
        self._early.clear()
        if self._head is not None and not self._head.cancel() and not self._head.cancelled():
            self._head.exception()  # seen: an exchange that was cancelled does not look
        self._head = None
        self._framing = None
        self._partial_head = b""
        if reusable:
            self._unrest()
        else:
            self.abort()
        return reusable

    def time_out(self, message: str) -> None:
        """Give up on upstream: whoever waits gets `UpstreamTimeout`."""
        self._fail(UpstreamTimeout(message, request_sent=True))

    # The socket's side

    def data_received(self, data: bytes) -> None:
        framing = self._framing
        if framing is None:
            self._take_head(data)
            return
        self.heard = True
        try:
            body = framing.decode(data)
        except GatewayError as error:
            self._fail(error)
            self.abort()
            return
        if body:
            feed = self._feed
            if feed is None:
                self._keep_early(body)
            else:
                try:
                    if feed(body):
                        self._congested(framing)
                except Exception as error:
                    self._feed_failed(error)
                    return
        if framing.complete:
            self._done()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.busy:
            if self._framing is None:
                told = "upstream closed the connection before it answered"
                self._fail(UpstreamUnreachable(told, request_sent=True))
            elif not self._framing.complete:
                self._end_by_closing(exc)
        super().connection_lost(exc)
        self._exception = None  # nobody reads aiohttp's queue; its message would keep this object alive

    # Within

    def _take_head(self, data: bytes) -> None:
        if not self.busy:
            super().data_received(data)
            return
        self.heard = True
        try:
            data = self._read_head(data)
        except GatewayError as error:
            self._fail(error)
            self.abort()
            return
        if data:
            self.data_received(data)

    def _read_head(self, data: bytes) -> bytes:
        """Read up to the head's end; what is left of `data` is of the body. Empty while there is no end."""
        data = self._partial_head + data if self._partial_head else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _MAX_HEAD_BYTES:
                    raise UpstreamUnreachable("upstream sent a head that does not end", request_sent=True)
                self._partial_head = data
                return b""
            message = self._heads.parse(data[: end + 4])
            data = data[end + 4 :]
            if message.code >= 200:
                break
            if message.code == 101:
                raise UpstreamUnreachable("upstream switched protocols unasked", request_sent=True)
        self._partial_head = b""
        self._keep = not message.should_close
        raw = [(name.lower(), value) for name, value in message.raw_headers]
        framing = self._framing = _framing_of(self._method, message, raw)
        if isinstance(framing, UntilClose):
            self._keep = False
        awaited, self._head = self._head, None
        if awaited is not None and not awaited.done():
            awaited.set_result(Head(message.code, _end_to_end(raw, message.chunked)))
        return data

    def _keep_early(self, data: bytes) -> None:
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > _MAX_EARLY_BYTES:
            self._rest()

    def _feed_failed(self, error: Exception) -> None:
        self._feed = None
        if self._pumping is not None and not self._pumping.done():
            self._pumping.set_exception(error)
        self.abort()

    def _congested(self, framing: Framing) -> None:
        self._feed = None
        if self._pumping is not None and not self._pumping.done():
            self._pumping.set_result(framing.complete)
        if not framing.complete:
            self._rest()

    def _done(self) -> None:
        self._feed = None
        if self._pumping is not None and not self._pumping.done():
            self._pumping.set_result(True)

    def _end_by_closing(self, exc: BaseException | None) -> None:
        assert self._framing is not None
        if exc is not None:
            self._fail(UpstreamCut("upstream reset the connection within its answer"))
            return
        try:
            self._framing.ended()
        except UpstreamCut as cut:
            self._fail(cut)
        else:
            self._done()

    def _fail(self, error: GatewayError) -> None:
        if self._failure is not None:
            return
        self._failure = error
        self._keep = False
        for waiting in (self._head, self._pumping):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)

    def _rest(self) -> None:
        if not self._resting and self.transport is not None and not self.transport.is_closing():
            self._resting = True
            self.transport.pause_reading()

    def _unrest(self) -> None:
        if self._resting:
            self._resting = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()


def _framing_of(method: str, message: RawResponseMessage, headers: list[Header]) -> Framing:
    """RFC 9112, section 6.3."""
    if method == hdrs.METH_HEAD or message.code in (204, 304):
        return NoBody()
    if message.chunked:
        return Chunked()
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        return UntilClose()
    lengths = {value for name, value in headers if name == b"content-length"}
    if not lengths:
        return UntilClose()
    value = lengths.pop()
    if lengths or not value.isdigit():
        raise UpstreamUnreachable("upstream sent a malformed content-length", request_sent=True)
    length = int(value)
    return Length(length) if length else NoBody()


def _end_to_end(headers: list[Header], chunked: bool) -> list[Header]:
    dropped = HOP_BY_HOP | connection_names(headers)
    if chunked:
        dropped |= {b"content-length"}
    return [line for line in headers if line[0] not in dropped]
