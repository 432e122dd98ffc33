"""Where a response body ends: HTTP/1.1's three framings, as machines over bytes.

Sans-IO: bytes in, body bytes out, any splitting of the input. Nothing here knows sockets, timeouts or what
the body means; the socket's side is `claude_wire.py`. The API streams in chunks, one event a chunk, so that
a read that is one whole chunk is the fast path here (`core/chunks.py`).
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.chunks import only_chunk
from gateway.core.errors import UpstreamCut

_MAX_SIZE_LINE_BYTES = 4096
"""Of a chunk's size with its extensions, and of one trailer line."""
_MAX_TRAILER_BYTES = 32_768
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Framing(Protocol):
    """`complete` once the body has ended properly; `surplus` where upstream sent more than that, after which
    the connection must not be used again."""

    complete: bool
    surplus: bool

    def decode(self, data: bytes) -> bytes:
        """The body bytes within `data`. Raises `UpstreamCut` where the framing is broken."""
        ...

    def ended(self) -> None:
        """The connection has closed. Raises `UpstreamCut` where the body was not complete."""
        ...


class NoBody:
    """HEAD, 204, 304, or a length of nothing."""

    __slots__ = ("complete", "surplus")

    def __init__(self) -> None:
        self.complete = True
        self.surplus = False

    def decode(self, data: bytes) -> bytes:
        self.surplus = self.surplus or bool(data)
        return b""

    def ended(self) -> None:
        return None


class Length:
    """A body with a content-length."""

    __slots__ = ("_left", "complete", "surplus")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0
        self.surplus = False

    def decode(self, data: bytes) -> bytes:
        size = len(data)
        if size < self._left:
            self._left -= size
            return data
        if size > self._left:
            self.surplus = True
            data = data[: self._left]
        self._left = 0
        self.complete = True
        return data

    def ended(self) -> None:
        if not self.complete:
            raise UpstreamCut(f"upstream closed the connection {self._left} bytes before the answer's end")


class UntilClose:
    """A body that ends with the connection. Nothing tells a proper end from a cut one: whoever reads the
    content has to (`message_stop`)."""

    __slots__ = ("complete", "surplus")

    def __init__(self) -> None:
        self.complete = False
        self.surplus = True

    def decode(self, data: bytes) -> bytes:
        return data

    def ended(self) -> None:
        self.complete = True


class Chunked:
    """A body in chunks. Extensions are skipped and trailers dropped, both bounded."""

    __slots__ = ("_between", "_left", "_line", "_trailer_bytes", "complete", "surplus")

    def __init__(self) -> None:
        self._between = True
        """No chunk is open, nor any line, and more chunks are to come."""
        self._left = 0
        """Bytes of the open chunk still to come, its line end included; 0 between chunks."""
        self._line = b""
        """A size or trailer line of which only a part has come."""
        self._trailer_bytes = -1
        """-1 until the last chunk."""
        self.complete = False
        self.surplus = False

    def decode(self, data: bytes) -> bytes:
        if self._between:
            # One whole chunk is what nearly every read of a live stream is.
            body = only_chunk(data)
            if body:
                return body
        elif self.complete:
            self.surplus = self.surplus or bool(data)
            return b""
        if self._line:
            data = self._line + data
            self._line = b""
        pieces: list[bytes] = []
        at = 0
        size = len(data)
        while at < size and not self.complete:
            if self._left:
                at = self._take_data(data, at, pieces)
                continue
            end = data.find(b"\n", at, at + _MAX_SIZE_LINE_BYTES)
            if end < 0:
                if size - at >= _MAX_SIZE_LINE_BYTES:
                    raise UpstreamCut("upstream sent a chunk header that does not end")
                self._line = data[at:]
                break
            if self._trailer_bytes >= 0:
                self._take_trailer(data[at:end])
            else:
                self._open_chunk(data[at:end])
            at = end + 1
        self.surplus = at < size and not self._line
        self._between = not (self._left or self._line or self._trailer_bytes >= 0)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def ended(self) -> None:
        if not self.complete:
            raise UpstreamCut("upstream closed the connection within a chunked answer")

    def _take_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        body = max(0, min(len(data) - at, self._left - 2))
        if body:
            pieces.append(data[at : at + body])
            self._left -= body
            at += body
        if self._left <= 2:
            line_end = data[at : at + self._left]
            if not b"\r\n".startswith(line_end, 2 - self._left):
                raise UpstreamCut("upstream sent a chunk that is longer than its size")
            self._left -= len(line_end)
            at += len(line_end)
        return at

    def _open_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip(b" \t\r")
        if not digits or len(digits) > 15 or not _HEX.issuperset(digits):
            raise UpstreamCut("upstream sent a malformed chunk size")
        chunk = int(digits, 16)
        if chunk:
            self._left = chunk + 2
        else:
            self._trailer_bytes = 0

    def _take_trailer(self, line: bytes) -> None:
        if not line.rstrip(b"\r"):
            self.complete = True
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise UpstreamCut("upstream sent too many trailers")
