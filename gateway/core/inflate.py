"""Compressed answers, opened piece by piece within bounds. Pure computation on bytes that are passed in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

MAX_INFLATED_BYTES = 64 << 20
"""As much as one answer may inflate to; then the rest is not read, and the answer counts as unreadable."""
_PIECE_BYTES = 1 << 16
_GZIP_OR_ZLIB = 47
_RAW = -15
_WINDOWS = {b"gzip": _GZIP_OR_ZLIB, b"x-gzip": _GZIP_OR_ZLIB, b"deflate": _GZIP_OR_ZLIB}


class Inflater:
    """gzip (of any number of members) and deflate (with or without a zlib wrapper, as servers send both).

    Never raises. `broken` is True once it cannot go on: another encoding, garbage, or too much.
    """

    __slots__ = ("_inflated", "_window", "_zlib", "broken")

    def __init__(self, encoding: bytes) -> None:
        self._window = _WINDOWS.get(encoding)
        self._zlib = zlib.decompressobj(self._window) if self._window else None
        self._inflated = 0
        self.broken = self._zlib is None
        if encoding != b"deflate":
            self._window = None  # no second try

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` inflates to, in pieces of bounded size."""
        while data and self._zlib is not None and not self.broken:
            if self._zlib.eof:  # another gzip member
                self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                piece = self._zlib.decompress(data, _PIECE_BYTES)
            except zlib.error:
                if self._window is None or self._inflated:
                    self.broken = True
                    return
                self._zlib, self._window = zlib.decompressobj(_RAW), None
                continue
            self._inflated += len(piece)
            if self._inflated > MAX_INFLATED_BYTES:
                self.broken = True
                return
            data = self._zlib.unconsumed_tail or self._zlib.unused_data
            if piece:
                yield piece
