"""The planner: what to mark in a request, whether to hold it, which prefixes to keep alive.

It learns from requests and reported usage only. No IO, no clock, no randomness: every call brings its
instant, and instants must not go back. Not safe for threads; no call blocks. Losing its state costs money,
never correctness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.planner.choose import Choice
from gateway.core.planner.entries import Entries, Found
from gateway.core.planner.expecting import Expected, expect, watch
from gateway.core.planner.features import NOTHING_SEEN, shape_of
from gateway.core.planner.holds import Holds
from gateway.core.planner.index import HAS_CHILD, HOUR, LAYERED, NEAR, PrefixTable, table_bytes
from gateway.core.planner.ledger import Account, Bounds
from gateway.core.planner.placing import Outlook, as_fixed, place
from gateway.core.planner.reuse import BYTES, Reuse
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    ONE_HOUR_SECONDS,
    Decision,
    Mark,
    PlannerOptions,
    Question,
    Reported,
    Warm,
    Why,
)
from gateway.core.planner.warming import Keeping, Kept

MAX_FLIGHTS = 1 << 16
TRUST_WEIGHT = 9.0
"""Readings of layered entries that the belief in them weighs before any was seen."""
SHORT_READ = 0.85
"""Of what was expected; a billed read below it says that an entry is gone. Counts may be estimates."""


@dataclass(slots=True)
class _Flight:
    """A request that was sent and has not been billed."""

    question: Question
    decision: Decision
    sent_at: float
    first_byte_after: float
    premium: float
    written: list[int]
    read_key: int
    layered: bool
    """Whether it reads a layered entry at an age at which no other can be alive."""


class Planner:
    def __init__(self, options: PlannerOptions | None = None) -> None:
        self.options = options or PlannerOptions()
        self.table = PrefixTable(self.options.capacity)
        self.reuse = Reuse()
        self.accounts: dict[int, Account] = {}
        self.layered_read = self.options.layered_trust * TRUST_WEIGHT
        self.layered_tried = TRUST_WEIGHT
        self._entries = Entries(self.table)
        self._holds = Holds(self.options)
        self._keeping = Keeping()
        self._flights: dict[int, _Flight] = {}
        self._bounds = Bounds(
            opening=self.options.opening_tokens,
            share=self.options.regret_share,
            open_share=self.options.open_share,
        )

    def plan(self, question: Question, now: float, *, may_wait: bool = True) -> Decision:
        """Decide on one request that is about to be sent.

        With `wait_for` in the answer the request must not be sent yet: ask again when that request's first
        byte came, or it failed, or `hold_seconds` are over. Any other answer counts as sent.
        """
        if not question.keys:
            return Decision((), Why.EMPTY)
        if question.id in self._flights:
            self.failed(question.id)
        self.reuse.advance(now)
        shape = shape_of(question.kinds)
        slots = self.table.find_path(question.keys, min(shape.system_end + 1, NEAR))
        if question.fixed is not None:
            found = Found(self._entries.reach(question, slots, now), -1, -1)
        else:
            found = self._entries.find(question, slots, now)
            leader = self._leader(question, found, now) if may_wait else None
            if leader is not None:
                return Decision((), Why.WAITS, wait_for=leader)
        expected = expect(self.table, self.reuse, question, slots, shape, now)
        decision = self._decide(question, slots, found, expected, now)
        self._send(question, slots, found, decision, expected, now)
        return decision

    def answered(self, request: int, now: float) -> None:
        """The first byte of its answer came: what it wrote can be read. Unknown ids: nothing happens."""
        flight = self._flights.get(request)
        if flight is not None and flight.written:
            self._entries.answered(request, flight.written)
            flight.written = []
            self._holds.seen(flight.first_byte_after, now - flight.sent_at)

    def billed(self, request: int, usage: Reported | None, now: float) -> None:
        """Its usage is known; None: take it as expected (shadow mode). Unknown ids: nothing happens."""
        self.answered(request, now)
        flight = self._flights.pop(request, None)
        if flight is None:
            return
        decision, prices = flight.decision, flight.question.prices
        if usage is None:
            written = decision.write_5m_tokens + decision.write_1h_tokens
            uncached = flight.question.ends[-1] - decision.read_tokens - written
            usage = Reported(
                uncached, decision.read_tokens, decision.write_5m_tokens, decision.write_1h_tokens
            )
        self.accounts[flight.question.workspace].settle(
            flight.premium, plain=float(usage.total), cost=usage.cost(prices)
        )
        self._compare(flight, usage)

    def failed(self, request: int) -> None:
        """It was not served: nothing was written or billed. Unknown ids: nothing happens."""
        flight = self._flights.pop(request, None)
        if flight is None:
            return
        self._entries.answered(request, flight.written)
        self._entries.lost(flight.written)
        self.accounts[flight.question.workspace].settle(flight.premium, plain=0.0, cost=0.0)

    def woken(self, now: float) -> list[Warm]:
        """The warm-ups to send now. Each counts as sent and billed as expected."""
        return [warm for kept in self._keeping.due(now) if (warm := self._renew(kept, now)) is not None]

    def warmed(self, warm: Warm, usage: Reported) -> None:
        """A warm-up's usage is known. Need not be told where it is as expected."""
        cost = usage.cost(warm.prices)
        self.accounts[warm.workspace].settle(0.0, plain=0.0, cost=cost - warm.cost)
        if usage.read < SHORT_READ * warm.tokens:
            self._entries.lost([warm.key])
            self._keeping.disproved(warm.key)

    def not_warmed(self, warm: Warm, now: float) -> None:
        """A warm-up was not sent, or failed: it cost nothing and kept nothing alive."""
        self.accounts[warm.workspace].settle(0.0, plain=0.0, cost=-warm.cost)
        slot = self.table.find(warm.key)
        if slot >= 0:
            self.table.expires[slot] = min(self.table.expires[slot], now)

    def next_wake(self) -> float | None:
        """When `woken` should be called next, as far as is known by now."""
        return self._keeping.next_due()

    def learn_entry(self, key: int, *, hour: bool, until: float, now: float) -> None:
        """Another replica wrote or read an entry that lives until then."""
        self._entries.learn(key, hour=hour, until=until, now=now)

    @property
    def trust(self) -> float:
        """Belief that a 1h entry behind a 5m one lives for an hour."""
        return self.layered_read / self.layered_tried

    # What follows is in the order of one request's life.

    def _leader(self, question: Question, found: Found, now: float) -> int | None:
        """The request to wait for, where there is one and what that saves is worth the wait."""
        if found.pending_at <= found.read_at:
            return None
        leader = self._entries.pending[question.keys[found.pending_at]]
        flight = self._flights.get(leader)
        if flight is None:
            return None
        read_end = question.ends[found.read_at] if found.read_at >= 0 else 0
        saving = (question.ends[found.pending_at] - read_end) * (1.0 - question.prices.read)
        wait = flight.sent_at + flight.first_byte_after - now
        return leader if self._holds.worth(leader, saving, wait) else None

    def _decide(
        self, question: Question, slots: Sequence[int], found: Found, expected: Expected, now: float
    ) -> Decision:
        account = self.accounts.setdefault(question.workspace, Account())
        read_end = question.ends[found.read_at] if found.read_at >= 0 else 0

        def allow(premium: float, choices: Sequence[Choice]) -> bool:
            last = choices[-1][0]
            promise = self._promise(question, expected, last.block, last.end - read_end)
            return account.may_stake(premium, promise, self._bounds, now)

        if question.fixed is not None:
            decision = as_fixed(question, question.fixed, found.read_at)
        else:
            alive = [
                block
                for block in expected.shared
                if block < found.read_at and self._entries.alive(question, slots, block, now)
            ]
            alive.sort(key=lambda block: self.table.expires[slots[block]])
            outlook = Outlook(found.read_at, found.hour_at, alive, expected.tail, expected.shared, self.trust)
            decision = place(question, outlook, allow)
        if found.read_at < len(slots) - 1:
            return decision.with_miss(self._entries.miss(question, slots, found.read_at, now))
        return decision

    def _promise(self, question: Question, expected: Expected, block: int, written: int) -> float:
        """What reads of so many written tokens up to `block` will earn within 5 min, by what was seen of
        their kind alone."""
        proven = self.reuse.proven(expected.contexts_at(block)[-2:])
        return proven * written * (1.0 - question.prices.read)

    def _send(
        self,
        question: Question,
        slots: list[int],
        found: Found,
        decision: Decision,
        expected: Expected,
        now: float,
    ) -> None:
        table, keys, prices = self.table, question.keys, question.prices
        read_at = found.read_at
        if len(self._flights) >= MAX_FLIGHTS:
            self.failed(next(iter(self._flights)))
        layered = read_at >= 0 and bool(table.flags[slots[read_at]] & LAYERED)
        if layered:
            refreshed_at = table.expires[slots[read_at]] - ONE_HOUR_SECONDS
            layered = now - refreshed_at > FIVE_MINUTES_SECONDS
        self._remember(keys, slots, now)
        if read_at >= 0:
            table.last[slots[read_at]] = now
        written = self._entries.send(question, slots, read_at, decision, now)
        premium = decision.write_5m_tokens * (prices.write_5m - 1.0)
        premium += decision.write_1h_tokens * (prices.write_1h - 1.0)
        self._stake(question, decision, expected, premium, now)
        uncached = question.ends[-1] - decision.read_tokens
        self._flights[question.id] = _Flight(
            question=question,
            decision=decision,
            sent_at=now,
            first_byte_after=self._holds.first_byte_after(uncached, decision.read_tokens),
            premium=premium,
            written=written,
            read_key=keys[read_at] if read_at >= 0 else 0,
            layered=layered,
        )
        self._holds.sent()
        watch(self.reuse, keys, expected, now)
        if self.options.warming and question.warmable and decision.marks:
            self._keep(question, slots, decision, expected, now)

    def _remember(self, keys: Sequence[int], slots: list[int], now: float) -> None:
        """The deepest prefixes of this prompt were accessed; those that are new become known. What is looked
        at and was forgotten is taken in again."""
        table, flags = self.table, self.table.flags
        known = len(slots) - 1
        for block in range(max(0, known - NEAR), known + 1):
            if slots[block] < 0 or block == known:
                slots[block] = table.add(keys[block], now)
        slots.extend([table.add(key, now) for key in keys[known + 1 :]])
        for slot in slots[max(known, 0) : -1]:
            flags[slot] |= HAS_CHILD

    def _stake(
        self, question: Question, decision: Decision, expected: Expected, premium: float, now: float
    ) -> None:
        promise = 0.0
        if premium > 0.0:
            written = decision.write_5m_tokens + decision.write_1h_tokens
            promise = self._promise(question, expected, decision.marks[-1].block, written)
        account = self.accounts[question.workspace]
        account.stake(premium, promise, now + FIVE_MINUTES_SECONDS)

    def _keep(
        self, question: Question, slots: Sequence[int], decision: Decision, expected: Expected, now: float
    ) -> None:
        """Consider for keeping alive: the deepest entry of this prompt, and its deepest shared one."""
        keys, ends, table = question.keys, question.ends, self.table
        hour_end = max(
            (ends[m.block] for m in decision.marks if table.flags[slots[m.block]] & HOUR), default=0
        )
        system_end = expected.system_end
        by_others = ends[system_end] * expected.shared[system_end].five if system_end >= 0 else 0.0
        shared = [mark.block for mark in decision.marks if mark.block in expected.shared]
        for block in {decision.marks[-1].block, *shared[-1:]}:
            slot = slots[block]
            if table.expires[slot] <= now:
                continue
            hour = bool(table.flags[slot] & HOUR)
            kept = Kept(
                request=question.id,
                block=block,
                key=keys[block],
                tokens=ends[block],
                tokens_saved=ends[block]
                - max(0 if hour else hour_end, by_others if block > system_end else 0),
                hour=hour,
                since=now,
                workspace=question.workspace,
                prices=question.prices,
                outlook=expected.at(block),
            )
            if self._keeping.pays(kept):
                kept.outlook = self.reuse.chances(expected.contexts_at(block), NOTHING_SEEN)
                self._keeping.consider(kept)

    def _renew(self, kept: Kept, now: float) -> Warm | None:
        """The warm-up for an entry whose lifetime nears its end, if it is still there and nobody came."""
        table = self.table
        slot = table.find(kept.key)
        if slot < 0:
            return None
        came = table.last[slot] > kept.since
        self._keeping.judge(kept, came)
        if came or table.expires[slot] <= now or not self._keeping.pays(kept):
            return None
        account = self.accounts.setdefault(kept.workspace, Account())
        if not account.may_stake(kept.cost, 0.0, self._bounds, now):
            return None
        account.settle(0.0, plain=0.0, cost=kept.cost)
        table.expires[slot] = now + kept.lifetime_seconds
        mark = Mark(kept.block, kept.hour, Why.REFRESH, tokens=kept.tokens)
        warm = Warm(
            request=kept.request,
            upto=kept.block,
            marks=(mark,),
            tokens=kept.tokens,
            chance=kept.chance(),
            workspace=kept.workspace,
            key=kept.key,
            cost=kept.cost,
            prices=kept.prices,
        )
        self._keeping.renewed(kept, now)
        return warm

    def _compare(self, flight: _Flight, usage: Reported) -> None:
        """Set right what was believed of the entry that this request was to read."""
        expected = flight.decision.read_tokens
        if not expected or not usage.total:
            return
        read = usage.read * flight.question.ends[-1] / usage.total
        came = read >= SHORT_READ * expected
        if flight.layered:
            self.layered_tried += 1.0
            self.layered_read += came
        if not came:
            self._entries.lost([flight.read_key])
            self._keeping.disproved(flight.read_key)


def total_bytes(options: PlannerOptions) -> int:
    """Memory of the planner's tables: taken at once, never more."""
    return table_bytes(options.capacity) + BYTES
