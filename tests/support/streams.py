"""Answers of the API to test with: transcripts of streams, plain messages and errors, as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

Json = Any
MODEL = "claude-opus-5-5"
MESSAGE_ID = "msg_test0001"


def dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(name: str, data: Json, *, end: bytes = b"\n") -> bytes:
    """One event as the API frames it."""
    return b"event: %s%sdata: %s%s%s" % (name.encode(), end, dump(data), end, end)


def usage(
    uncached: int = 0,
    output: int = 0,
    *,
    read: int = 0,
    write_5m: int = 0,
    write_1h: int = 0,
    **more: Json,
) -> dict[str, Json]:
    """A usage object with everything in it that the API always sends."""
    return {
        "input_tokens": uncached,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
        "output_tokens": output,
        "service_tier": "standard",
        "inference_geo": "global",
        **more,
    }


def message(used: Mapping[str, Json] | None = None, *, text: str = "", **more: Json) -> dict[str, Json]:
    """A message, complete as a plain answer."""
    return {
        "id": MESSAGE_ID,
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": dict(used if used is not None else usage()),
        "diagnostics": None,
        **more,
    }


def start(used: Mapping[str, Json] | None = None, **more: Json) -> bytes:
    opened = message(used, **{"stop_reason": None, **more})
    return event("message_start", {"type": "message_start", "message": opened})


def text_delta(text: str, *, index: int = 0, padding: int = 0) -> bytes:
    """A delta of text, with the spaces at its end that the API pads deltas with."""
    data = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: %s%s}\n\n" % (dump(data)[:-1], b" " * padding)


def message_delta(
    used: Mapping[str, Json] | None, stop_reason: str | None = "end_turn", **delta: Json
) -> bytes:
    data = {"type": "message_delta", "delta": {"stop_reason": stop_reason, **delta}, "usage": used}
    return event("message_delta", data)


def stop() -> bytes:
    return event("message_stop", {"type": "message_stop"})


def ping() -> bytes:
    return event("ping", {"type": "ping"})


def error_body(type_: str = "overloaded_error", text: str = "Overloaded") -> dict[str, Json]:
    return {"type": "error", "error": {"type": type_, "message": text}, "request_id": "req_test"}


def error_event(type_: str = "overloaded_error") -> bytes:
    return event("error", error_body(type_))


def transcript(
    used: Mapping[str, Json] | None = None, texts: Iterable[str] = ("Hello", " there"), **more: Json
) -> bytes:
    """A whole stream: its last usage repeats the counts and has the output."""
    final = dict(used if used is not None else usage(10, 25))
    counts = {name: value for name, value in final.items() if name.endswith("_tokens")}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return b"".join(
        [
            start({**final, "output_tokens": 1}, **more),
            event("content_block_start", block),
            ping(),
            *(text_delta(text, padding=index % 7) for index, text in enumerate(texts)),
            event("content_block_stop", {"type": "content_block_stop", "index": 0}),
            message_delta(counts),
            stop(),
        ]
    )


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces that end at these places."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    for begin, end in pairwise(edges):
        yield data[begin:end]
