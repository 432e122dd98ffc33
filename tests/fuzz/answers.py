"""What upstream answers: however the bytes are cut, the same is read of them, and no reader ever raises."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.core.answer import AnswerReader, answer_reader
from gateway.core.batch_results import ResultSums
from gateway.core.sse import SseReader
from gateway.core.usage import Report
from tests.fuzz.target import Check, Target, pure
from tests.support.fakes import make_rules
from tests.support.streams import dump, event, message, message_delta, start, text_delta, usage

_WANTED = frozenset((b"message_start", b"content_block_delta", b"message_delta", b"message_stop", b"error"))
_BARE = frozenset((b"content_block_start",))
_ENCODINGS = (b"", b"gzip", b"deflate", b"br")
_TYPES = (b"text/event-stream", b"application/json")


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes in pieces: each alone, and some ways in between that the bytes themselves choose."""
    yield [data[at : at + 1] for at in range(len(data))]
    step = zlib.crc32(data) % 61 + 2
    yield [data[at : at + step] for at in range(0, len(data), step)]
    middle = zlib.adler32(data) % (len(data) + 1)
    yield [data[:middle], b"", data[middle:]]


def check_events(data: bytes) -> None:
    def read(pieces: Sequence[bytes]) -> tuple[list[tuple[bytes, bytes]], object, int]:
        reader = SseReader(_WANTED, bare=_BARE, max_event_bytes=400)
        events = [event for piece in pieces for event in reader.feed(piece)]
        return events, reader.rest(), reader.oversized

    whole = read([data])
    for pieces in cuts(data):
        assert read(pieces) == whole
    assert all(len(text) <= 400 for _, text in whole[0])


def check_answer(data: bytes) -> None:
    """The first byte says by which headers it comes."""
    if not data:
        return
    kind, encoding = _TYPES[data[0] % 2], _ENCODINGS[data[0] // 2 % 4]
    body = data[1:]
    if data[0] & 0x80 and encoding in (b"gzip", b"deflate"):
        packer = zlib.compressobj(wbits=31 if encoding == b"gzip" else 15)
        body = packer.compress(body) + packer.flush()

    def read(pieces: Sequence[bytes]) -> Report:
        reader: AnswerReader = answer_reader(kind, encoding)
        for piece in pieces:
            reader.feed(piece)
            if len(pieces) < 4:
                reader.report()  # which may be asked at any time
        return reader.report()

    whole = read([body])
    for pieces in cuts(body):
        told = read(pieces)
        # How much of a broken encoding can be opened before its end may depend on the pieces.
        assert told == whole or (encoding and told.parse_errors and whole.parse_errors)
    usage = whole.usage
    assert usage is None or min(usage.prompt_tokens, usage.output_tokens) >= 0


@asynccontextmanager
async def _results(folder: Path) -> AsyncIterator[Check]:
    prices = make_rules(folder, {}).prices

    async def check(data: bytes) -> None:
        def read(pieces: Sequence[bytes]) -> object:
            sums = ResultSums(prices, at=1.8e9)
            for piece in pieces:
                assert not sums.feed(piece)
            sums.end()
            whole = [items for items in range(data.count(b"\n") + 2) if sums.is_whole(items)]
            return whole, sums.settled(items=1, ended_at=1.0, ledger="l", at=2.0)

        whole = read([data])
        for pieces in cuts(data):
            assert read(pieces) == whole

    yield check


def event_streams() -> Sequence[bytes]:
    used = usage(20, 1, read=5_000, write_5m=300, write_1h=40)
    begun = start(used)
    deltas = b"".join(text_delta(text, padding=3) for text in ("Hi", 'a "quoted"\n', "\u00fc\u2028"))
    end = message_delta(usage(20, 9, read=5_000)) + event("message_stop", {"type": "message_stop"})
    error = event("error", {"type": "error", "error": {"type": "overloaded_error", "message": "later"}})
    whole = begun + deltas + end
    nameless = b"".join(line + b"\n" for line in whole.split(b"\n") if not line.startswith(b"event:"))
    return [
        whole,
        whole.replace(b"\n", b"\r\n"),
        whole.replace(b"\n", b"\r"),
        begun + deltas + error,
        nameless + b"data: [DONE]\n\n",
        b"\xef\xbb\xbf: ping\nid: 1\nretry: 2\n\n" + begun + begun + end + end,
    ]


def answers() -> Sequence[bytes]:
    plain = dump(message(usage(3, 4, read=5, iterations=[usage(1, 2), None, 7]), text="Hi"))
    error = dump({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}})
    bodies = (*event_streams()[:2], plain, error, b"<html>502</html>")
    return [bytes([kind]) + body for body in bodies for kind in (0, 1, 2, 0x82, 0x83, 0x85)]


def result_lines() -> Sequence[bytes]:
    succeeded = {"type": "succeeded", "message": message(usage(11, 7, read=1_000, write_5m=200))}
    errored = {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "no"}}}
    rows = [dump({"custom_id": "a", "result": one}) for one in (succeeded, errored, {"type": "expired"})]
    return [b"\n".join(rows) + b"\n", b"\r\n".join(rows), rows[0]]


_WORDS = (
    b"event: message_start\n", b"event: message_delta\n", b"event: message_stop\n", b"event: error\n",
    b"event: content_block_delta\ndata: ", b"data: ", b"data:", b"\n\n", b"\r", b"\r\n\r\n", b": ping\n",
    b'{"type":"message_stop"}', b'"usage"', b'"input_tokens"', b'"output_tokens"', b'"iterations"',
    b'"message"', b'"succeeded"', b'"result"', b'"error"', b"-7", b"1e999", b"18446744073709551616", b"[[]]",
    b'{"type":"x"}',
)  # fmt: skip

TARGETS = (
    Target(name="events", open=pure(check_events), seeds=event_streams, words=_WORDS, rounds=200),
    Target(name="answer", open=pure(check_answer), seeds=answers, words=_WORDS, rounds=400),
    Target(name="results", open=_results, seeds=result_lines, words=_WORDS, rounds=400),
)
