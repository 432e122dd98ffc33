"""What a request used, as upstream reported it: the `Usage` value and its reading from the wire.

This is the only file that knows the API's names of usage fields. Mind that the API's `input_tokens` is
the part that was neither read from a cache nor written to one; here it is `uncached_input_tokens`.
Answers are read in `answer.py`, priced in `pricing.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

import msgspec
from msgspec.structs import replace

MAX_TOKENS = 10**12
"""Counts above it are nonsense and read as absent."""
COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_ALWAYS = ("input_tokens", "output_tokens")
_MAX_TEXT_CHARS = 200


# msgspec.Structs, since they are made for each call: a frozen dataclass takes ten times as long to make.
class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens and counted extras of one request, or of one iteration of a server-side loop.

    `iterations` is empty unless upstream reported any; then the bill is the sum over all of them, each by
    its own `model`, and the fields above them are only upstream's own totals (which leave some out).
    Thinking is within `output_tokens`.
    """

    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    web_search_requests: int = 0
    web_fetch_requests: int = 0
    code_execution_requests: int = 0
    model: str | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    iterations: tuple[Usage, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """The size of the prompt: everything that went in, however it was billed."""
        return (
            self.uncached_input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
        )


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that the gateway reads of an answer's body, besides relaying it.

    `ended` is True when a stream reached `message_stop`, or a plain body was read to its end: upstream did
    not cut it. `complete` says more: a stream must also have brought the final `output_tokens`, in a
    `message_delta`; what `message_start` says of the output is a beginning only. `error_type` is the API's
    error type of an error body or of an `error` event in a stream.
    """

    usage: Usage | None = None
    message_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    refusal_category: str | None = None
    error_type: str | None = None
    ended: bool = False
    complete: bool = False
    output_is_final: bool = False
    """Whether it is complete, or the `message_delta` was read that says why the answer stopped and what it
    came to: nothing was generated after that, even where the stream was cut then."""
    has_content: bool = False
    """Whether there was any content block, be it an empty one: what parts a refusal before any output, which
    is mostly free, from one in the middle."""
    has_thinking: bool = False
    """Whether a block of thinking began, redacted or not, of which upstream may show less than it bills."""
    output_text_bytes: int = 0
    """Bytes of generated text seen in deltas: the floor for settling a stream that was cut. Escapes count as
    one byte, thinking that upstream does not show counts nothing: never more than there was."""
    parse_errors: int = 0


def read_usage(raw: Mapping[str, object], *, model: str | None = None) -> Usage:
    """A `usage` object. Fields that are absent, null or no counts are zero; `model` is the message's.

    - The total of cache writes is authoritative, the split by TTL says how much of it is 1h; the rest, or all
      where there is no split, is 5m. So what a server-tool loop adds after `message_start` counts as 5m: its
      automatic breakpoint always is (tool use with prompt caching docs, 2026-08-21).
    - Compaction and advisor iterations are outside the totals (compaction docs, 2026-09-23). Where upstream
      lists only such, the totals stand in as one more iteration; and where an entry within them cannot be
      read, for all of these.
    """
    totals = _read_counts(raw, model)
    listed = [entry for entry in as_list(raw.get("iterations")) if isinstance(entry, dict)]
    entries = [entry for entry in listed if is_readable(entry)]
    if len(entries) < len(listed):
        entries = [entry for entry in entries if not is_within_totals(entry)]
    if not entries:
        return totals
    iterations = tuple(_read_counts(entry, model) for entry in entries)
    if not any(is_within_totals(entry) for entry in entries):
        iterations = (totals, *iterations)
    return replace(totals, iterations=iterations)


def _read_counts(raw: Mapping[str, object], model: str | None) -> Usage:
    split = as_dict(raw.get("cache_creation"))
    write_5m = _count(split, "ephemeral_5m_input_tokens")
    write_1h = _count(split, "ephemeral_1h_input_tokens")
    written = raw.get("cache_creation_input_tokens")
    if is_count(written):
        write_1h = min(write_1h, written)
        write_5m = written - write_1h
    tools = as_dict(raw.get("server_tool_use"))
    # The tokens are those reported where a fallback credit was redeemed, too: whether upstream has moved them
    # already is not documented, and this never says too little.
    return Usage(
        uncached_input_tokens=_count(raw, "input_tokens"),
        cache_read_tokens=_count(raw, "cache_read_input_tokens"),
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        output_tokens=_count(raw, "output_tokens"),
        web_search_requests=_count(tools, "web_search_requests"),
        web_fetch_requests=_count(tools, "web_fetch_requests"),
        code_execution_requests=_count(tools, "code_execution_requests"),
        model=as_text(raw.get("model")) or model,
        service_tier=as_text(raw.get("service_tier")),
        inference_geo=as_text(raw.get("inference_geo")),
        speed=as_text(raw.get("speed")),
    )


def is_readable(raw: Mapping[str, object]) -> bool:
    """Whether a usage object or an iteration says what went in and what came out. The API's always do: of one
    that does not, nothing is known, least of all that it cost nothing."""
    return all(is_count(raw.get(name)) for name in _ALWAYS)


def unread_counts(raw: Mapping[str, object]) -> int:
    """How many counts of a usage object are none or lacking, and how many iterations cannot be read."""
    counts = ((name, raw.get(name)) for name in COUNTS)
    odd = sum(not is_count(value) for name, value in counts if value is not None or name in _ALWAYS)
    entries = (entry for entry in as_list(raw.get("iterations")) if isinstance(entry, dict))
    return odd + sum(not is_readable(entry) for entry in entries)


def is_within_totals(iteration: Mapping[str, object]) -> bool:
    return iteration.get("type") in ("message", "fallback_message")


def is_count(value: object) -> TypeGuard[int]:
    """Whether a JSON value can be a number of tokens."""
    return type(value) is int and 0 <= value <= MAX_TOKENS


def _count(raw: Mapping[str, object], name: str) -> int:
    value = raw.get(name)
    return value if is_count(value) else 0


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS else None


def as_dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
