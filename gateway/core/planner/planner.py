"""The planner: what to mark in a request, whether to hold it, which prefixes to keep alive.

It learns from requests and reported usage only. No IO, no clock, no randomness: every call brings its
instant, and instants must not go back. Not safe for threads; no call blocks. Losing its state costs money,
never correctness.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.planner.choose import Candidate, choose_writes
from gateway.core.planner.features import (
    FIRST_TURN_PRIOR,
    LATER_TURN_PRIOR,
    SHARED_PRIOR,
    Place,
    Shape,
    shape_of,
    shared_contexts,
    tail_contexts,
)
from gateway.core.planner.index import BRANCH, HAS_CHILD, HOUR, LAYERED, WRITTEN, PrefixTable
from gateway.core.planner.ledger import Account
from gateway.core.planner.reuse import Chances, Contexts, Reuse
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    LOOKBACK_BLOCKS,
    MAX_BREAKPOINTS,
    ONE_HOUR_SECONDS,
    Decision,
    Kind,
    Mark,
    Miss,
    MissCause,
    PlannerOptions,
    Question,
    Reported,
    Warm,
    Why,
)

MAX_SHARED = 6
import os
SC=float(os.environ.get('SC','0'));Z=float(os.environ.get('Z','1'));CAP=float(os.environ.get('CAP','0.05'))


@dataclass(slots=True)
class _Flight:
    """A request that was sent and has not been answered."""

    workspace: int
    sent_at: float
    first_byte_at: float
    """As expected."""
    premium: float
    expected_read: int
    total: int
    read_key: int
    layered: bool
    """Whether what it reads is a 1h entry behind a 5m one, at an age at which only that can be alive."""
    writes: list[int] = field(default_factory=list)


class Planner:
    def __init__(self, options: PlannerOptions | None = None) -> None:
        self.options = options or PlannerOptions()
        self.table = PrefixTable(self.options.capacity)
        self.reuse = Reuse()
        self.accounts: dict[int, Account] = {}
        self._flights: dict[int, _Flight] = {}
        self._pending: dict[int, int] = {}
        """Key of a prefix that is being written: the request that writes it."""
        self._held: set[int] = set()
        self._requests = 0
        self._held_seconds = 0.0
        self._layered_good = 9.0 * self.options.layered_trust
        self._layered_all = 9.0

    # ------------------------------------------------------------------------------------------ requests

    def plan(self, question: Question, now: float) -> Decision:
        """Decide on one request that is about to be sent."""
        if not question.keys:
            return Decision((), Why.EMPTY)
        self.reuse.advance(now)
        slots = self.table.find_all(question.keys)
        read_at, pending_at = self._live(question, slots, now)
        if pending_at > read_at and question.id not in self._held:
            leader = self._worth_waiting(question, read_at, pending_at, now)
            if leader is not None:
                return Decision((), Why.WAITS, wait_for=leader)
        self._held.discard(question.id)
        self._requests += 1
        return self._place(question, slots, read_at, now)

    def _live(self, question: Question, slots: list[int], now: float) -> tuple[int, int]:
        """The deepest block whose prefix can be read now, and the deepest whose prefix is in flight."""
        expires, pending = self.table.expires, self._pending
        pending_at = -1
        for block in range(len(slots) - 1, -1, -1):
            slot = slots[block]
            if slot >= 0 and expires[slot] > now:
                if question.keys[block] not in pending:
                    return block, pending_at
                pending_at = max(pending_at, block)
        return -1, pending_at

    def _worth_waiting(self, question: Question, read_at: int, pending_at: int, now: float) -> int | None:
        """The request to wait for, where what that saves is worth the wait."""
        leader = self._pending[question.keys[pending_at]]
        flight = self._flights.get(leader)
        if flight is None:
            return None
        options = self.options
        wait = max(0.05, flight.first_byte_at - now)
        tokens = question.ends[pending_at] - (question.ends[read_at] if read_at >= 0 else 0)
        saving = tokens * (1.0 - question.prices.read)
        budget = options.hold_opening_seconds + options.hold_share_seconds * self._requests
        if wait > options.hold_seconds or saving < wait * options.hold_tokens_per_second:
            return None
        if self._held_seconds + wait > budget:
            return None
        self._held_seconds += wait
        self._held.add(question.id)
        return leader

    def _place(self, question: Question, slots: list[int], read_at: int, now: float) -> Decision:
        table, keys, ends = self.table, question.keys, question.ends
        known = len(slots) - 1
        pause = now - table.last[slots[known]] if known >= 0 else 0.0
        shape = shape_of(question.kinds)
        accessed = self.reuse.accessed
        for block in range(known + 1):
            accessed(keys[block], now)
        if 0 <= known < len(keys) - 1 and table.flags[slots[known]] & HAS_CHILD:
            table.flags[slots[known]] |= BRANCH
        elif known == len(keys) - 1:
            table.flags[slots[known]] |= BRANCH
        tail_ctx = tail_contexts(question, shape, known, pause)
        tail = self.reuse.chances(tail_ctx, LATER_TURN_PRIOR if shape.answers else FIRST_TURN_PRIOR)
        shared = self._shared(question, slots, shape)
        decision, marks_at = self._choose(question, slots, read_at, tail, shared, now, tail_ctx)
        self._commit(question, slots, read_at, decision, now)
        self.reuse.watch_all([(keys[b], ctx) for b, (ctx, _) in shared.items() if b != len(keys) - 1], now)
        if len(keys) - 1 in shared:
            self.reuse.watch(keys[-1], shared[len(keys) - 1][0], now)
        else:
            self.reuse.watch(keys[-1], tail_ctx, now)
        return decision

    def _shared(
        self, question: Question, slots: list[int], shape: Shape
    ) -> dict[int, tuple[Contexts, Chances]]:
        """Boundaries that several prompts are expected to share, with what to expect of them."""
        table = self.table
        places: dict[int, Place] = {}
        for block in range(len(slots) - 1, -1, -1):
            if len(places) >= MAX_SHARED - 2:
                break
            if slots[block] >= 0 and table.flags[slots[block]] & BRANCH:
                places[block] = Place.BRANCH
        if 0 <= shape.tools_end:
            places[shape.tools_end] = Place.TOOLS_END
        if 0 <= shape.system_end:
            places[shape.system_end] = Place.SYSTEM_END
        found: dict[int, tuple[Contexts, Chances]] = {}
        for block in sorted(places):
            slot = slots[block] if block < len(slots) else -1
            accesses = table.accesses[slot] if slot >= 0 else 0
            contexts = shared_contexts(question, places[block], block, accesses)
            found[block] = (contexts, self.reuse.chances(contexts, SHARED_PRIOR))
        return found

    def _choose(self, question, slots, read_at, tail, shared, now, tail_ctx):
        prices, ends, keys, table = question.prices, question.ends, question.keys, self.table
        self.accounts.setdefault(question.workspace, Account())
        last = len(keys) - 1
        read_end = ends[read_at] if read_at >= 0 else 0
        minimum = prices.minimum_tokens
        if ends[-1] < minimum:
            return Decision((), Why.TOO_SHORT), None
        # 1h entries below the read that can be prolonged
        hour_at = -1
        for b in range(read_at, -1, -1):
            s = slots[b]
            if s >= 0 and table.expires[s] > now and table.flags[s] & HOUR and keys[b] not in self._pending:
                hour_at = b
                break
        hour_end = ends[hour_at] if hour_at >= 0 else 0
        trust = self._layered_good / self._layered_all
        layer = (read_end - hour_end) * tail.hour * (prices.write_5m - prices.read) * trust
        blocks = {b for b in shared if b > read_at}
        first = read_at + 1
        while first < last and (ends[first] < minimum or first in question.unmarkable):
            first += 1
        end_block = last
        while end_block > read_at and end_block in question.unmarkable:
            end_block -= 1
        if 0 <= read_at < last and layer > 0:
            blocks.add(first)
        if end_block > read_at:
            blocks.add(end_block)
        candidates = []
        five, hour = tail.five, tail.hour
        for b in sorted(blocks, reverse=True):
            if ends[b] < minimum or b in question.unmarkable:
                continue
            if b in shared:
                c = shared[b][1]
                f = max(five, c.five)
                w = max(five + hour, c.five + c.hour)
                candidates.append(Candidate(b, ends[b], f, max(0.0, w - f), b != end_block or b in shared, layer))
                five, hour = f, max(0.0, w - f)
            else:
                candidates.append(Candidate(b, ends[b], five, hour, False, layer))
        candidates.reverse()
        reserve = 1 if hour_at >= 0 and hour_at < read_at else 0
        gain, chosen = choose_writes(candidates, read_end, prices, MAX_BREAKPOINTS - reserve)
        why = Why.WRITE_TAIL if chosen else Why.NOTHING_PAYS
        account = self.accounts[question.workspace]
        o = self.options
        while chosen:
            premium = self._premium(chosen, read_end, prices)
            used = max(0.0, account.at_stake - account.saved) / max(o.opening_tokens, o.regret_share * account.plain)
            p=self.reuse.proven(tail_ctx[-2:], Z) if CAP else 0.0
            self._credit=min(premium, p*(1-prices.read)*(chosen[-1][0].end-read_end))
            if account.may_stake(premium, self._credit, now=now, cap=CAP, opening=o.opening_tokens, share=o.regret_share) and gain >= used * SC * premium:
                break
            chosen = chosen[:-1]
            why = Why.LOSS_BOUND
        marks = []
        wrote = read_end
        for c, h in chosen:
            w = Why.WRITE_SHARED if c.block in shared else Why.WRITE_TAIL if c.block == end_block else Why.WRITE_LAYER
            marks.append(Mark(c.block, h, w, c.five, c.five + c.hour, c.end - wrote))
            wrote = c.end
        any_hour = any(h for _, h in chosen)
        room = MAX_BREAKPOINTS - len(marks)
        extra = []
        if read_at >= 0:
            if not chosen or chosen[0][0].block - read_at >= LOOKBACK_BLOCKS:
                extra.append(Mark(read_at, any_hour, Why.READ, tokens=read_end))
            if reserve and len(extra) < room:
                extra.append(Mark(hour_at, any_hour, Why.REFRESH, tokens=hour_end))
            for b in sorted(shared, reverse=True):
                if len(extra) >= room:
                    break
                if b < read_at and b != hour_at and slots[b] >= 0 and table.expires[slots[b]] > now and keys[b] not in self._pending:
                    extra.append(Mark(b, any_hour, Why.REFRESH, tokens=ends[b]))
        marks = sorted([*extra, *marks], key=lambda m: m.block)
        w5 = w1 = 0
        for m in marks:
            if m.block > read_at:
                if m.hour: w1 = ends[m.block] - read_end
        if marks and marks[-1].block > read_at:
            w5 = ends[marks[-1].block] - read_end - w1
        return Decision(tuple(marks), why, read_tokens=read_end, write_5m_tokens=w5, write_1h_tokens=w1), None

    def _premium(self, chosen, read_end, prices):
        hour_end = max([c.end for c, h in chosen if h], default=read_end)
        return (hour_end - read_end) * (prices.write_1h - 1) + (chosen[-1][0].end - hour_end) * (prices.write_5m - 1)

    def _commit(self, question, slots, read_at, decision, now):
        table, keys, ends, prices = self.table, question.keys, question.ends, question.prices
        last = len(keys) - 1
        known = len(slots) - 1
        flags, lastat, acc = table.flags, table.last, table.accesses
        for b, s in enumerate(slots):
            if s < 0:
                s = slots[b] = table.add(keys[b], now)
            lastat[s] = now
            if acc[s] < 255:
                acc[s] += 1
            if b < last:
                flags[s] |= HAS_CHILD
        for b in range(known + 1, last + 1):
            s = table.add(keys[b], now)
            acc[s] = 1
            flags[s] = HAS_CHILD if b < last else 0
            slots.append(s)
        layered = False
        if read_at >= 0:
            s = slots[read_at]
            table.expires[s] = max(table.expires[s], now + (ONE_HOUR_SECONDS if flags[s] & HOUR else FIVE_MINUTES_SECONDS))
        cached = decision.read_tokens
        total = ends[-1]
        flight = _Flight(question.workspace, now, now + 0.6 + (total - cached) / 15000 + cached / 150000,
            decision.write_5m_tokens * (prices.write_5m - 1) + decision.write_1h_tokens * (prices.write_1h - 1),
            cached, total, keys[read_at] if read_at >= 0 else 0, layered)
        for m in decision.marks:
            s = slots[m.block]
            ttl = ONE_HOUR_SECONDS if m.hour else FIVE_MINUTES_SECONDS
            if m.block <= read_at:
                if table.expires[s] > now:
                    table.expires[s] = max(table.expires[s], now + (ONE_HOUR_SECONDS if flags[s] & HOUR else FIVE_MINUTES_SECONDS))
            elif table.expires[s] > now:
                if m.hour: flags[s] |= HOUR
                table.expires[s] = max(table.expires[s], now + (ONE_HOUR_SECONDS if flags[s] & HOUR else FIVE_MINUTES_SECONDS))
            else:
                flags[s] = (flags[s] & ~HOUR) | (HOUR if m.hour else 0) | WRITTEN
                table.expires[s] = now + ttl
                self._pending[keys[m.block]] = question.id
                flight.writes.append(keys[m.block])
        self.accounts[question.workspace].stake(flight.premium, self._credit if flight.premium else 0.0, now+300)
        self._flights[question.id] = flight

    def responded(self, id: int, usage: Reported, prices, now: float) -> None:
        flight = self._flights.pop(id, None)
        if flight is None:
            return
        for k in flight.writes:
            if self._pending.get(k) == id:
                del self._pending[k]
        plain = usage.uncached + usage.read + usage.write_5m + usage.write_1h
        cost = usage.uncached + usage.read * prices.read + usage.write_5m * prices.write_5m + usage.write_1h * prices.write_1h
        self.accounts[flight.workspace].settle(flight.premium, plain=plain, cost=cost)
        self.mismatch = getattr(self, 'mismatch', 0) + (usage.read != flight.expected_read)

    def next_wake(self):
        return None
