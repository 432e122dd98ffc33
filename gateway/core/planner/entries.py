"""What upstream is believed to have cached: kept from what was sent, corrected by what was billed.

An entry can be read from the first byte of the answer to the request that wrote it, and lives its TTL from
the sending of the request that wrote or read it (prompt caching docs, 2026-08-21).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.core.misses import Miss, MissCause
from gateway.core.planner.index import GONE, HOUR, LAYERED, WRITTEN, PrefixTable
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    LOOKBACK_BLOCKS,
    ONE_HOUR_SECONDS,
    Decision,
    Question,
)

_HOLDS = WRITTEN | HOUR | LAYERED | GONE


class Found(msgspec.Struct, gc=False):
    """What of a prompt is cached."""

    read_at: int
    """Deepest block whose prefix can be read, or -1."""
    pending_at: int
    """Deepest block beyond it whose prefix is being written, or -1."""
    hour_at: int
    """Deepest block, up to `read_at`, whose entry has an hour's TTL, or -1."""


class Entries:
    """Entries by prefix; those that are in flight beside them."""

    def __init__(self, table: PrefixTable) -> None:
        self.table = table
        self.pending: dict[int, int] = {}
        """Key of a prefix that is being written: the request that writes it."""

    def find(self, question: Question, slots: Sequence[int], now: float) -> Found:
        expires, flags, pending, keys = self.table.expires, self.table.flags, self.pending, question.keys
        read_at = pending_at = -1
        # A block that is left out of the prefix has the key of the one before it, and takes no breakpoint.
        unmarkable = question.unmarkable if question.fixed is None else frozenset()
        for block in range(len(slots) - 1, -1, -1):
            slot = slots[block]
            if slot < 0 or expires[slot] <= now or block in unmarkable:
                continue
            if keys[block] in pending:
                pending_at = pending_at if read_at >= 0 else max(pending_at, block)
                continue
            if read_at < 0:
                read_at = block
            if flags[slot] & HOUR:
                return Found(read_at, pending_at, block)
        return Found(read_at, pending_at, -1)

    def writing(self, question: Question, slots: Sequence[int], now: float) -> int:
        """`Found.pending_at`, for who asks for no more."""
        if self.pending:
            expires = self.table.expires
            for block in reversed(question.known_at or range(len(slots))):
                if slots[block] >= 0 and expires[slots[block]] > now:
                    return block if question.keys[block] in self.pending else -1
        return -1

    def reach(
        self, fixed: Sequence[tuple[int, bool]], keys: Sequence[int], slots: Sequence[int], now: float
    ) -> int:
        """The deepest block that breakpoints at `fixed` read, or -1: each searches back so far only."""
        expires, best = self.table.expires, -1
        for block, _ in fixed:
            for at in range(block, max(best, block - LOOKBACK_BLOCKS), -1):
                live = at < len(slots) and slots[at] >= 0 and expires[slots[at]] > now
                if live and keys[at] not in self.pending:
                    best = at
                    break
        return best

    def alive(self, question: Question, slots: Sequence[int], block: int, now: float) -> bool:
        """Whether this block's prefix can be read."""
        slot = slots[block] if block < len(slots) else -1
        return slot >= 0 and self.table.expires[slot] > now and question.keys[block] not in self.pending

    def send(self, question: Question, slots: Sequence[int], decision: Decision, now: float) -> list[int]:
        """The request goes out with these breakpoints: keys of the prefixes that it writes."""
        table, keys, written, read_at = self.table, question.keys, [], decision.read_at
        layered = read_at >= 0 and table.flags[slots[read_at]] & (HOUR | LAYERED) != HOUR
        if read_at >= 0:
            self._prolong(slots[read_at], now)
        for mark in decision.marks:
            slot = slots[mark.block]
            if question.ends[mark.block] < question.prices.minimum_tokens:
                continue
            if slot < 0:
                slot = table.add(keys[mark.block], now)
            if table.expires[slot] > now:
                if mark.hour and mark.block > read_at:
                    table.flags[slot] |= HOUR
                self._prolong(slot, now)
            elif mark.block > read_at:
                holds = WRITTEN | (HOUR if mark.hour else 0) | (LAYERED if mark.hour and layered else 0)
                table.flags[slot] = table.flags[slot] & ~_HOLDS | holds
                table.expires[slot] = now + (ONE_HOUR_SECONDS if mark.hour else FIVE_MINUTES_SECONDS)
                self.pending[keys[mark.block]] = question.id
                written.append(keys[mark.block])
        return written

    def answered(self, request: int, written: Sequence[int]) -> None:
        """The first byte came: what the request wrote can be read."""
        for key in written:
            if self.pending.get(key) == request:
                del self.pending[key]

    def give_up(self, request: int, written: Sequence[int]) -> None:
        """Nobody counts on what the request was to write."""
        self.answered(request, written)
        self.lost(written)

    def lost(self, keys: Sequence[int]) -> None:
        """These were not written after all, or are gone before their time."""
        for key in keys:
            slot = self.table.find(key)
            if slot >= 0:
                self.table.expires[slot] = 0.0
                self.table.flags[slot] |= GONE

    def learn(self, key: int, *, hour: bool, until: float, now: float) -> None:
        """An entry that someone else wrote or read lives until then."""
        slot = self.table.add(key, now)
        self.table.flags[slot] |= WRITTEN | (HOUR if hour else 0)
        self.table.expires[slot] = max(self.table.expires[slot], until)

    def miss(self, question: Question, slots: Sequence[int], read_at: int, now: float) -> Miss | None:
        """Why the deepest known prefix is not read; None where it is."""
        ends, table = question.ends, self.table
        known = len(slots) - 1
        if known <= read_at:
            return None
        read_end = ends[read_at] if read_at >= 0 else 0
        for block in range(known, read_at, -1):
            slot = slots[block]
            if slot < 0 or not table.flags[slot] & WRITTEN:
                continue
            tokens = ends[block] - read_end
            if table.flags[slot] & GONE:
                return Miss(block, MissCause.GONE_EARLY, tokens)
            if table.expires[slot] <= now:
                return Miss(block, MissCause.EXPIRED, tokens, now - table.expires[slot])
            if question.keys[block] in self.pending:
                return Miss(block, MissCause.PARALLEL_TWIN, tokens, now - table.last[slot])
            return Miss(block, MissCause.BEYOND_LOOKBACK, tokens)
        short = question.prices.minimum_tokens - ends[known]
        if short > 0:
            return Miss(known, MissCause.BELOW_MINIMUM, short)
        return Miss(known, MissCause.NEVER_WRITTEN, ends[known] - read_end)

    def _prolong(self, slot: int, now: float) -> None:
        table = self.table
        ttl = ONE_HOUR_SECONDS if table.flags[slot] & HOUR else FIVE_MINUTES_SECONDS
        table.expires[slot] = max(table.expires[slot], now + ttl)
