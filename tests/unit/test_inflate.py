"""Compressed answers are opened within bounds."""

from __future__ import annotations

import gzip
import random
import time
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


def test_gives_up_on_members_without_end() -> None:
    inflater = Inflater(b"gzip")
    empty = gzip.compress(b"", mtime=0)

    assert list(inflater.feed(empty * 10_000)) == []
    assert not inflater.broken
    assert list(inflater.feed(empty * 2)) == []
    assert inflater.broken


def test_what_follows_a_member_is_not_copied_for_each_of_them() -> None:
    plain = random.Random(1).randbytes(20_000_000)
    body = gzip.compress(b"", mtime=0) * 900 + gzip.compress(plain, compresslevel=0, mtime=0)
    inflater = Inflater(b"gzip")
    before = time.process_time()

    assert b"".join(inflater.feed(body)) == plain
    assert time.process_time() - before < 0.5


def test_tries_no_other_format_once_something_was_read() -> None:
    inflater = Inflater(b"deflate")
    data = zlib.compress(b"x" * 1000)
    read = b"".join(inflater.feed(data[:-8])) + b"".join(inflater.feed(b"\x00" * 50))

    assert inflater.broken
    assert read == b"x" * len(read)
