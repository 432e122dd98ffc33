"""Compressed answers are opened within bounds."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gateway.core.inflate import MAX_INFLATED_BYTES, Inflater


def test_hands_out_small_pieces_of_what_inflates_enormously() -> None:
    inflater = Inflater(b"gzip")
    pieces = [len(piece) for piece in inflater.feed(gzip.compress(bytes(8 << 20)))]

    assert sum(pieces) == 8 << 20
    assert max(pieces) <= 1 << 16


@pytest.mark.parametrize(("encoding", "wbits"), [(b"gzip", 31), (b"deflate", 15), (b"deflate", -15)])
def test_loses_nothing_where_a_piece_is_full_and_no_input_is_left(encoding: bytes, wbits: int) -> None:
    """A few bits of input stand for up to 258 bytes of output."""
    for size in range((1 << 16) - 4, (1 << 16) + 300):
        plain = b"x" * size
        inflater = Inflater(encoding)

        assert b"".join(inflater.feed(zlib.compress(plain, 9, wbits))) == plain
        assert not inflater.broken


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
