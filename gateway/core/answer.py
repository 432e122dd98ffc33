"""Reads answers as they pass: streams and plain bodies, to one `Report`.

Readers work on a copy of what is relayed. They never raise, keep a bounded amount, and decode only what is
needed. What they cannot read they count (`Report.parse_errors`), and the usage stays None. The framing of
streams is `sse.py`'s, compression `inflate.py`'s, the meaning of a usage object `usage.py`'s.
"""

from __future__ import annotations

import re
from copy import copy
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from gateway.core.inflate import Inflater
from gateway.core.spans import without_lone_surrogates
from gateway.core.sse import SseReader
from gateway.core.usage import (
    COUNTS,
    Report,
    as_dict,
    as_list,
    as_text,
    is_count,
    is_readable,
    is_within_totals,
    read_usage,
    unread_counts,
)

MAX_BODY_BYTES = 16 << 20
"""Longest plain answer that is kept to be read; a longer one has no usage and counts as unreadable."""
READ_AT_BYTES = 1024
"""Of a stream: half a dozen events."""


class AnswerReader(Protocol):
    """Reads an answer as it passes. Never raises; `report` may be asked at any time, also halfway."""

    def feed(self, data: bytes) -> None: ...

    def report(self) -> Report: ...


def answer_reader(content_type: bytes, content_encoding: bytes = b"") -> AnswerReader:
    """The reader for an answer with these header values (empty where there is none).

    gzip and deflate are read; of an answer in another encoding the report says that it could not be read.
    """
    media_type = content_type.partition(b";")[0].strip().lower()
    reader: AnswerReader = StreamReader() if media_type == b"text/event-stream" else BodyReader()
    encoding = content_encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return reader
    return EncodedReader(reader, encoding)


class _Wire(msgspec.Struct):
    """Those members of a message, an event, an error body or a batch result that are read. The rest, content
    above all, is skipped without being built."""

    type: Any = None
    id: Any = None
    model: Any = None
    usage: Any = None
    stop_reason: Any = None
    stop_details: Any = None
    error: Any = None
    delta: Any = None
    content: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()


_WIRE = msgspec.json.Decoder(_Wire)
_MAX_DEPTH = 2
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_WANTED = frozenset((b"message_start", b"content_block_delta", b"message_delta", b"message_stop", b"error"))
_BARE = frozenset((b"content_block_start",))
_HIDING = re.compile(rb'"(?:redacted_)?thinking"')
"""In the beginning of a block: upstream bills what it thinks, and may show less of it, or nothing."""
_NO_CONTENT = re.compile(rb"null|\[[ \t\n\r]*\]|")
# Up to the text itself. Spaces after separators are allowed for.
_TEXT_DELTA = re.compile(
    rb'\{"type": ?"content_block_delta", ?"index": ?\d+, ?"delta": ?\{"type": ?'
    rb'"(?:text_delta", ?"text|thinking_delta", ?"thinking|input_json_delta", ?"partial_json)": ?"'
)
_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class _Seen:
    """What has been read of one message so far."""

    __slots__ = (
        "category", "disordered", "ended", "error_type", "has_content", "has_final_output", "has_thinking",
        "message_id", "model", "output_is_final", "parse_errors", "stop_reason", "text_bytes", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        self.usage: dict[str, object] | None = None
        self.message_id: str | None = None
        self.model: str | None = None
        self.stop_reason: str | None = None
        self.category: str | None = None
        self.error_type: str | None = None
        self.ended = False
        self.has_final_output = False
        self.has_content = False
        self.has_thinking = False
        self.output_is_final = False
        self.disordered = False
        self.text_bytes = 0
        self.parse_errors = 0

    def take_message(self, wire: _Wire) -> None:
        """A message. One that comes where something was known already, be it a second `message_start` or one
        after its deltas, is an error, and takes nothing back."""
        if self.usage is not None or self.message_id is not None:
            self.disordered = True
            self.parse_errors += 1
        self.message_id = self.message_id or as_text(wire.id)
        self.model = self.model or as_text(wire.model)
        if isinstance(wire.usage, dict):
            self.usage = wire.usage if self.usage is None else _larger_usage(self.usage, wire.usage)
        if _NO_CONTENT.fullmatch(wire.content) is None:
            self.has_content = True
        self.take_stop(wire.stop_reason, wire.stop_details)

    def take_block(self, payload: bytes) -> None:
        """The beginning of a block, which is not decoded: a tool's result may be long."""
        self.has_content = True
        self.has_thinking = self.has_thinking or _HIDING.search(payload) is not None

    def take_stop(self, reason: object, details: object) -> None:
        self.stop_reason = as_text(reason) or self.stop_reason
        self.category = as_text(as_dict(details).get("category")) or self.category

    def take_error(self, error: object) -> None:
        envelope = as_dict(error)
        inner = envelope.get("error")  # of a batch result the error is the whole envelope
        self.error_type = as_text((inner if isinstance(inner, dict) else envelope).get("type")) or "unknown"

    def take_delta(self, wire: _Wire) -> None:
        """A `message_delta`: its counts are cumulative, so what it has replaces what was known, and what it
        lacks stays. It may come several times (streaming docs, 2026-08-21)."""
        delta = as_dict(wire.delta)
        self.take_stop(delta.get("stop_reason"), delta.get("stop_details"))
        fresh = {name: value for name, value in as_dict(wire.usage).items() if value is not None}
        for name in COUNTS:
            if name in fresh and not is_count(fresh[name]):
                self.parse_errors += 1
                del fresh[name]
        if not fresh:
            return
        self.has_final_output |= is_count(fresh.get("output_tokens"))
        known = self.usage or {}
        # Of several the last one names why it stopped.
        self.output_is_final |= "output_tokens" in fresh and isinstance(delta.get("stop_reason"), str)
        if self.disordered:  # whose counts these are cannot be told
            self.usage = _larger_usage(known, fresh)
            return
        if known.get("iterations") and "iterations" not in fresh:
            # Those of before are stale within the totals, which are fresh; the others are known nowhere else.
            old = [entry for entry in as_list(known["iterations"]) if isinstance(entry, dict)]
            fresh["iterations"] = [entry for entry in old if not is_within_totals(entry)]
        self.usage = {**known, **fresh}

    def report(self) -> Report:
        errors = self.parse_errors
        usage = None
        if self.usage is not None:
            errors += unread_counts(self.usage)
            if is_readable(self.usage):
                usage = read_usage(self.usage, model=self.model)
        complete = self.ended and self.has_final_output
        return Report(
            usage=usage,
            message_id=self.message_id,
            model=self.model,
            stop_reason=self.stop_reason,
            refusal_category=self.category,
            error_type=self.error_type,
            ended=self.ended,
            complete=complete,
            output_is_final=(complete or self.output_is_final) and not self.disordered,
            has_content=self.has_content,
            has_thinking=self.has_thinking,
            output_text_bytes=self.text_bytes,
            parse_errors=errors,
        )


def _larger_usage(known: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    """Of two usage objects the larger counts, and what only one of them has. Iterations within the totals are
    left out, as the totals of both stand; the others are kept."""
    merged = {**other, **{name: value for name, value in known.items() if value is not None}}
    for name, value in other.items():
        before = known.get(name)
        if is_count(before) and is_count(value):
            merged[name] = max(before, value)
        elif isinstance(before, dict) and isinstance(value, dict):
            merged[name] = _larger_usage(before, value)
    if "iterations" in merged:
        entries = [*as_list(known.get("iterations")), *as_list(other.get("iterations"))]
        merged["iterations"] = [
            entry for entry in entries if isinstance(entry, dict) and not is_within_totals(entry)
        ]
    return merged


class StreamReader:
    """Reads an answer sent as server-sent events. Deltas of text are measured, not decoded.

    Events are read some at a time, as nobody asks what they said before the end: one by one, each when it has
    just come, they cost several times as much."""

    __slots__ = ("_events", "_pending", "_pending_bytes", "_seen")

    def __init__(self) -> None:
        self._events = SseReader(_WANTED, bare=_BARE)
        self._seen = _Seen()
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= READ_AT_BYTES:
            self._read()

    def _read(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        for name, payload in self._events.feed(data):
            if name == b"content_block_delta":
                self._seen.has_content = True
                self._seen.text_bytes += _text_bytes(payload)
            elif name in _BARE:
                self._seen.take_block(payload)
            elif name or payload.startswith(b"{"):  # some relays end with a nameless `[DONE]`
                _fold(self._seen, name, payload)

    def report(self) -> Report:
        """What is known so far. An event that lacks only its blank line counts, where its data is whole."""
        self._read()
        seen = self._seen
        rest = self._events.rest()
        if rest is not None and rest[0] != b"content_block_delta":
            seen = copy(seen)
            _fold(seen, *rest)
            seen.parse_errors = self._seen.parse_errors
        report = seen.report()
        if self._events.oversized:
            # What was too long to be read may have been content.
            errors = report.parse_errors + self._events.oversized
            report = replace(report, parse_errors=errors, has_content=True)
        return report


def _text_bytes(payload: bytes) -> int:
    """Bytes of text in a delta, without decoding it: to its closing quote, each escape counted as one byte at
    most. What upstream pads deltas with, spaces or a member of its own, comes after that quote."""
    found = _TEXT_DELTA.match(payload)
    if found is None:
        return 0
    start = found.end()
    end = payload.find(b'"', start)
    if end < 0:
        return 0
    if payload.find(b"\\", start, end) < 0:
        return end - start
    text = _TEXT.match(payload, start)
    end = text.end() if text is not None else start
    size = end - start - payload.count(b"\\", start, end) - 4 * payload.count(b"\\u", start, end)
    return size if size > 0 else 0


def _decode(text: bytes | msgspec.Raw) -> _Wire:
    """Raises one of `_UNREADABLE`. An answer that was cut inside a pair of escaped surrogates, as generated
    text may be, is read all the same."""
    try:
        return _WIRE.decode(text)
    except msgspec.DecodeError:
        scratch = without_lone_surrogates(bytes(text))
        if scratch is None:
            raise
        return _WIRE.decode(scratch)


def _fold(seen: _Seen, name: bytes, payload: bytes) -> None:
    """Take in one event, by its name; of one without a name, as some relays drop it, by the type inside."""
    try:
        wire = _decode(payload)
        match name.decode("latin-1") or wire.type:
            case "message_start":
                seen.take_message(_decode(wire.message))
            case "message_delta":
                seen.take_delta(wire)
            case "message_stop":
                seen.ended = True
            case "error":
                seen.take_error(wire.error)
            case "content_block_start":
                seen.take_block(payload)
            case "content_block_delta":
                seen.has_content = True
                seen.text_bytes += _text_bytes(payload)
    except _UNREADABLE:
        seen.parse_errors += 1


class BodyReader:
    """Reads a plain answer: a message, an error, a batch result with either inside; or none of these, such
    as the HTML of an edge. Keeps a copy of up to `MAX_BODY_BYTES`. A stream under a wrong content type is
    read as one."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_BODY_BYTES:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    def report(self) -> Report:
        if self._size > MAX_BODY_BYTES:
            return Report(parse_errors=1)
        body = b"".join(self._pieces)
        if not body:
            return Report()
        if body.lstrip().startswith((b"event:", b"data:", b":")):
            reader = StreamReader()
            reader.feed(body)
            return reader.report()
        seen = _Seen()
        try:
            _fold_body(seen, body)
            seen.ended = seen.has_final_output = True
        except _UNREADABLE as error:
            # A body that merely stops was cut, which is not for the reader to complain about.
            seen.parse_errors = int("truncated" not in str(error))
        return seen.report()


def _fold_body(seen: _Seen, body: bytes | msgspec.Raw, depth: int = 0) -> None:
    wire = _decode(body)
    inner = next((raw for raw in (wire.result, wire.message) if len(raw)), None)
    if wire.error is not None:
        seen.take_error(wire.error)
    elif inner is not None and depth < _MAX_DEPTH:
        _fold_body(seen, inner, depth + 1)
    else:
        seen.take_message(wire)


class EncodedReader:
    """Inflates an answer for the reader within."""

    __slots__ = ("_inflater", "_reader")

    def __init__(self, reader: AnswerReader, encoding: bytes) -> None:
        self._reader = reader
        self._inflater = Inflater(encoding)

    def feed(self, data: bytes) -> None:
        for piece in self._inflater.feed(data):
            self._reader.feed(piece)

    def report(self) -> Report:
        report = self._reader.report()
        if self._inflater.broken:
            return replace(report, complete=False, parse_errors=report.parse_errors + 1)
        return report
