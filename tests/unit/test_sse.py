"""Events come out of bytes the same way however the bytes are cut, and nothing fed in can do harm."""

from __future__ import annotations

import pytest

from gateway.core.sse import Event, SseReader

WANTED = frozenset({b"message_start", b"content_block_delta", b"message_stop"})
DELTA = b'event: content_block_delta\ndata: {"n":1}\n\n'


def read(data: bytes, size: int | None = None, limit: int = 1000) -> tuple[list[Event], SseReader]:
    reader = SseReader(WANTED, max_event_bytes=limit)
    step = size or max(len(data), 1)
    events = [event for at in range(0, len(data), step) for event in reader.feed(data[at : at + step])]
    return events, reader


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DELTA * 2, [(b"content_block_delta", b'{"n":1}')] * 2),
        (DELTA.replace(b"\n", b"\r\n"), [(b"content_block_delta", b'{"n":1}')]),
        (DELTA.replace(b"\n", b"\r"), [(b"content_block_delta", b'{"n":1}')]),
        (b"\xef\xbb\xbf" + DELTA, [(b"content_block_delta", b'{"n":1}')]),
        (b": comment\n" + DELTA + b":\n\n", [(b"content_block_delta", b'{"n":1}')]),
        (b"event:message_stop\ndata:x\n\n", [(b"message_stop", b"x")]),
        (b"data:  x\nevent: message_stop\n\n", [(b"message_stop", b" x")]),
        (b"event: message_stop\ndata: a\ndata:\ndata: b\n\n", [(b"message_stop", b"a\n\nb")]),
        (b"event: message_stop\nid: 7\nretry: 3\nfoo\ndata\n\n", [(b"message_stop", b"")]),
        (b"event: message_stop\n\ndata: x\n\n", [(b"", b"x")]),
        (b"event: ping\ndata: x\n\nevent: unheard_of\ndata: y\n\n", []),
        (DELTA + b"event: ping\nevent: message_stop\ndata: x\n\n" + DELTA,
         [(b"content_block_delta", b'{"n":1}'), (b"message_stop", b"x"),
          (b"content_block_delta", b'{"n":1}')]),
        (DELTA + b"event: content_block_delta\ndata: a\nevent: message_stop\n\n",
         [(b"content_block_delta", b'{"n":1}'), (b"message_stop", b"a")]),
        (DELTA + b"event: content_block_delta\ndata: a\rdata: b\r\r\n\n",
         [(b"content_block_delta", b'{"n":1}'), (b"content_block_delta", b"a\nb")]),
        (DELTA + b"data: a\n" + DELTA,
         [(b"content_block_delta", b'{"n":1}'), (b"content_block_delta", b'a\n{"n":1}')]),
        (DELTA + b"odd" + DELTA, [(b"content_block_delta", b'{"n":1}'), (b"", b'{"n":1}')]),
        (b"event: message_stop\ndata: x\n", []),
    ],
)  # fmt: skip
def test_reads_the_event_stream_format_for_any_chunking(
    data: bytes, expected: list[Event], size: int | None
) -> None:
    events, _ = read(data, size)

    assert expected == events


@pytest.mark.parametrize("size", [None, 1, 13])
@pytest.mark.parametrize(
    "long",
    [
        b"event: message_start\ndata: " + b"x" * 100 + b"\n\n",
        b"event: message_start\n" + b"data: 12345\n" * 20 + b"\n",
        b"event: content_block_delta\ndata: " + b"x" * 100 + b"\n\n",
        b"data: " + b"x" * 100 + b"\nevent: message_start\n\n",
    ],
)
def test_skips_and_counts_events_above_the_bound_and_goes_on(long: bytes, size: int | None) -> None:
    events, reader = read(DELTA + long + DELTA, size, limit=64)

    assert events == [(b"content_block_delta", b'{"n":1}')] * 2
    assert reader.oversized == 1


def test_counts_no_oversized_event_that_nobody_wanted() -> None:
    events, reader = read(b"event: content_block_start\ndata: " + b"x" * 100 + b"\n\n" + DELTA, 10, limit=64)

    assert len(events) == 1
    assert reader.oversized == 0


@pytest.mark.parametrize("size", [None, 1, 13])
def test_of_a_bare_name_it_hands_on_the_name_however_long_the_data_is(size: int | None) -> None:
    name = b"event: content_block_start\n"
    data = name + b"data: " + b"x" * 100 + b"\n\n" + name + b"data: y\n\n" + name + b"\n" + DELTA
    reader = SseReader(WANTED, bare=frozenset({b"content_block_start"}), max_event_bytes=64)
    size = size or len(data)
    events = [event for at in range(0, len(data), size) for event in reader.feed(data[at : at + size])]

    starts = [(b"content_block_start", b""), (b"content_block_start", b"y")]
    assert events == [*starts, (b"content_block_delta", b'{"n":1}')]
    assert reader.oversized == 0


def test_keeps_no_more_than_the_bound_of_a_line_without_end() -> None:
    reader = SseReader(WANTED, max_event_bytes=100)
    for _ in range(1000):
        reader.feed(b"data: " + b"x" * 50)

    assert reader._line is not None
    assert len(reader._line) <= 100 + len(b"\xef\xbb\xbf") + 1


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"event: message_stop\ndata: x", (b"message_stop", b"x")),
        (b"event: message_stop\ndata: x\n", (b"message_stop", b"x")),
        (b"event: message_stop\ndata: x\ndata: y", (b"message_stop", b"x\ny")),
        (b"event: message_stop\ndata: x\r\n\r\n", None),
        (b"event: message_stop\n", None),
        (b"event: ping\ndata: x", None),
        (b"data: " + b"x" * 2000, None),
        (b"", None),
    ],
)
def test_shows_the_event_that_lacks_only_its_blank_line(
    data: bytes, expected: Event | None, size: int | None
) -> None:
    _, reader = read(data, size)

    assert expected == reader.rest()
