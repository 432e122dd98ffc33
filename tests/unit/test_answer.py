"""What is read of an answer while it passes: of streams, plain bodies, errors, and what is none of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from gateway.core.answer import MAX_BODY_BYTES, AnswerReader, BodyReader, StreamReader, answer_reader
from gateway.core.usage import Report
from tests.support.streams import (
    MESSAGE_ID,
    MODEL,
    dump,
    error_body,
    error_event,
    event,
    message,
    message_delta,
    start,
    stop,
    text_delta,
    transcript,
    usage,
)


def report(*pieces: bytes, reader: AnswerReader | None = None) -> Report:
    reader = reader or StreamReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.report()


def test_reads_a_whole_stream() -> None:
    read = report(transcript(usage(10, 25, read=900, write_1h=40), ["Hello", " wörld"]))

    assert (read.ended, read.complete, read.has_content) == (True, True, True)
    assert (read.message_id, read.model, read.stop_reason) == (MESSAGE_ID, MODEL, "end_turn")
    assert read.usage is not None
    assert read.usage.output_tokens == 25
    assert (read.usage.cache_read_tokens, read.usage.cache_write_1h_tokens) == (900, 40)
    assert read.output_text_bytes == len("Hello wörld".encode())
    assert read.parse_errors == 0


def test_trap_38_takes_the_last_cumulative_count_and_keeps_what_only_the_start_said() -> None:
    """Several cumulative deltas; split, geography, speed and tier come only at the start."""
    read = report(
        start(usage(10, 1, read=5, write_1h=70, inference_geo="us", speed="fast", service_tier="batch")),
        message_delta({"output_tokens": 20}, None),
        message_delta({"output_tokens": 45, "input_tokens": 12, "cache_read_input_tokens": None}),
        stop(),
    ).usage

    assert read is not None
    assert (read.uncached_input_tokens, read.output_tokens, read.cache_read_tokens) == (12, 45, 5)
    assert (read.cache_write_5m_tokens, read.cache_write_1h_tokens) == (0, 70)
    assert (read.inference_geo, read.speed, read.service_tier) == ("us", "fast", "batch")


@pytest.mark.parametrize(
    "deltas", [[], [message_delta(None)], [message_delta({"input_tokens": 10})], [message_delta({})]]
)
def test_a_stream_that_never_said_its_output_has_ended_but_is_not_complete(deltas: list[bytes]) -> None:
    """What `message_start` says of the output is where it began."""
    read = report(start(usage(10, 1)), text_delta("x" * 1_000), *deltas, stop())

    assert (read.ended, read.complete, read.parse_errors) == (True, False, 0)
    assert read.output_text_bytes == 1_000


def test_a_stream_without_its_last_event_has_not_ended() -> None:
    read = report(start(usage(10, 1)), message_delta({"output_tokens": 9}))

    assert (read.ended, read.complete) == (False, False)


def test_a_start_that_comes_late_takes_no_count_back() -> None:
    read = report(message_delta({"output_tokens": 777}), start(usage(10, 1, write_1h=7)), stop())

    assert read.usage is not None
    assert (read.usage.uncached_input_tokens, read.usage.output_tokens) == (10, 777)
    assert (read.usage.cache_write_1h_tokens, read.parse_errors, read.message_id) == (7, 1, MESSAGE_ID)


def test_a_second_message_in_a_stream_takes_nothing_from_the_first() -> None:
    extra = {"type": "compaction", **usage(1_000, 100)}
    read = report(
        start(usage(900, 1, write_1h=70)),
        message_delta({"output_tokens": 500, "iterations": [{"type": "message", **usage(900, 500)}, extra]}),
        stop(),
        start(usage(5, 1, read=3, write_5m=9), id="msg_test0002"),
        message_delta({"output_tokens": 2}),
        stop(),
    )

    assert (read.message_id, read.parse_errors) == (MESSAGE_ID, 1)
    assert read.usage is not None
    used, compaction = read.usage.iterations
    assert (used.uncached_input_tokens, used.output_tokens, used.cache_read_tokens) == (900, 500, 3)
    assert (used.cache_write_5m_tokens, used.cache_write_1h_tokens) == (0, 70)
    assert compaction.output_tokens == 100


def test_counts_writes_that_a_loop_adds_after_the_start_as_five_minutes() -> None:
    read = report(
        start(usage(10, 1, write_1h=70)),
        message_delta({"output_tokens": 20, "cache_creation_input_tokens": 100}),
    ).usage

    assert read is not None
    assert (read.cache_write_5m_tokens, read.cache_write_1h_tokens) == (30, 70)


def test_trap_40_counts_an_error_in_a_stream_and_keeps_what_was_reported_so_far() -> None:
    """A 200 can still fail."""
    read = report(start(usage(10, 1)), text_delta("Hel"), error_event("overloaded_error"))

    assert not read.complete
    assert read.error_type == "overloaded_error"
    assert read.usage is not None
    assert read.usage.uncached_input_tokens == 10
    assert read.output_text_bytes == 3


def test_drops_stale_iterations_when_the_totals_move_on() -> None:
    extra = {"type": "compaction", **usage(1000, 100)}
    read = report(
        start(usage(10, 1, iterations=[{"type": "message", **usage(10, 1)}, extra])),
        message_delta({"output_tokens": 500}),
    ).usage

    assert read is not None
    assert [part.output_tokens for part in read.iterations] == [500, 100]


def test_takes_the_last_list_of_iterations() -> None:
    entry = {"type": "message", **usage(10, 1)}
    last = [{"type": "message", **usage(10, 30)}, {"type": "fallback_message", "model": "x", **usage(4, 5)}]
    read = report(
        start(usage(10, 1, iterations=[entry])), message_delta({"output_tokens": 35, "iterations": last})
    ).usage

    assert read is not None
    assert [part.output_tokens for part in read.iterations] == [30, 5]


def test_reports_a_refusal_with_its_category() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": None}
    read = report(start(usage(10, 0)), message_delta({"output_tokens": 0}, "refusal", stop_details=details))

    assert (read.stop_reason, read.refusal_category) == ("refusal", "bio")


@pytest.mark.parametrize(
    ("blocks", "has_content"),
    [
        (b"", False),
        (event("content_block_start", {"type": "content_block_start", "index": 0}), True),
        (event("content_block_start", {"data": "x" * (2 << 20)}), True),
        (b'data: {"type":"content_block_start","index":0}\n\n', True),
        (text_delta("So"), True),
        (text_delta("So").replace(b"event: content_block_delta\n", b""), True),
        (event("content_block_delta", {"delta": "x" * (2 << 20)}), True),
    ],
)
def test_tells_a_refusal_before_any_content_from_one_after_it(blocks: bytes, has_content: bool) -> None:
    read = report(start(usage(10, 1)), blocks, message_delta({"output_tokens": 1}, "refusal"), stop())

    assert read.has_content == has_content
    assert read.complete


@pytest.mark.parametrize(
    ("content", "has_content"),
    [(b"[]", False), (b"[ \n]", False), (b"null", False), (b'[{"type":"text","text":""}]', True)],
)
def test_tells_whether_a_plain_message_has_content(content: bytes, has_content: bool) -> None:
    data = dump(message(usage(10, 25))).replace(b'"content":[]', b'"content":' + content)

    assert report(data, reader=BodyReader()).has_content == has_content


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: data.replace(b": {", b":{").replace(b"event: ", b"event:"),
        lambda data: b": hello\n\n" + data + b"data: [DONE]\n\n",
        lambda data: data + event("brand_new", {"type": "brand_new"}),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.removesuffix(b"\n"),
        lambda data: data.removesuffix(b"\n\n"),
        lambda data: b"\n".join(line for line in data.split(b"\n") if not line.startswith(b"event")),
    ],
    ids=["crlf", "cr", "no-space", "comment-and-done", "unknown", "bom", "no-blank", "no-end", "nameless"],
)
def test_reads_what_clients_can_read(change: Callable[[bytes], bytes]) -> None:
    data = transcript()

    assert report(data) == report(change(data))


@pytest.mark.parametrize(
    "text", ["plain", 'a "quoted" one', "back\\slash \\u0041", "line\nbreak\ttab", "é中😀", "}}} ", ""]
)
@pytest.mark.parametrize("padding", [0, 5])
def test_never_counts_more_text_than_there_is(text: str, padding: int) -> None:
    counted = report(start(), text_delta(text, padding=padding)).output_text_bytes

    assert counted <= len(text.encode())
    if "\\" not in text:
        assert counted == len(text.encode())


@pytest.mark.parametrize("text", [b"hello", rb"say \"hi\"", b"", rb"\\", rb"\",\"p\":\"x"], ids=range(5))
@pytest.mark.parametrize("tail", [b'"},"p":"abcdefgh"}', b'","p":"abcdefgh"}}', b'"}    }', b'"}}'])
def test_counts_no_padding_as_text(text: bytes, tail: bytes) -> None:
    head = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
    counted = report(start(), b"event: content_block_delta\ndata: " + head + text + tail + b"\n\n")

    assert counted.output_text_bytes == len(text) - text.count(b"\\")


def test_measures_thinking_and_tool_input_too_but_no_signature() -> None:
    def delta(body: dict[str, str]) -> bytes:
        data = {"type": "content_block_delta", "index": 12, "delta": body}
        return event("content_block_delta", data)

    read = report(
        start(),
        delta({"type": "thinking_delta", "thinking": "hmm"}),
        delta({"type": "input_json_delta", "partial_json": '{"a":1}'}),
        delta({"type": "signature_delta", "signature": "abcdefgh"}),
    )

    assert read.output_text_bytes == 3 + 7


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("lacking", [None, -1, 2.5, "10"], ids=repr)
def test_usage_that_lacks_what_went_in_or_came_out_is_no_usage(name: str, lacking: object) -> None:
    """Booked as it stands, it would be free."""
    body = BodyReader()
    body.feed(dump(message(usage(10, 5, write_5m=3) | {name: lacking})))
    read = body.report()

    assert (read.usage, read.parse_errors, read.message_id) == (None, 1, MESSAGE_ID)


def test_trap_38_a_delta_takes_nothing_back_by_a_count_that_is_none() -> None:
    read = report(
        start(usage(10, 1)), message_delta({"output_tokens": 9}), message_delta({"output_tokens": -1})
    )

    assert read.usage is not None
    assert (read.usage.output_tokens, read.parse_errors) == (9, 1)


def test_counts_usage_that_it_cannot_read() -> None:
    assert report(start(usage(10, 1) | {"input_tokens": "ten"})).parse_errors == 1
    assert report(event("message_start", {"message": 3})).parse_errors == 1
    assert report(b"event: message_delta\ndata: {nope\n\n").parse_errors == 1
    assert report(b"event: message_delta\ndata: " + b"x" * (2 << 20) + b"\n\n").parse_errors == 1


def test_reads_a_plain_message() -> None:
    data = dump(message(usage(10, 25), text="Hello"))
    read = report(data[:40], data[40:], reader=BodyReader())

    assert read.complete
    assert (read.message_id, read.model, read.stop_reason) == (MESSAGE_ID, MODEL, "end_turn")
    assert read.usage is not None
    assert read.usage.output_tokens == 25


@pytest.mark.parametrize(
    "line",
    [
        {"custom_id": "a", "result": {"type": "succeeded", "message": message(usage(10, 25))}},
        {"type": "succeeded", "message": message(usage(10, 25))},
    ],
)
def test_reads_a_message_inside_a_batch_result(line: dict[str, object]) -> None:
    read = report(dump(line), reader=BodyReader())

    assert read.usage is not None
    assert read.usage.output_tokens == 25


@pytest.mark.parametrize(
    "body",
    [
        error_body("rate_limit_error"),
        {"custom_id": "a", "result": {"type": "errored", "error": error_body("rate_limit_error")}},
    ],
)
def test_reads_the_type_of_an_error(body: dict[str, object]) -> None:
    read = report(dump(body), reader=BodyReader())

    assert read.error_type == "rate_limit_error"
    assert read.usage is None


def test_reads_a_plain_message_that_was_cut_inside_an_escaped_character() -> None:
    data = dump(message(usage(10, 25), text="cut ?")).replace(b"cut ?", rb"cut \ud83d")
    read = report(data, reader=BodyReader())

    assert (read.complete, read.parse_errors, read.has_content) == (True, 0, True)
    assert read.usage is not None
    assert read.usage.output_tokens == 25


def test_reads_events_with_half_an_escaped_character() -> None:
    half = b'"stop_sequence":"?"', rb'"stop_sequence":"\ud83d"'
    read = report(
        start(usage(10, 1), stop_sequence="?").replace(*half),
        message_delta({"output_tokens": 25}, stop_sequence="?").replace(*half),
        stop(),
    )

    assert (read.complete, read.parse_errors) == (True, 0)
    assert read.usage is not None
    assert (read.usage.uncached_input_tokens, read.usage.output_tokens) == (10, 25)


def test_tolerates_the_page_of_an_edge() -> None:
    read = report(b"<html><h1>413</h1></html>", reader=BodyReader())

    assert (read.complete, read.usage, read.parse_errors) == (False, None, 1)


def test_complains_of_no_body_that_was_merely_cut() -> None:
    read = report(dump(message(usage(10, 25)))[:-9], reader=BodyReader())

    assert (read.complete, read.usage, read.parse_errors) == (False, None, 0)


def test_reads_a_count_of_tokens_as_no_usage() -> None:
    read = report(b'{"input_tokens":14}', reader=BodyReader())

    assert (read.complete, read.usage, read.parse_errors) == (True, None, 0)


def test_lets_go_of_a_body_that_is_too_long() -> None:
    reader = BodyReader()
    for _ in range(MAX_BODY_BYTES // (1 << 20) + 2):
        reader.feed(b" " * (1 << 20))

    assert reader.report() == Report(parse_errors=1)
    assert reader._pieces == []


def test_survives_deep_nesting_and_broken_text() -> None:
    assert report(b'{"content":' + b"[" * 200_000, reader=BodyReader()).usage is None
    assert report(b'{"model":"\xff\xfe"}', reader=BodyReader()).usage is None


def test_reads_a_stream_that_came_under_a_wrong_type() -> None:
    assert report(transcript(), reader=answer_reader(b"application/json")) == report(transcript())


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"GZIP ", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", lambda data: zlib.compress(data, wbits=-15)),
        (b"gzip", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])),
        (b"identity", bytes),
        (b"", bytes),
    ],
)
def test_reads_compressed_streams(encoding: bytes, compress: Callable[[bytes], bytes], size: int) -> None:
    data = compress(transcript())
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    reader = answer_reader(b"text/event-stream; charset=utf-8", encoding)

    assert report(transcript()) == report(*pieces, reader=reader)


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"gzip", b"deflate"])
def test_says_so_where_it_cannot_open_an_answer(encoding: bytes) -> None:
    read = report(b"\x1b\x03\x00 not what was said", reader=answer_reader(b"text/event-stream", encoding))

    assert (read.usage, read.parse_errors, read.complete) == (None, 1, False)
