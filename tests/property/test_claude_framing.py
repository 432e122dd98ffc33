"""Any splitting of a response body reads the same, and no truncation of it looks complete."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.claude_framing import Chunked, Framing, Length, NoBody, UntilClose
from gateway.core.errors import UpstreamCut

PIECES = st.lists(st.binary(min_size=1, max_size=300), max_size=8)
EXTENSIONS = st.sampled_from([b"", b";a", b';a="b"', b" ", b";" + b"x" * 200])
TRAILERS = st.sampled_from([b"", b"x: y\r\n", b"x: y\r\n" * 20])


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(at) if a != b]


def _fed(framing: Framing, data: bytes, cuts: list[int]) -> bytes:
    return b"".join(framing.decode(part) for part in _split(data, cuts))


@given(
    pieces=PIECES,
    spelling=st.sampled_from([b"%x", b"%X", b"%05x"]),
    extension=EXTENSIONS,
    trailers=TRAILERS,
    cuts=st.lists(st.integers(0, 10**6)),
    more=st.binary(),
)
def test_chunks_read_the_same_however_they_arrive(
    pieces: list[bytes], spelling: bytes, extension: bytes, trailers: bytes, cuts: list[int], more: bytes
) -> None:
    wire = b"".join(spelling % len(p) + extension + b"\r\n" + p + b"\r\n" for p in pieces)
    wire += b"0" + extension + b"\r\n" + trailers + b"\r\n"
    framing = Chunked()

    assert b"".join(pieces) == _fed(framing, wire + more, cuts)
    assert framing.complete
    assert framing.surplus is bool(more)
    framing.ended()


@given(pieces=st.lists(PIECES.map(b"".join), max_size=4))
def test_chunks_that_arrive_one_by_one_are_taken_as_they_are(pieces: list[bytes]) -> None:
    """Of sizes on either side of those that are looked up."""
    pieces = [piece for piece in pieces if piece]
    framing = Chunked()

    assert pieces == [framing.decode(b"%x\r\n%b\r\n" % (len(piece), piece)) for piece in pieces]
    assert not framing.complete
    assert framing.decode(b"0\r\n\r\n") == b""
    assert framing.complete


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([b"9\r\n", b"4\r\ndata\r\n", b"\r\n"], b"4\r\ndata\r\n"),
        ([b"1", b"2\r\ndata\r\n", b"x" * 12 + b"\r\n"], b"data\r\n" + b"x" * 12),
        ([b"0\r\n", b"4\r\ndata\r\n"], b""),
    ],
)
def test_what_looks_like_a_chunk_is_none_within_another(parts: list[bytes], body: bytes) -> None:
    framing = Chunked()

    assert b"".join(map(framing.decode, parts)) == body


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 10**6)), at=st.integers(0, 10**6))
def test_chunks_cut_short_are_never_complete(pieces: list[bytes], cuts: list[int], at: int) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    framing = Chunked()
    body = _fed(framing, wire[: at % len(wire)], cuts)

    assert b"".join(pieces).startswith(body)
    assert not framing.complete
    with pytest.raises(UpstreamCut):
        framing.ended()


@given(wire=st.binary(max_size=60), cuts=st.lists(st.integers(0, 100)))
def test_garbage_is_a_cut_or_waits_for_more(wire: bytes, cuts: list[int]) -> None:
    whole, parts = Chunked(), Chunked()
    try:
        expected: bytes | None = whole.decode(wire)
    except UpstreamCut:
        expected = None
    try:
        body: bytes | None = _fed(parts, wire, cuts)
    except UpstreamCut:
        body = None

    assert expected == body
    assert whole.complete is parts.complete or expected is None


@given(body=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 10**6)), more=st.binary())
def test_a_length_is_kept_to_the_byte(body: bytes, cuts: list[int], more: bytes) -> None:
    framing = Length(len(body))

    assert body[:-1] == _fed(framing, body[:-1], cuts)
    with pytest.raises(UpstreamCut):
        framing.ended()
    assert body[-1:] == framing.decode(body[-1:] + more)
    assert framing.complete
    assert framing.surplus is bool(more)


def test_a_body_without_framing_ends_with_the_connection() -> None:
    framing = UntilClose()
    body, before = framing.decode(b"some"), framing.complete
    framing.ended()

    assert (body, before, framing.complete) == (b"some", False, True)


def test_no_body_takes_any_byte_for_surplus() -> None:
    framing = NoBody()

    assert framing.complete
    assert framing.decode(b"x") == b""
    assert framing.surplus


@pytest.mark.parametrize("wire", [b"f" * 5_000, b"1;" + b"x" * 5_000, b"0\r\n" + b"x: y\r\n" * 10_000])
def test_headers_of_chunks_are_bounded(wire: bytes) -> None:
    with pytest.raises(UpstreamCut):
        Chunked().decode(wire)
