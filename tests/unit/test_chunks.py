"""Chunks of HTTP/1.1 by looking their size lines up: the same as by spelling and reading numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.chunks import SMALL_BYTES, chunk, only_chunk

SIZES = [1, 9, 15, 16, 17, 255, 256, 257, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 70_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_chunk_is_its_size_in_hexadecimal_and_its_data(size: int) -> None:
    data = b"\r" * size

    assert chunk(data) == b"%x\r\n%b\r\n" % (size, data)


def test_finds_what_is_in_each_whole_small_chunk() -> None:
    for size in range(1, SMALL_BYTES):
        data = b"7" * size
        assert only_chunk(chunk(data)) == data


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"\r\n",
        b"0\r\n\r\n",
        b"4\r\ndata",
        b"4\r\ndata\r\r",
        b"4\r\ndata\r\n0\r\n\r\n",
        b"5\r\ndata\r\n",
        b"3\r\ndata\r\n",
        b"04\r\ndata\r\n",
        b"A\r\n0123456789\r\n",
        b"4;a\r\ndata\r\n",
        b"data: 4\r\n",
        b"\r\n4\r\ndata\r\n",
    ],
)
def test_takes_nothing_else_for_one(other: bytes) -> None:
    assert only_chunk(other) == b""


@given(st.one_of(st.binary(max_size=40), st.binary(min_size=1, max_size=40).map(chunk)))
def test_whatever_it_finds_makes_the_same_bytes_again(data: bytes) -> None:
    found = only_chunk(data)

    assert not found or chunk(found) == data
