"""The prompt cache of the API, by its documented rules: what a request reads, writes, and pays for.

Pure: time is an argument, nothing is parsed here. This file is the independent witness of the gateway's
placement, so it must not import the gateway's prompt, prefix, placement, edit or pricing code (an import
contract forbids it). Turning a request into positions is `prompt.py`; money is `bill.py`.

All rules are from the prompt caching page (2026-08-21, re-quoted 2026-09-24) unless said otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOOKBACK: Final = 20
"""Positions searched at a breakpoint, the breakpoint itself included."""

_SWEEP_EVERY: Final = 1024


class Ttl(enum.Enum):
    FIVE_MINUTES = "5m"
    ONE_HOUR = "1h"

    @property
    def seconds(self) -> float:
        return 300.0 if self is Ttl.FIVE_MINUTES else 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheScope:
    """Who may share an entry: a workspace (since 2026-02-05), a model, a speed (fast mode page)."""

    workspace: str
    model: str
    speed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One block of a rendered prompt: the key of everything up to and including it, and its size."""

    key: bytes
    end_tokens: int
    """Tokens of the whole prefix that ends here."""
    mark: Ttl | None = None
    """A breakpoint on this block, with its TTL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWrite:
    """An entry that becomes readable with the first byte of the response."""

    scope: CacheScope
    key: bytes
    ttl: Ttl
    expires_at: float
    end_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request's input tokens are billed, and what it will leave in the cache."""

    read_tokens: int
    write_5m_tokens: int
    write_1h_tokens: int
    uncached_tokens: int
    writes: tuple[PendingWrite, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        return self.read_tokens + self.write_5m_tokens + self.write_1h_tokens + self.uncached_tokens


@dataclass(slots=True)
class _Entry:
    ttl: Ttl
    expires_at: float
    end_tokens: int


class PromptCache:
    """Every entry of every scope. `open` at a request's start, `publish` at its response's first byte."""

    def __init__(self) -> None:
        self._entries: dict[tuple[CacheScope, bytes], _Entry] = {}
        self._opened = 0

    def __len__(self) -> int:
        return len(self._entries)

    def open(
        self,
        scope: CacheScope,
        positions: Sequence[Position],
        *,
        total_tokens: int,
        minimum_tokens: int,
        at: float,
    ) -> Outcome:
        """Look up every breakpoint, refresh what is found, and plan what will be written.

        `total_tokens` is the whole prompt; what lies after the last breakpoint is plain input. A breakpoint
        below `minimum_tokens` of cumulative prefix does nothing, silently. Lifetimes count from `at`, the
        start of the request, also on a hit, which prolongs an entry by the entry's own TTL.
        """
        self._sweep_at_times(at)
        marks = [
            (index, position.mark)
            for index, position in enumerate(positions)
            if position.mark is not None and position.end_tokens >= minimum_tokens
        ]
        hit_tokens = 0
        hit_index = -1
        for index, _ in marks:
            found = self._look_back(scope, positions, index, at)
            if found is not None and found > hit_index:
                hit_index, hit_tokens = found, positions[found].end_tokens
        pending = tuple(
            PendingWrite(
                scope=scope,
                key=positions[index].key,
                ttl=ttl,
                expires_at=at + ttl.seconds,
                end_tokens=positions[index].end_tokens,
            )
            for index, ttl in marks
            if index > hit_index
        )
        return _billed(hit_tokens, pending, total_tokens)

    def publish(self, outcome: Outcome) -> None:
        """The response has begun: what the request wrote can be read from now on, until it expires."""
        for write in outcome.writes:
            place = (write.scope, write.key)
            there = self._entries.get(place)
            # Requests that raced each other all write; the entry lives as long as the longest of them.
            if there is None or there.expires_at < write.expires_at:
                self._entries[place] = _Entry(write.ttl, write.expires_at, write.end_tokens)

    def clear(self) -> None:
        """Forget everything; the API has no such call, tests and demos do."""
        self._entries.clear()

    def live(self, at: float) -> list[tuple[CacheScope, Ttl, float, int]]:
        """Entries alive at `at`: scope, TTL, when each expires, tokens. For looking at, not for deciding."""
        return [
            (scope, entry.ttl, entry.expires_at, entry.end_tokens)
            for (scope, _), entry in self._entries.items()
            if entry.expires_at >= at
        ]

    def _look_back(
        self, scope: CacheScope, positions: Sequence[Position], index: int, at: float
    ) -> int | None:
        """The nearest position at or before the breakpoint that an earlier request wrote, at most twenty
        positions counting the breakpoint. Every hit refreshes the entry it finds."""
        for candidate in range(index, max(index - LOOKBACK, -1), -1):
            entry = self._entries.get((scope, positions[candidate].key))
            # A TTL is a guaranteed minimum; deletion after it is prompt.
            if entry is not None and entry.expires_at >= at:
                entry.expires_at = max(entry.expires_at, at + entry.ttl.seconds)
                return candidate
        return None

    def _sweep_at_times(self, at: float) -> None:
        self._opened += 1
        if self._opened % _SWEEP_EVERY == 0:
            self._entries = {k: e for k, e in self._entries.items() if e.expires_at >= at}


def _billed(hit_tokens: int, pending: tuple[PendingWrite, ...], total_tokens: int) -> Outcome:
    """Mixed TTLs: A is the longest hit, B the last 1h breakpoint after it (or A), C the last breakpoint.
    Read up to A, 1h write from A to B, 5m write from B to C, plain input after C."""
    a = hit_tokens
    b = max((write.end_tokens for write in pending if write.ttl is Ttl.ONE_HOUR), default=a)
    c = max((write.end_tokens for write in pending), default=a)
    return Outcome(
        read_tokens=a,
        write_1h_tokens=b - a,
        write_5m_tokens=c - b,
        uncached_tokens=total_tokens - c,
        writes=pending,
    )
