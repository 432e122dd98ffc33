"""One connection's requests, read by aiohttp's C parser: from bytes to heads and bodies. What is done with
them, and what an error looks like, is `connection.py`'s.

The last trailer of a chunked body is taken by that parser (aiohttp 3.14) for a header of the request after
it, which may be another client's where a proxy stands in front. So a request after a chunked one gets a
parser of its own; where it has come along already it is dropped, and the connection ends with the answer
before it. Nor is it read behind a request that asks for another protocol: that parser drops what comes with
its last byte, whether it knows the protocol or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import StreamReader
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from gateway.core.errors import BadRequest
from gateway.web.inbound import ListenerLimits

Message = tuple[RawRequestMessage, StreamReader]

_PIECES = 4
"""So many make up the longest head: what is held of one is never longer than that by more than a piece."""


class HeadTooLong(HttpProcessingError):
    """A head is longer than it may be as a whole."""


class RequestParser:
    """`protocol` is asked to pause and resume reading. The parser stops by itself where `most_queued`
    requests wait, until it is told that one was taken."""

    __slots__ = (
        "_body", "_chunked", "_left", "_limits", "_loop", "_most_queued", "_owed", "_parser", "_protocol",
        "_tail", "_taken", "_unfinished", "_unread", "_upgrading",
    )  # fmt: skip

    def __init__(
        self, protocol: object, loop: asyncio.AbstractEventLoop, limits: ListenerLimits, *, most_queued: int
    ) -> None:
        self._protocol = protocol
        self._loop = loop
        self._limits = limits
        self._most_queued = most_queued
        self._parser: HttpRequestParser | None = None
        """None where it would hold nothing but what it has handed out already: a stream lasts for minutes."""
        self._chunked: StreamReader | None = None
        """The body of the last request, where it comes in chunks."""
        self._upgrading: StreamReader | None = None
        """The body of the last request, where it asks for another protocol."""
        self._unfinished: StreamReader | None = None
        """The body of the last request, until its end has come."""
        self._taken = 0
        """How much of that has come."""
        self._unread = 0
        """Bytes since then that made neither a whole head nor a part of a body."""
        self._tail = b""
        """The last four bytes that came."""
        self._body: StreamReader | None = None
        """That of the parser's first request, where its length is known."""
        self._left = 0
        """So many bytes of that request are still to come."""
        self._owed = 0
        """Requests of parsers before this one that are not consumed yet."""

    def feed(self, data: bytes, queued: int) -> tuple[Sequence[Message], bool]:
        """The requests whose heads end in `data`, and whether nothing after them is to be read. `queued`: how
        many wait already. Raises aiohttp's `HttpProcessingError`."""
        if len(data) <= self._limits.head_bytes:
            return self._feed(data, queued)
        # What comes in one feed with the end of a body is not counted, so no more than a piece goes with it.
        piece = self._limits.head_bytes // _PIECES
        found: list[Message] = []
        at, ended = 0, False
        while at < len(data) and not ended:
            end = at + max(piece, 0 if self._body is None else self._left)
            messages, ended = self._feed(data[at:end], queued + len(found))
            found += messages
            at = end
        return found, ended

    def _feed(self, data: bytes, queued: int) -> tuple[Sequence[Message], bool]:
        first = self._parser is None
        if self._parser is None:
            if not data:
                return (), False
            self._parser = self._fresh()
        messages, upgraded, _ = self._parser.feed_data(data)
        self._tail = (self._tail + data[-4:])[-4:]
        stopped = queued + len(messages) >= self._most_queued  # it may hold whole requests
        self._bound(data, messages, stopped=stopped)
        if self._chunked is not None and messages:
            return (), True
        for index, (message, payload) in enumerate(messages):
            if message.upgrade:
                self._upgrading = payload
            if message.chunked:
                self._chunked = payload
                if index + 1 < len(messages):
                    return messages[: index + 1], True
        # Where this holds, nothing of another head has come yet.
        at_end = self._tail == b"\r\n\r\n" and not stopped
        if self._chunked is not None and self._chunked.is_eof() and at_end and self._upgrading is None:
            self._parser = self._chunked = None
        elif not upgraded:
            self._let_go(data, messages, first=first)
        if self._upgrading is not None and self._upgrading.is_eof():
            self._upgrading = None
            return messages, self._parser is not None  # where it was let go of, nothing had come behind
        return messages, bool(upgraded)  # no protocol but HTTP/1.1 is spoken here

    def _bound(self, data: bytes, messages: Sequence[Message], *, stopped: bool) -> None:
        """Refuse a head, or trailers, that would be too long, before they are whole."""
        limit = self._limits.head_bytes
        if messages:
            if self._unread + len(data) > limit:
                self._judge(data, messages)
            last = messages[-1][1]
            self._unread = 0
            self._unfinished, self._taken = (None, 0) if last.is_eof() else (last, last.total_bytes)
            return
        body = self._unfinished
        if body is not None and (body.is_eof() or body.total_bytes != self._taken):
            self._unread, self._taken = 0, body.total_bytes
            self._unfinished = None if body.is_eof() else body
        elif not stopped:
            self._unread += len(data)
            if self._unread > limit:
                self._parser = None  # the connection may linger for a while
                raise HeadTooLong

    def _judge(self, data: bytes, messages: Sequence[Message]) -> None:
        """The same for heads that came whole, with much else."""
        limit = self._limits.head_bytes
        if len(messages) == 1 and data.find(b"\r\n\r\n", 0, limit - self._unread) >= 0:
            return  # what is large is the body
        for message, _ in messages:
            if sum(len(name) + len(value) + 4 for name, value in message.raw_headers) > limit:
                raise HeadTooLong

    def _let_go(self, data: bytes, messages: Sequence[Message], *, first: bool) -> None:
        """Drop the parser at the end of its first request, where that is certain to be the end of what it has
        read. A head that has come whole and has no line end but CRLF says where its request ends."""
        if first:
            self._body = None
            head = data.find(b"\r\n\r\n") + 4
            plain = data.count(b"\n", 0, head) == data.count(b"\r\n", 0, head)
            if len(messages) == 1 and self._chunked is None and plain:
                length = messages[0][0].headers.get("content-length", "")
                if length.isdecimal():
                    self._body = messages[0][1]
                    self._left = head + int(length)
        if self._body is None:
            return
        self._left -= len(data)
        if self._left <= 0:
            if self._left == 0 and self._body.is_eof():
                self._parser = None
                self._owed += 1
            self._body = None

    def ends_with(self, payload: StreamReader) -> bool:
        """Whether no request may be read after the one with this body."""
        return self._chunked is payload

    def pause_reading(self) -> None:
        if self._parser is not None:
            self._parser.pause_reading()

    def message_consumed(self) -> None:
        if self._owed:
            self._owed -= 1
        elif self._parser is not None:
            self._parser.message_consumed()

    def _fresh(self) -> HttpRequestParser:
        limits = self._limits
        return HttpRequestParser(
            self._protocol,  # type: ignore[arg-type]  # it is asked only pause_reading and resume_reading
            self._loop,
            limits.read_ahead_bytes,
            max_line_size=limits.line_bytes,
            max_field_size=limits.header_bytes,
            max_headers=limits.headers,
            payload_exception=BadRequest,
            auto_decompress=False,
            max_msg_queue_size=self._most_queued,
        )
