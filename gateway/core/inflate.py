"""Compressed answers, opened piece by piece within bounds. Pure computation on bytes that are passed in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

MAX_INFLATED_BYTES = 64 << 20
"""As much as one answer may inflate to; then the rest is not read, and the answer counts as unreadable."""
_MOST_MEMBERS = 10_000
"""Of one gzip answer: an empty one costs its sender 20 bytes, and here a decompressor."""
_PIECE_BYTES = 1 << 16
_GZIP, _ZLIB, _RAW = 31, 15, -15


class Inflater:
    """gzip (of any number of members) and deflate (with or without a zlib wrapper, as servers send both).

    Never raises. `broken` is True once it cannot go on: another encoding, garbage, or too much.
    """

    __slots__ = ("_head", "_inflated", "_members", "_zlib", "broken")

    def __init__(self, encoding: bytes) -> None:
        is_gzip = encoding in (b"gzip", b"x-gzip")
        self._zlib = zlib.decompressobj(_GZIP) if is_gzip else None
        self._head = b""  # of deflate, until its first two bytes say which kind it is
        self._inflated = 0
        self._members = 0
        self.broken = not is_gzip and encoding != b"deflate"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` inflates to, in pieces of bounded size."""
        if self.broken:
            return
        if self._zlib is None:
            data = self._head = self._head + data
            if len(data) < 2:
                return
            is_wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._zlib = zlib.decompressobj(_ZLIB if is_wrapped else _RAW)
            self._head = b""
        view = memoryview(data)
        for at in range(0, len(view), _PIECE_BYTES):
            yield from self._inflate(view[at : at + _PIECE_BYTES])

    def _inflate(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Of a slice: zlib copies what it does not take, for each piece and for each member."""
        more = not self.broken
        while more:
            assert self._zlib is not None
            if self._zlib.eof:  # another gzip member
                self._members += 1
                self._zlib = zlib.decompressobj(_GZIP)
            try:
                piece = self._zlib.decompress(data, _PIECE_BYTES)
            except zlib.error:
                self.broken = True
                return
            self._inflated += len(piece)
            if self._inflated > MAX_INFLATED_BYTES or self._members > _MOST_MEMBERS:
                self.broken = True
                return
            data = self._zlib.unconsumed_tail or self._zlib.unused_data
            # All input may be taken in while there is output left over from a full piece.
            more = bool(data) or (len(piece) == _PIECE_BYTES and not self._zlib.eof)
            if piece:
                yield piece
