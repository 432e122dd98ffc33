"""The planner: what to mark in a request, whether to hold it, which prefixes to keep alive.

It learns from requests and reported usage only. No IO, no clock, no randomness: every call brings its
instant, and instants must not go back. Not safe for threads; no call blocks. Losing its state costs money,
never correctness.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gateway.core.planner.choose import Choice
from gateway.core.planner.entries import Entries, Found
from gateway.core.planner.expecting import Boundaries, Expected, access, boundaries, expect, watch
from gateway.core.planner.features import shape_of
from gateway.core.planner.flights import MAX_FLIGHTS, Flight, flight_of
from gateway.core.planner.holds import LATE, Holds
from gateway.core.planner.index import HAS_CHILD, LAYERED, NEAR, PrefixTable
from gateway.core.planner.ledger import Account
from gateway.core.planner.placing import NOTHING_KNOWN, Known, Outlook, as_fixed, place
from gateway.core.planner.reuse import Reuse
from gateway.core.planner.stakes import Stakes
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    ONE_HOUR_SECONDS,
    Decision,
    PlannerOptions,
    Question,
    Reported,
    Warm,
    Why,
)
from gateway.core.planner.warming import Keeping, Kept, may_be_kept, warm_up_of

Marks = Sequence[tuple[int, bool]]
TRUST_WEIGHT = 9.0
"""Readings of layered entries that the belief in them weighs before any was seen."""
NOTHING_READ = Decision((), Why.EMPTY)
SHORT_READ = 0.85
"""Of what was expected; a billed read below it says that an entry is gone. Counts may be estimates."""


class Planner:
    def __init__(self, options: PlannerOptions | None = None) -> None:
        self.options = options or PlannerOptions()
        self.table = PrefixTable(self.options.capacity)
        self.reuse = Reuse()
        self.stakes = Stakes(self.options, self.reuse)
        self.layered_read = self.options.layered_trust * TRUST_WEIGHT
        self.layered_tried = TRUST_WEIGHT
        self.resumed_at: float | None = None
        """When the memory was taken that it went on with; None for one that began with nothing."""
        self._entries = Entries(self.table)
        self._holds = Holds(self.options)
        self._keeping = Keeping()
        self._flights: dict[int, Flight] = {}

    @property
    def accounts(self) -> dict[int, Account]:
        """By workspace: what was decided here."""
        return self.stakes.accounts

    def plan(
        self, question: Question, now: float, *, may_wait: bool = True, may_claim: bool = False
    ) -> Decision:
        """Decide on one request that is about to be sent.

        With `wait_for` in the answer the request must not be sent yet: ask again when that request's first
        byte came, or it failed, or `hold_seconds` are over. With `claims`, which come only where `may_claim`,
        neither: claim them over all replicas, wait for whoever has them, and ask again without `may_claim`.
        Any other answer counts as sent; before it nothing is learned.
        """
        if question.id in self._flights:
            self.failed(question.id)
        if not question.keys:
            return NOTHING_READ
        self.reuse.advance(now)
        if question.fixed is not None:
            return self._follow(question, question.fixed, now)
        shape = shape_of(question.kinds)
        slots = self.table.find_path(question.keys, min(shape.system_end + 1, NEAR))
        found = self._entries.find(question, slots, now)
        while found.pending_at >= 0 and self._overdue(question.keys[found.pending_at], now):
            found = self._entries.find(question, slots, now)
        leader = self._leader(question, found, now) if may_wait else None
        if leader is not None:
            read_end = _end(question, found.read_at)
            saved = question.ends[found.pending_at] - read_end
            return Decision((), Why.WAITS, wait_for=leader, wait_tokens=saved, read_tokens=read_end)
        where = boundaries(self.table, question, slots, shape, now)
        may_claim = may_claim and not where.only_goes_on(question, found.read_at)
        if may_claim and self._worth_claiming(question, found, len(question.ends) - 1):
            decision = self._decide(question, slots, found, where, expect(self.reuse, where), now)
            claimed = [
                mark.block
                for mark in decision.marks
                if mark.block > found.read_at and self._worth_claiming(question, found, mark.block)
            ]
            if claimed:
                saved = question.ends[claimed[0]] - decision.read_tokens
                keys = tuple(question.keys[block] for block in claimed)
                self._holds.waits(question.id, now)
                return replace(decision, claims=keys, wait_tokens=saved)
        access(self.table, self.reuse, question, slots, where, now)
        expected = expect(self.reuse, where)
        decision = self._decide(question, slots, found, where, expected, now)
        self._send(question, slots, decision, where, found.pending_at, now)
        return self._keep(question, slots, decision, where, expected, now)

    def held(self, seconds: float) -> None:
        """A request of another replica, of which is heard now, waited so long before it was sent."""
        self._holds.spent(seconds)

    def answered(self, request: int, now: float) -> None:
        """The first byte of its answer came: what it wrote can be read. Unknown ids: nothing happens."""
        flight = self._flights.get(request)
        if flight is not None and flight.written:
            self._entries.answered(request, flight.written)
            flight.written = []
            if not flight.warm_up:
                self._holds.seen(flight.first_byte_after, now - flight.sent_at)

    def billed(self, request: int, usage: Reported | None, now: float) -> None:
        """Its usage is known; None: take it as expected (shadow mode). Unknown ids: nothing happens."""
        self.answered(request, now)
        flight = self._flights.pop(request, None)
        if flight is None:
            return
        usage = usage or flight.as_expected()
        self.stakes.bill(flight, usage, came=self._compare(flight, usage))

    def failed(self, request: int, *, billed: bool = False) -> None:
        """It was not served: nothing was written, or nobody can tell. `billed`: what it cost is then taken to
        be as expected; otherwise nothing was billed. Unknown ids: nothing happens."""
        self._holds.left(request)
        flight = self._flights.pop(request, None)
        if flight is None:
            return
        self._entries.give_up(request, flight.written)
        self._holds.failed(request)
        if billed:
            self.stakes.bill(flight, flight.as_expected(), came=False)
        else:
            self.stakes.fail(flight)

    def woken(self, now: float) -> list[Warm]:
        """The warm-ups to send now. Each counts as sent and billed as expected."""
        return [warm for kept in self._keeping.due(now) if (warm := self._renew(kept, now)) is not None]

    def warmed(self, warm: Warm, usage: Reported) -> None:
        """A warm-up's usage is known. Need not be told where it is as expected. What it did not read it may
        have written instead, which costs more and is as good for whoever comes."""
        self.stakes.correct(warm, usage.cost(warm.prices))
        if usage.read < SHORT_READ * warm.tokens:
            self._keeping.disproved(warm.key)
            if usage.write_5m + usage.write_1h == 0:
                self._entries.lost([warm.key])

    def not_warmed(self, warm: Warm, now: float) -> None:
        """A warm-up was not sent, or failed: it cost nothing and kept nothing alive."""
        self.stakes.correct(warm, 0.0)
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
        saving = question.ends[found.pending_at] - _end(question, found.read_at)
        taken = now - flight.sent_at
        # One that is not there in time is likely to stay away for as long again.
        wait, late = abs(taken - flight.first_byte_after), taken > LATE * flight.first_byte_after
        if not self._holds.worth(leader, saving * (1.0 - question.prices.read), wait, late=late):
            return None
        self._holds.waits(question.id, now, wait)
        return leader

    def _overdue(self, key: int, now: float) -> bool:
        """Whether the request that writes this prefix should have been answered long ago: it hangs, or its
        answer comes in one piece. Whoever comes next then writes anew, or finds that it can be read."""
        leader = self._entries.pending[key]
        flight = self._flights.get(leader)
        if flight is None or now - flight.sent_at <= flight.first_byte_after + self.options.hold_seconds:
            return False
        self._entries.give_up(leader, flight.written)
        flight.written = []
        return True

    def _worth_claiming(self, question: Question, found: Found, block: int) -> bool:
        """Whether a request with the same prefix up to this block, arriving now, had better wait for this
        one's first byte."""
        read_end = _end(question, found.read_at)
        saving = (question.ends[block] - read_end) * (1.0 - question.prices.read)
        return self._holds.pays(saving, self._holds.first_byte_after(question.ends[-1] - read_end, read_end))

    def _follow(self, question: Question, fixed: Marks, now: float) -> Decision:
        """Learn from a request that goes out with these breakpoints, whoever decided them."""
        shape = shape_of(question.kinds)
        slots = self.table.find_known(question.keys, question.known_at) if question.known_at else []
        if not slots:
            if question.known_at:
                question = replace(question, known_at=())
            slots = self.table.find_path(question.keys, min(shape.system_end + 1, NEAR))
        where = boundaries(self.table, question, slots, shape, now)
        decision = self._as_fixed(question, fixed, slots, where, now)
        if question.warm_up:
            self._send_warm_up(question, slots, decision, now)
            return decision
        pending_at = self._entries.writing(question, slots, now)
        begins_at = _end(question, max(decision.read_at, pending_at))
        alone = question.otherwise
        if alone is not None and not self.stakes.allow_added(question, decision, where, begins_at, now):
            question = replace(question, fixed=alone, decided=False)
            decision = self._as_fixed(question, alone, slots, where, now)
            decision = replace(decision, why=Why.LOSS_BOUND)
        access(self.table, self.reuse, question, slots, where, now)
        own = self._as_fixed(question, question.own, slots, where, now) if question.own else None
        self._send(question, slots, decision, where, pending_at, now)
        if own is not None and question.decided:
            self._flights[question.id].alone = own.share_of(question)
        if not self.options.warming or not question.warmable:
            return decision
        return self._keep(question, slots, decision, where, expect(self.reuse, where), now)

    def _as_fixed(
        self, question: Question, fixed: Marks, slots: Sequence[int], where: Boundaries, now: float
    ) -> Decision:
        read_at = self._entries.reach(fixed, question.keys, slots, now)
        return as_fixed(question, fixed, read_at, self._known(question, slots, read_at, where, now))

    def _decide(
        self,
        question: Question,
        slots: Sequence[int],
        found: Found,
        where: Boundaries,
        expected: Expected,
        now: float,
    ) -> Decision:
        begins_at = _end(question, max(found.read_at, found.pending_at))

        def allow(premium: float, choices: Sequence[Choice]) -> bool:
            promise = self.stakes.promise(question, where, choices[-1][0].block, begins_at)
            return self.stakes.allow(question, premium, promise, now)

        alive = [
            block
            for block in expected.shared
            if block < found.read_at and self._entries.alive(question, slots, block, now)
        ]
        alive.sort(key=lambda block: self.table.expires[slots[block]])
        outlook = Outlook(
            found.read_at,
            found.hour_at,
            alive,
            expected.tail,
            expected.shared,
            self.trust,
            found.pending_at,
        )
        return place(question, outlook, allow, self._known(question, slots, found.read_at, where, now))

    def _known(
        self, question: Question, slots: Sequence[int], read_at: int, where: Boundaries, now: float
    ) -> Known:
        """What was known of the prompt, and why not all of that is read."""
        if not slots:
            return NOTHING_KNOWN
        goes_on, upto = bool(self.table.flags[slots[-1]] & HAS_CHILD), len(slots) - 1
        at = {*where.accesses, upto} if read_at < 0 else {*where.accesses, read_at, upto}
        return Known(upto, goes_on, self._entries.miss(question, slots, read_at, now), tuple(sorted(at)))

    def _send(
        self,
        question: Question,
        slots: list[int],
        decision: Decision,
        where: Boundaries,
        pending_at: int,
        now: float,
    ) -> None:
        """It goes out. What is written up to `pending_at`, another request is writing too."""
        table, keys, read_at = self.table, question.keys, decision.read_at
        layered = read_at >= 0 and bool(table.flags[slots[read_at]] & LAYERED)
        if layered:
            refreshed_at = table.expires[slots[read_at]] - ONE_HOUR_SECONDS
            layered = now - refreshed_at > FIVE_MINUTES_SECONDS
        table.remember(keys, slots, now)
        if read_at >= 0:
            table.last[slots[read_at]] = now
        flight = self._take_off(question, slots, decision, now, layered=layered)
        if question.decided:
            self.stakes.send(question, decision, where, _end(question, max(read_at, pending_at)), now)
        elif flight.read_key:
            flight.bridged = self._keeping.bridged(flight.read_key, now)
        self._holds.sent()
        self._holds.let_go(question.id, now)
        watch(self.reuse, keys, where, now)

    def _send_warm_up(self, question: Question, slots: list[int], decision: Decision, now: float) -> None:
        """Nobody asked for this prompt: only its entries are learned, and no prefix was accessed."""
        keys, known = question.keys, len(slots)
        slots.extend([-1] * (len(keys) - known))
        for mark in decision.marks:
            if slots[mark.block] < 0:
                found = self.table.find(keys[mark.block])
                slots[mark.block] = found if found >= 0 else self.table.add(keys[mark.block], now)
        self._take_off(question, slots, decision, now, layered=False)

    def _take_off(
        self, question: Question, slots: Sequence[int], decision: Decision, now: float, *, layered: bool
    ) -> Flight:
        if len(self._flights) >= MAX_FLIGHTS:
            self.failed(next(iter(self._flights)))
        uncached = _end(question, len(question.ends) - 1) - decision.read_tokens
        flight = self._flights[question.id] = flight_of(
            question,
            decision,
            now,
            first_byte_after=self._holds.first_byte_after(uncached, decision.read_tokens),
            written=self._entries.send(question, slots, decision, now),
            layered=layered,
        )
        return flight

    def _keep(
        self,
        question: Question,
        slots: Sequence[int],
        decision: Decision,
        where: Boundaries,
        expected: Expected,
        now: float,
    ) -> Decision:
        """Take up what is worth being kept alive of what was just sent."""
        if not (self.options.warming and question.warmable and decision.marks):
            return decision
        found = may_be_kept(question, slots, self.table, decision, where, expected, now)
        upto = self._keeping.take_up(found, where, self.reuse)
        return decision if upto is None else replace(decision, keep_upto=upto)

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
        if not self.stakes.renew(kept, now):
            return None
        table.expires[slot] = now + kept.lifetime_seconds
        warm = warm_up_of(kept)
        self._keeping.renewed(kept, now)
        return warm

    def _compare(self, flight: Flight, usage: Reported) -> bool:
        """Set right what was believed of the entry that this request was to read; whether it was read."""
        expected = flight.read_tokens
        if not expected or not usage.total:
            return False
        read = usage.read * flight.tokens / usage.total
        came = read >= SHORT_READ * expected
        if flight.layered:
            self.layered_tried += 1.0
            self.layered_read += came
        if not came:
            self._keeping.disproved(flight.read_key)
            if not (flight.marks_read and usage.write_5m + usage.write_1h):
                self._entries.lost([flight.read_key])
        return came


def _end(question: Question, block: int) -> int:
    """Tokens up to and including a block; -1 is none."""
    return question.ends[block] if block >= 0 else 0
