"""What is read of how much an answer came to: whether that is the last word, and whether all was shown."""

from __future__ import annotations

import pytest

from gateway.core.answer import AnswerReader, BodyReader, StreamReader
from gateway.core.usage import Report
from tests.support.streams import dump, event, message, message_delta, start, stop, text_delta, usage


def report(*pieces: bytes, reader: AnswerReader | None = None) -> Report:
    reader = reader or StreamReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.report()


def test_what_upstream_says_when_it_stops_is_the_last_word_even_if_the_stream_is_cut_then() -> None:
    """Of several cumulative counts the last one comes with the reason."""
    begun = [start(usage(10, 1)), text_delta("x"), message_delta({"output_tokens": 20}, None)]

    assert not report(*begun).output_is_final
    assert not report(*begun, message_delta(None)).output_is_final
    assert report(*begun, message_delta({"output_tokens": 25})).output_is_final
    assert report(dump(message(usage(10, 25))), reader=BodyReader()).output_is_final


def test_whose_count_it_is_cannot_be_told_where_two_messages_came() -> None:
    both = [start(usage(10, 1)), message_delta({"output_tokens": 2}), start(usage(10, 1)), stop()]

    assert not report(*both).output_is_final


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("block", "hides"),
    [
        ({"type": "thinking", "thinking": "", "signature": ""}, True),
        ({"type": "redacted_thinking", "data": "x"}, True),
        ({"type": "text", "text": 'It was "thinking".'}, False),
    ],
)
def test_notices_blocks_of_which_less_is_shown_than_billed(
    block: dict[str, str], hides: bool, named: bool
) -> None:
    data = {"type": "content_block_start", "index": 0, "content_block": block}
    begun = event("content_block_start", data)
    read = report(start(usage(10, 1)), begun if named else begun.partition(b"\n")[2])

    assert (read.has_content, read.has_thinking) == (True, hides)
