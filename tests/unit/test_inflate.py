"""Compressed answers are opened within bounds."""

from __future__ import annotations

import gzip
import zlib

from gateway.core.inflate import MAX_INFLATED_BYTES, Inflater


def test_hands_out_small_pieces_of_what_inflates_enormously() -> None:
    inflater = Inflater(b"gzip")
    pieces = [len(piece) for piece in inflater.feed(gzip.compress(bytes(8 << 20)))]

    assert sum(pieces) == 8 << 20
    assert max(pieces) <= 1 << 16


def test_gives_up_on_a_bomb() -> None:
    inflater = Inflater(b"gzip")
    total = sum(len(piece) for piece in inflater.feed(gzip.compress(bytes(MAX_INFLATED_BYTES + 1), 1)))

    assert inflater.broken
    assert total <= MAX_INFLATED_BYTES
    assert list(inflater.feed(b"more")) == []


def test_tries_no_other_format_once_something_was_read() -> None:
    inflater = Inflater(b"deflate")
    data = zlib.compress(b"x" * 1000)
    read = b"".join(inflater.feed(data[:-8])) + b"".join(inflater.feed(b"\x00" * 50))

    assert inflater.broken
    assert read == b"x" * len(read)
