"""A request as it arrived, and the bounds within which it may arrive. The socket's side: `connection.py`."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Protocol

from aiohttp import EMPTY_PAYLOAD, HttpVersion10, HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage

from gateway.core.headers import Header, value_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    connections: int = 20_000
    line_bytes: int = 16_384
    """Of the request line."""
    header_bytes: int = 32_768
    """Of one header; lists of betas and trace states are long."""
    headers: int = 256
    head_bytes: int = 65_536
    """Of a whole head, and of a body's trailers; by its lines alone it could be megabytes."""
    read_ahead_bytes: int = 131_072
    """Of a body that nobody reads yet, per connection; twice this is held at most."""
    head_seconds: float = 15.0
    """From a request's first byte to the end of its head; and for a new connection's first byte."""
    idle_seconds: float = 75.0
    """Between requests of a connection."""
    slow_client_seconds: float = 60.0
    """While the client takes so little of its answer that its buffer stays full."""
    linger_seconds: float = 3.0
    """Of silence, until what a client still sends after its answer is not taken any more. Many clients read
    the answer only after they have sent all."""
    linger_most_seconds: float = 30.0
    """The same, however long the client goes on sending."""


_ABSOLUTE = re.compile(r"https?://[a-z0-9._~%:\[\]-]+(?=[/?#]|\Z)", re.ASCII | re.IGNORECASE)
"""Scheme and authority, where all readers would agree on where it ends."""


class Socket(Protocol):
    transport: asyncio.Transport | None

    def resume_reading(self) -> None: ...

    def body_taken(self) -> None: ...


class InboundRequest:
    """One request, as sent. `target` is path and query of the request line, nothing normalised."""

    __slots__ = ("_connection", "headers", "method", "payload", "target", "version_10", "version_11")

    def __init__(self, connection: Socket, message: RawRequestMessage, payload: StreamReader) -> None:
        self._connection = connection
        self.method = message.method
        self.target = message.path if message.path.startswith("/") else _origin_form(message.path)
        self.headers: list[Header] = [(name.lower(), value) for name, value in message.raw_headers]
        self.version_10 = message.version == HttpVersion10
        self.version_11 = message.version == HttpVersion11
        self.payload = payload

    @property
    def content_length(self) -> int | None:
        value = value_of(self.headers, b"content-length")
        return None if value is None else int(value)

    @property
    def has_body(self) -> bool:
        return not self.payload.is_eof() or self.payload.total_bytes > 0

    def invite_body(self) -> None:
        """Send `100 Continue` where the client asked for it and has not sent its body unasked."""
        transport = self._connection.transport
        if self.version_11 and not self.payload.total_bytes and transport is not None:
            expected = value_of(self.headers, b"expect")
            if expected is not None and expected.lower() == b"100-continue":
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hold_body(self, size: int) -> None:
        """Let the payload buffer as much as this, so that it can be taken at once."""
        self.payload.set_read_chunk_size(size)
        self._connection.resume_reading()

    def body_taken(self) -> None:
        """Let go of what held the body, all of which was taken: an answer may last for minutes."""
        self.payload = EMPTY_PAYLOAD
        self._connection.body_taken()


def _origin_form(target: str) -> str:
    """What stands behind the authority, which a server must take as well (RFC 9112, 3.2.2). Any other form is
    left as it is, and is no path that is served."""
    authority = _ABSOLUTE.match(target)
    if authority is None:
        return target
    path = target[authority.end() :]
    return path if path.startswith("/") else "/" + path
