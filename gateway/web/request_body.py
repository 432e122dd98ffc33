"""Reading what the client sends: whole and decoded for what the gateway looks into, or relayed as it comes.

Every wait is bounded, in time and by a minimum rate; every size has a limit. What the body means is not known
here.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import StreamReader

from gateway.core.errors import RequestTimeout, TooLarge, UnsupportedEncoding
from gateway.core.headers import Headers
from gateway.ports import InboundBody
from gateway.web.inbound import InboundRequest

_RATE_WINDOW_SECONDS = 5.0
_OFF_LOOP_BYTES = 16_384
"""An encoded body larger than this is decoded in a thread: it may swell a thousandfold."""

_SLICE_BYTES = 65_536
"""Given to zlib at a time: it copies what it does not take, once for each member."""
_MOST_MEMBERS = 10_000
"""Of one gzip body: who compresses in blocks makes one of every 64 kB; an empty one is sent in 20 bytes."""

_AT_ONCE_BYTES = 1 << 19
"""A larger body is taken piece by piece: to read megabytes from one socket keeps all others waiting."""

T = TypeVar("T")


async def read_body(
    request: InboundRequest,
    *,
    limit_bytes: int,
    timeout_seconds: float,
    minimum_bytes_per_second: int = 1_000,
) -> InboundBody:
    """The whole body, gzip and deflate taken off. With `decoded`, its content-encoding must not be sent on.

    `limit_bytes` holds for the body as sent and as decoded. Raises `TooLarge` (before reading, where the
    length is announced), `RequestTimeout` where it takes longer than `timeout_seconds` or, after five
    seconds, comes slower than the minimum rate, `UnsupportedEncoding`, `BadRequest` for broken chunks,
    `ClientGone`.
    """
    encodings = content_encodings(request.headers)
    announced = request.content_length
    if announced is not None and announced > limit_bytes:
        raise _too_large(limit_bytes)
    payload = request.payload
    if not payload.is_eof():
        request.invite_body()
        pace = _Pace(payload, timeout_seconds, minimum_bytes_per_second)
        if announced is not None and announced <= _AT_ONCE_BYTES:
            request.hold_body(announced)  # one wake-up for the whole body
            await pace.wait(payload.wait_eof)
        else:
            data = await _read_chunks(payload, pace, limit_bytes)
            return await _decoded(data, encodings, limit_bytes)
    error = payload.exception()
    if error is not None:
        raise error
    data = payload.read_nowait()
    if len(data) > limit_bytes:
        raise _too_large(limit_bytes)
    if announced is not None:  # else the connection asks for it: see `RequestParser.ends_with`
        request.body_taken()
    return await _decoded(data, encodings, limit_bytes)


class RelayedBody:
    """`BodyStream` over a request's body, byte for byte. Read ahead is what the listener's socket buffers
    hold, no more."""

    def __init__(
        self,
        request: InboundRequest,
        *,
        limit_bytes: int,
        timeout_seconds: float,
        minimum_bytes_per_second: int = 1_000,
    ) -> None:
        self._request = request
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0
        self._invited = False
        self._pace = _Pace(request.payload, timeout_seconds, minimum_bytes_per_second)
        announced = request.content_length
        if announced is not None and announced > limit_bytes:
            raise _too_large(limit_bytes)

    @property
    def length(self) -> int | None:
        return self._request.content_length

    async def read(self) -> bytes:
        """As `BodyStream.read`."""
        if not self._invited:
            self._invited = True
            self._request.invite_body()
        payload = self._request.payload
        piece = await self._pace.wait(payload.readany)
        self._taken_bytes += len(piece)
        if self._taken_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        return piece


def content_encodings(headers: Headers) -> list[bytes]:
    """The body's content-encodings, outermost last, `identity` left out. Raises `UnsupportedEncoding`."""
    encodings = [
        item
        for name, value in headers
        if name == b"content-encoding"
        for item in (part.strip().lower() for part in value.split(b","))
        if item and item != b"identity"
    ]
    if len(encodings) > 1 or any(item not in _WINDOWS for item in encodings):
        raise UnsupportedEncoding(
            "The request's content-encoding is not supported. Send the body without one, or with gzip."
        )
    return encodings


_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class _Pace:
    """Bounds the waits for one client: altogether, and by a minimum rate. Time in which the gateway itself
    does not read is not the client's."""

    def __init__(self, payload: StreamReader, timeout_seconds: float, bytes_per_second: int) -> None:
        self._payload = payload
        self._left_seconds = timeout_seconds
        self._bytes_per_second = bytes_per_second
        self._window_seconds = 0.0
        self._window_bytes = payload.total_bytes

    async def wait(self, read: Callable[[], Awaitable[T]]) -> T:
        now = asyncio.get_running_loop().time
        while True:
            error = self._payload.exception()
            if error is not None:
                raise error
            began = now()
            try:
                async with asyncio.timeout(
                    min(self._left_seconds, _RATE_WINDOW_SECONDS - self._window_seconds)
                ):
                    return await read()
            except TimeoutError:
                pass  # a window's end, not the request's
            finally:
                waited = now() - began
                self._left_seconds -= waited
                self._window_seconds += waited
            self._judge()

    def _judge(self) -> None:
        if self._left_seconds > 0 and self._window_seconds < _RATE_WINDOW_SECONDS:
            return
        came = self._payload.total_bytes - self._window_bytes
        if self._left_seconds <= 0 or came < self._bytes_per_second * self._window_seconds:
            raise RequestTimeout("The request's body did not arrive in time.")
        self._window_seconds = 0.0
        self._window_bytes = self._payload.total_bytes


async def _read_chunks(payload: StreamReader, pace: _Pace, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await pace.wait(payload.readany):
        size += len(piece)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def _decoded(data: bytes, encodings: list[bytes], limit_bytes: int) -> InboundBody:
    if not encodings or not data:
        return InboundBody(data, False)
    if len(data) > _OFF_LOOP_BYTES:
        plain = await asyncio.to_thread(_decompress, data, encodings[0], limit_bytes)
    else:
        plain = _decompress(data, encodings[0], limit_bytes)
    return InboundBody(plain, True)


def _decompress(data: bytes, encoding: bytes, limit_bytes: int) -> bytes:
    """All members of a gzip body, or one deflate stream, with or without zlib's frame (both are met)."""
    window = _WINDOWS[encoding]
    if encoding == b"deflate" and (data[0] & 0x0F != 8 or int.from_bytes(data[:2], "big") % 31):
        window = -15
    pieces: list[bytes] = []
    size = at = 0
    view = memoryview(data)
    try:
        for _ in range(_MOST_MEMBERS if window == 31 else 1):
            member = zlib.decompressobj(window)
            while not member.eof and at < len(view):
                part = view[at : at + _SLICE_BYTES]
                piece = member.decompress(part, limit_bytes - size + 1)
                size += len(piece)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                pieces.append(piece)
                at += len(part) - len(member.unused_data)
            if not member.eof:
                raise UnsupportedEncoding("The request's compressed body is cut short.")
            if at == len(view):
                return b"".join(pieces)
    except zlib.error as error:
        raise UnsupportedEncoding("The request's body is not what its content-encoding says.") from error
    raise UnsupportedEncoding("The request's compressed body has a tail, or too many members.")


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than the {limit_bytes:,} bytes that this route takes.")
