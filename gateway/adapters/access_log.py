"""The access log: one line for each exchange, JSON for machines, a short line for a terminal.

Fields come from an allow-list, so nothing enters the log because it happened to be in a record: no prompt,
no credential, no path, no query, no tag. Texts that clients or upstream chose are cut, and what is not
printable in them (line breaks, escape sequences, text direction marks) is escaped.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.batch_writer import BatchWriter
from gateway.core.ledger import billed, usd

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord

WHOLE_BYTES = select.PIPE_BUF
"""Of one write, at most: what several processes write to one pipe stays whole then."""

MAX_TEXT = 120
"""Longest text in a field."""

_encode = msgspec.json.Encoder().encode


class AccessLog:
    """`ports.Observer` that writes lines to a file descriptor from a thread of its own.

    At most `limit` lines wait. Further ones are dropped and counted in `dropped`: the log is for people, the
    books are in the ledger. Writing never blocks the event loop, even where nobody reads the other end.
    """

    def __init__(
        self, fd: int = 1, *, human: bool | None = None, limit: int = 10_000, worker: int | None = None
    ) -> None:
        """`fd`: a file descriptor, which stays its owner's. `human`: short lines; None: on a terminal.
        `worker`: which of several processes writes to it."""
        self.dropped = 0
        self._fd = fd
        self._format = _human_line if (os.isatty(fd) if human is None else human) else json_line
        self._worker = worker
        self._writer: BatchWriter[bytes] = BatchWriter(self._write, name="access log", limit=limit)

    def observe(self, record: ExchangeRecord) -> None:
        if not self._writer.put(self._format(record, self._worker)):
            self.dropped += 1

    def close(self, timeout_seconds: float = 1.0) -> int:
        """Write what waits; how many lines could not be. Blocks for at most a second over the timeout."""
        left = len(self._writer.close(timeout_seconds))
        self.dropped += left
        return left

    def _write(self, lines: list[bytes]) -> None:
        # Straight to the descriptor: a thread that hangs in a buffered stream would hold that stream's lock,
        # and the interpreter could not end.
        try:
            for piece in _pieces(lines):
                self._write_all(piece)
        except (OSError, ValueError):  # nobody reads it any more, or it was closed
            self.dropped += len(lines)

    def _write_all(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                select.select((), (self._fd,), (), 1.0)


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Whole lines together, as many as one write takes."""
    piece: list[bytes] = []
    length = 0
    for line in lines:
        if piece and length + len(line) > WHOLE_BYTES:
            yield b"".join(piece)
            piece, length = [], 0
        piece.append(line)
        length += len(line)
    if piece:
        yield b"".join(piece)


class _Line(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """The allow-list. What an exchange has not is left out of its line."""

    at: str
    id: str
    worker: int | None = None
    endpoint: str
    method: str
    status: int
    state: str
    streaming: bool
    attempts: int
    workspace: str | None = None
    key_id: str | None = None
    model: str | None = None
    route: str | None = None
    upstream_request_id: str | None = None
    error_code: str | None = None
    upstream_error_type: str | None = None
    binding_limit: str | None = None
    breakpoints: int = 0
    cohort: str | None = None
    miss: str | None = None
    held_ms: int = 0
    plan_failed: bool = False
    store_degraded: bool = False
    basis: str | None = None
    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    cost_nanousd: int | None = None
    counterfactual_nanousd: int | None = None
    request_bytes: int
    response_bytes: int
    total_seconds: float
    body_read_seconds: float
    overhead_seconds: float
    upstream_first_byte_seconds: float | None = None
    first_token_seconds: float | None = None


def json_line(record: ExchangeRecord, worker: int | None = None) -> bytes:
    """The line of one exchange, which this worker had. Seconds are rounded to microseconds."""
    timings, principal, cost = record.timings, record.principal, record.cost
    line = _Line(
        at=_instant(record.received_at),
        id=record.id,
        worker=worker,
        endpoint=record.endpoint,
        method=_clean(record.method),
        status=record.status,
        state=record.state.value,
        streaming=record.streaming,
        attempts=record.attempts,
        model=_cleaned(record.model),
        route=record.route,
        upstream_request_id=_cleaned(record.upstream_request_id),
        error_code=record.error_code,
        upstream_error_type=_cleaned(record.upstream_error_type),
        binding_limit=record.binding_limit,
        breakpoints=len(record.placement.breakpoints) if record.placement and record.placement_applied else 0,
        held_ms=round(timings.held_seconds * 1000),
        plan_failed=record.plan_failed,
        store_degraded=record.store_degraded,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        total_seconds=round(timings.total_seconds, 6),
        body_read_seconds=round(timings.body_read_seconds, 6),
        overhead_seconds=round(timings.overhead_seconds, 6),
        upstream_first_byte_seconds=_rounded(timings.upstream_first_byte_seconds),
        first_token_seconds=_rounded(timings.first_token_seconds),
    )
    if principal is not None:
        line.workspace, line.key_id = principal.workspace, principal.key_id
    if record.usage is not None:
        tokens = billed(record.usage)
        line.basis = record.basis.value
        line.uncached_input_tokens = tokens.uncached_input_tokens
        line.cache_read_tokens = tokens.cache_read_tokens
        line.cache_write_5m_tokens = tokens.cache_write_5m_tokens
        line.cache_write_1h_tokens = tokens.cache_write_1h_tokens
        line.output_tokens = tokens.output_tokens
    if (savings := record.savings) is not None:
        line.cohort = savings.cohort.value
        line.miss = None if savings.miss_cause is None else savings.miss_cause.value
    if cost is not None:
        line.cost_nanousd = cost.total_nanousd
        line.counterfactual_nanousd = cost.counterfactual_nanousd
    return _encode(line) + b"\n"


def _human_line(record: ExchangeRecord, worker: int | None = None) -> bytes:
    parts = [
        *([] if worker is None else [f"[{worker}]"]),
        _second(int(record.received_at))[11:],
        str(record.status or "---"),
        record.endpoint,
        record.principal.workspace if record.principal else "-",
        _clean(record.model) if record.model else "-",
        f"{record.timings.total_seconds:.3f}s",
    ]
    if record.usage is not None:
        tokens = billed(record.usage)
        parts.append(
            f"in {tokens.prompt_tokens} (read {tokens.cache_read_tokens}) out {tokens.output_tokens}"
        )
    if record.cost is not None:
        parts.append(f"${usd(record.cost.total_nanousd)[:-3]}")
    if record.error_code or record.upstream_error_type:
        parts.append(record.error_code or _clean(record.upstream_error_type or ""))
    if record.state.value != "answered":
        parts.append(record.state.value)
    return " ".join(parts).encode("utf-8", "backslashreplace") + b"\n"


def _clean(text: str) -> str:
    """Cut, and free of anything that could break a line or act on a terminal. `isprintable` is False for
    control and format characters, line separators and lone surrogates."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _cleaned(text: str | None) -> str | None:
    return None if text is None else _clean(text)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _instant(epoch_seconds: float) -> str:
    """To the millisecond, cut."""
    second = floor(epoch_seconds)
    return f"{_second(second)}.{int((epoch_seconds - second) * 1000):03d}Z"


@lru_cache(maxsize=64)
def _second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
