"""Requests are read the same by a parser that is dropped after each of them as by one that reads them all,
however they arrive: nothing of the next one is lost or read twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from aiohttp import StreamReader
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.inbound import ListenerLimits
from gateway.web.request_parser import HeadTooLong, RequestParser

Read = list[tuple[str, str, bytes, bool]]
"""Method, target, body, and whether the body is whole."""


class _Protocol:
    """What a parser asks of its connection."""

    _reading_paused = False
    connected = True

    def pause_reading(self) -> None:
        return

    def resume_reading(self, resume_parser: bool = True) -> None:
        return


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


BODIES = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"", b"\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"a" * 5_000])
)
ODD = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"POST /odd HTTP/1.1\nhost: a\ncontent-length: 2\n\nab",
        b"POST /odd HTTP/1.1\r\nhost: a\r\ncontent-length: 2\n\r\nab",
        b"POST /odd HTTP/1.1\r\nhost: a\r\ncontent-length: 02\r\n\r\nab",
        b"GET /odd HTTP/1.1\r\nhost: a\r\n\r\n",
    ]
)


def _request(body: bytes) -> bytes:
    return b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _parts(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(at) if a != b]


def _said(messages: Sequence[tuple[RawRequestMessage, StreamReader]]) -> Read:
    read = []
    for message, payload in messages:
        body = b"" if payload.exception() is not None else payload.read_nowait()
        read.append((message.method, message.path, body, payload.is_eof()))
    return read


def _plainly(parts: list[bytes], loop: asyncio.AbstractEventLoop) -> Read | None:
    """None where they cannot be read."""
    parser = HttpRequestParser(_Protocol(), loop, 2**17, auto_decompress=False)  # type: ignore[arg-type]
    messages: list[tuple[RawRequestMessage, StreamReader]] = []
    try:
        for part in parts:
            messages += parser.feed_data(part)[0]
    except HttpProcessingError:
        return None
    return _said(messages)


def _dropping(parts: list[bytes], loop: asyncio.AbstractEventLoop, *, taken: bool) -> Read | None:
    parser = RequestParser(_Protocol(), loop, ListenerLimits(), most_queued=1_000)
    messages: list[tuple[RawRequestMessage, StreamReader]] = []
    try:
        for part in parts:
            found, over = parser.feed(part, 0 if taken else len(messages))
            assert not over
            messages += found
            for _ in found if taken else ():
                parser.message_consumed()
    except HttpProcessingError:
        return None
    return _said(messages)


@given(
    requests=st.lists(st.one_of(BODIES.map(_request), ODD), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
    tail=st.sampled_from([b"", b"P", b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nconte"]),
    taken=st.booleans(),
)
def test_requests_are_read_the_same_however_they_arrive(
    loop: asyncio.AbstractEventLoop, requests: list[bytes], cuts: list[int], tail: bytes, taken: bool
) -> None:
    parts = _parts(b"".join(requests) + tail, cuts)

    assert _dropping(parts, loop, taken=taken) == _plainly(parts, loop)


@given(
    lines=st.lists(st.integers(0, 120), max_size=8),
    body=BODIES,
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_a_head_is_bounded_as_a_whole_however_it_arrives(
    loop: asyncio.AbstractEventLoop, lines: list[int], body: bytes, cuts: list[int]
) -> None:
    names = b"".join(b"x%d: %b\r\n" % (n, b"a" * size) for n, size in enumerate(lines))
    sent = _request(body).replace(b"host: a\r\n", b"host: a\r\n" + names)
    head = sent.index(b"\r\n\r\n") + 4
    parser = RequestParser(_Protocol(), loop, ListenerLimits(head_bytes=400), most_queued=8)
    refused = False
    try:
        for part in _parts(sent, cuts):
            parser.feed(part, 0)
    except HeadTooLong:
        refused = True

    if head <= 400:
        assert not refused
    elif head > 450:  # between them it depends on whether the request line is counted
        assert refused


@pytest.mark.parametrize("cut", [None, 20, 120])
def test_a_parser_is_dropped_with_the_last_byte_of_its_request(
    loop: asyncio.AbstractEventLoop, cut: int | None
) -> None:
    """So that a stream does not keep the head of its request twice."""
    parser = RequestParser(_Protocol(), loop, ListenerLimits(), most_queued=8)
    request = _request(b"a" * 200)
    for part in _parts(request, [] if cut is None else [cut]):
        parser.feed(part, 0)

    held = parser._parser is not None
    assert held is (cut == 20)  # a head that came in two parts is not looked for
