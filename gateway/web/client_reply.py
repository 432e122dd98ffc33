"""The client's end of one exchange: a response written by hand, straight to the socket.

Implements `ports.Reply` over one connection of the listener. Framing and its honesty live here: an answer
that was not finished never looks complete. Which headers may cross is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from typing import Protocol

from gateway.core.chunks import chunk
from gateway.core.errors import ClientGone
from gateway.core.headers import Headers
from gateway.web.faults import REASONS

_LARGE_BYTES = 32_768
"""From here on the parts of a chunk are written side by side; below, joining them is cheaper."""

_REASONS = {status.value: status.phrase for status in HTTPStatus} | REASONS
_LINGER_RESET = struct.pack("ii", 1, 0)


class _Framing(Enum):
    LENGTH = "length"
    CHUNKS = "chunks"
    CLOSE = "close"
    NONE = "none"
    """HEAD, 204, 304: a head only."""


class Line(Protocol):
    """What a reply needs of its connection."""

    transport: asyncio.Transport | None
    congested: bool

    def ends_here(self) -> bool:
        """Whether no request is read after the one that is being answered."""
        ...

    async def relieved(self) -> None:
        """Until less than the low-water mark waits to be sent, or the connection is lost."""
        ...


class ClientReply:
    """Writes one response. Nothing waits but `drained`, and that for at most `slow_client_seconds`."""

    __slots__ = (
        "_chunking",
        "_framing",
        "_head",
        "_left",
        "_line",
        "_slow_client_seconds",
        "_version_11",
        "ended",
        "event_stream",
        "keep_alive",
        "method",
        "started",
        "status",
    )

    def __init__(
        self, line: Line, *, method: str, version_11: bool, keep_alive: bool, slow_client_seconds: float
    ) -> None:
        self._line = line
        self._version_11 = version_11
        self._slow_client_seconds = slow_client_seconds
        self._framing = _Framing.NONE
        self._head: bytes | None = None
        self._chunking = False
        """The head has left, the body is not at its end, and what is written becomes a chunk."""
        self._left = 0
        self.method = method
        self.keep_alive = keep_alive
        self.started = False
        self.ended = False
        self.event_stream = False
        """Whether an event of ours may be written into the body."""
        self.status = 0

    @property
    def gone(self) -> bool:
        """Whether the client has left, or was left."""
        transport = self._line.transport
        return transport is None or transport.is_closing()

    def start(self, status: int, headers: Headers) -> None:
        """As `Reply.start`. The head leaves with the first bytes of the body; that of a stream, whose first
        bytes may take their time, by the next turn of the loop. Raises `ValueError` for a header that would
        break its line."""
        assert not self.started, "a response starts once"
        self._transport()
        self.keep_alive = self.keep_alive and not self._line.ends_here()
        self._head = self._serialise(status, headers)
        self.started = True
        self.status = status
        if self._framing is not _Framing.LENGTH:
            asyncio.get_running_loop().call_soon(self._send_head)

    def write(self, data: bytes) -> bool:
        """As `Reply.write`."""
        line = self._line
        transport = line.transport
        if transport is None or transport.is_closing():
            raise ClientGone("the client has left")
        if self._chunking and len(data) < _LARGE_BYTES and data:
            transport.write(chunk(data))
            return line.congested
        return self._write(transport, data)

    def _write(self, transport: asyncio.Transport, data: bytes) -> bool:
        """What is not a chunk after the head."""
        assert self.started, "the head comes first"
        assert not self.ended, "the body has ended"
        size = len(data)
        if not size or self._framing is _Framing.NONE:
            return self._line.congested
        head = self._head or b""
        self._head = None
        if self._framing is _Framing.CHUNKS:
            self._chunking = True  # until the end
            if size < _LARGE_BYTES:
                transport.write(head + chunk(data))
            else:
                transport.writelines((b"%b%x\r\n" % (head, size), data, b"\r\n"))
            return self._line.congested
        if self._framing is _Framing.LENGTH:
            self._left -= size
            if self._left < 0:
                self.abort()
                raise ValueError("more body than the content-length announced")
        if head:
            transport.writelines((head, data))
        else:
            transport.write(data)
        return self._line.congested

    async def drained(self) -> None:
        """As `Reply.drained`."""
        self._transport()
        if self._line.congested:
            try:
                async with asyncio.timeout(self._slow_client_seconds):
                    await self._line.relieved()
            except TimeoutError:
                self._reset()
                raise ClientGone("the client reads too slowly") from None
        self._transport()

    def finish(self) -> None:
        """As `Reply.finish`. Less body than announced is an abort."""
        self._chunking = False
        if self.ended or self.gone:
            self.ended = True
            return
        assert self.started, "the head comes first"
        if self._framing is _Framing.LENGTH and self._left:
            self.abort()
            return
        self.ended = True
        if self._framing is _Framing.CHUNKS:
            transport = self._transport()
            transport.write((self._head or b"") + b"0\r\n\r\n")
            self._head = None
        else:
            self._send_head()

    def abort(self) -> None:
        """As `Reply.abort`. What was written before is still delivered, without the body's end; only where
        closing is the end itself, the connection is reset."""
        self.ended = True
        self._chunking = False
        self.keep_alive = False
        transport = self._line.transport
        if transport is None or transport.is_closing():
            return
        if self._framing is _Framing.CLOSE:
            self._reset()
        else:
            self._send_head()
            transport.close()

    def _transport(self) -> asyncio.Transport:
        transport = self._line.transport
        if transport is None or transport.is_closing():
            raise ClientGone("the client has left")
        return transport

    def _send_head(self) -> None:
        head, self._head = self._head, None
        transport = self._line.transport
        if head and transport is not None and not transport.is_closing():
            transport.write(head)

    def _reset(self) -> None:
        self.ended = True
        self._chunking = False
        self.keep_alive = False
        transport = self._line.transport
        if transport is None:
            return
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None:
            with suppress(OSError):  # closed in this very moment
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        transport.abort()

    def _serialise(self, status: int, headers: Headers) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, "Unknown").encode())]
        lengths = [value for name, value in headers if name == b"content-length"]
        lines += [name + b": " + value for name, value in headers]
        if self.method == "HEAD" or status in (204, 304):
            self._framing = _Framing.NONE
        elif lengths:
            self._framing = _Framing.LENGTH
            self._left = int(lengths[0])
        elif self._version_11:
            self._framing = _Framing.CHUNKS
            lines.append(b"transfer-encoding: chunked")
        else:
            self._framing = _Framing.CLOSE
            self.keep_alive = False
        # Nothing can be added to a body whose length was announced.
        self.event_stream = _is_event_stream(headers) and self._framing is not _Framing.LENGTH
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join(lines)
        breaks = len(lines) - 1
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            raise ValueError("a response header has a line break or a NUL in it")
        return head + b"\r\n\r\n"


def _is_event_stream(headers: Headers) -> bool:
    plain = all(name != b"content-encoding" or value.lower() == b"identity" for name, value in headers)
    return plain and any(
        name == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers
    )
