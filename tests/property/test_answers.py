"""What is read of a stream is the same however it arrives, and whenever it is asked for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.answer import StreamReader
from gateway.core.usage import Report
from tests.support.streams import error_event, event, start, stop, text_delta, transcript, usage

TEXTS = st.lists(st.text(max_size=30), max_size=20)
OTHERS = st.sampled_from(
    [
        b": a comment\n\n",
        b"event: ping\ndata: {}\n\n",
        b"id: 1\nevent: content_block_delta\ndata: {}\n\n",
        event("content_block_stop", {"type": "content_block_stop", "index": 0}),
        start(usage(10, 1)),
        error_event(),
        text_delta('a line\nand "quotes"').replace(b"\n", b"\r\n"),
        b"\n\n\n",
    ]
)


def _read(pieces: list[bytes]) -> Report:
    reader = StreamReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.report()


@given(
    texts=TEXTS,
    others=st.lists(OTHERS, max_size=4),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
    at=st.integers(0, 10**6),
)
def test_a_report_asked_for_at_any_time_says_all_that_has_come(
    texts: list[str], others: list[bytes], cuts: list[int], at: int
) -> None:
    """A reader that is asked after every piece says of each beginning what one says that reads it byte by
    byte; though it waits, and reads some events at a time."""
    wire = b"".join(map(text_delta, texts)) + b"".join(others) + transcript(usage(10, 25), texts) + stop()
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    asked = StreamReader()
    for begin, end in pairwise(places):
        asked.feed(wire[begin:end])
        before = asked.report()
        assert before == _read([wire[:end]])
    at %= len(wire) + 1
    assert _read([wire[i : i + 1] for i in range(at)]) == _read([wire[:at]])
