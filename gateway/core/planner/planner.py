"""The planner: what to mark in a request, whether to hold it, which prefixes to keep alive.

It learns from requests and reported usage only. No IO, no clock, no randomness: every call brings its
instant, and instants must not go back. Not safe for threads; no call blocks. Losing its state costs money,
never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.core.planner.choose import Choice
from gateway.core.planner.entries import Entries, Found, shared_blocks
from gateway.core.planner.features import (
    FIRST_TURN_PRIOR,
    LATER_TURN_PRIOR,
    NOTHING_SEEN,
    SHARED_PRIOR,
    Place,
    Shape,
    shape_of,
    shared_contexts,
    tail_contexts,
)
from gateway.core.planner.holds import Holds
from gateway.core.planner.index import BRANCH, HAS_CHILD, HOUR, LAYERED, PrefixTable
from gateway.core.planner.ledger import Account, Bounds
from gateway.core.planner.placing import Outlook, place
from gateway.core.planner.reuse import Chances, Contexts, Reuse
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    Decision,
    Mark,
    PlannerOptions,
    Question,
    Reported,
    Warm,
    Why,
)
from gateway.core.planner.warming import Keeping, Kept

MAX_BRANCHES = 3
"""Boundaries of one prompt, besides the ends of tools and system, that are watched as shared."""
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


@dataclass(slots=True)
class _Expected:
    """What is expected at a prompt's boundaries, and in which contexts it will be learned."""

    tail: Chances
    tail_contexts: Contexts
    shared: dict[int, Chances]
    shared_contexts: dict[int, Contexts]


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
        self.reuse.advance(now)
        slots = self.table.find_all(question.keys)
        found = self._entries.find(question, slots, now)
        if may_wait and found.pending_at > found.read_at and question.fixed is None:
            leader = self._leader(question, found, now)
            if leader is not None:
                return Decision((), Why.WAITS, wait_for=leader)
        expected = self._expect(question, slots, now)
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
        """The request to wait for, where what that saves is worth the wait."""
        leader = self._entries.pending[question.keys[found.pending_at]]
        flight = self._flights.get(leader)
        if flight is None:
            return None
        read_end = question.ends[found.read_at] if found.read_at >= 0 else 0
        saving = (question.ends[found.pending_at] - read_end) * (1.0 - question.prices.read)
        wait = flight.sent_at + flight.first_byte_after - now
        return leader if self._holds.worth(saving, wait) else None

    def _expect(self, question: Question, slots: Sequence[int], now: float) -> _Expected:
        table, keys = self.table, question.keys
        known, last = len(slots) - 1, len(keys) - 1
        self.reuse.accessed(keys[: known + 1], now)
        pause = now - table.last[slots[known]] if known >= 0 else 0.0
        if known >= 0 and (known == last or table.flags[slots[known]] & HAS_CHILD):
            table.flags[slots[known]] |= BRANCH
        shape = shape_of(question.kinds)
        contexts = tail_contexts(question, shape, known, pause)
        tail = self.reuse.chances(contexts, LATER_TURN_PRIOR if shape.answers else FIRST_TURN_PRIOR)
        shared: dict[int, Chances] = {}
        shared_in: dict[int, Contexts] = {}
        for block, kind in self._places(slots, shape).items():
            slot = slots[block] if block <= known else -1
            accesses = 0
            if slot >= 0:
                accesses = table.accesses[slot] = min(255, table.accesses[slot] + 1)
            shared_in[block] = shared_contexts(question, kind, block, accesses)
            shared[block] = self.reuse.chances(shared_in[block], SHARED_PRIOR)
        return _Expected(tail, contexts, shared, shared_in)

    def _places(self, slots: Sequence[int], shape: Shape) -> dict[int, Place]:
        places = dict.fromkeys(shared_blocks(self.table, slots, MAX_BRANCHES), Place.BRANCH)
        if shape.tools_end >= 0:
            places[shape.tools_end] = Place.TOOLS_END
        if shape.system_end >= 0:
            places[shape.system_end] = Place.SYSTEM_END
        return places

    def _decide(
        self, question: Question, slots: Sequence[int], found: Found, expected: _Expected, now: float
    ) -> Decision:
        account = self.accounts.setdefault(question.workspace, Account())
        if question.fixed is not None:
            return self._as_fixed(question, slots, now)

        def allow(premium: float, choices: Sequence[Choice]) -> bool:
            promise = self._promise(question, found, expected, choices)
            return account.may_stake(premium, promise, self._bounds, now)

        alive = [
            block
            for block in sorted(expected.shared, reverse=True)
            if block < found.read_at and self._entries.alive(question, slots, block, now)
        ]
        outlook = Outlook(found.read_at, found.hour_at, alive, expected.tail, expected.shared, self.trust)
        decision = place(question, outlook, allow)
        if found.read_at < len(slots) - 1:
            miss = self._entries.miss(question, slots, found.read_at, now)
            decision = decision.with_miss(miss)
        return decision

    def _as_fixed(self, question: Question, slots: Sequence[int], now: float) -> Decision:
        """The client's own breakpoints, and what they can be expected to do."""
        ends = question.ends
        read_at = self._entries.reach(question, slots, now)
        read_end = ends[read_at] if read_at >= 0 else 0
        marks = tuple(Mark(block, hour, Why.CLIENT) for block, hour in sorted(question.fixed or ()))
        long = [mark for mark in marks if ends[mark.block] >= question.prices.minimum_tokens]
        hour_end = max((ends[mark.block] for mark in long if mark.hour), default=0)
        last_end = max((ends[mark.block] for mark in long), default=0)
        hour_end, last_end = max(hour_end, read_end), max(last_end, hour_end, read_end)
        return Decision(
            marks,
            Why.CLIENT,
            read_tokens=read_end,
            write_5m_tokens=last_end - hour_end,
            write_1h_tokens=hour_end - read_end,
            miss=self._entries.miss(question, slots, read_at, now),
        )

    def _promise(
        self, question: Question, found: Found, expected: _Expected, choices: Sequence[Choice]
    ) -> float:
        """What reads of these writes will earn within 5 min, by what was seen of their kind alone."""
        last = choices[-1][0].block
        contexts = expected.shared_contexts.get(last, expected.tail_contexts)
        read_end = question.ends[found.read_at] if found.read_at >= 0 else 0
        gain = (choices[-1][0].end - read_end) * (1.0 - question.prices.read)
        return self.reuse.proven(contexts[-2:]) * gain

    def _send(
        self,
        question: Question,
        slots: list[int],
        found: Found,
        decision: Decision,
        expected: _Expected,
        now: float,
    ) -> None:
        table, keys, prices = self.table, question.keys, question.prices
        read_at = found.read_at if question.fixed is None else self._entries.reach(question, slots, now)
        if len(self._flights) >= MAX_FLIGHTS:
            self.failed(next(iter(self._flights)))
        layered = read_at >= 0 and bool(table.flags[slots[read_at]] & LAYERED)
        layered = layered and now - table.last[slots[read_at]] > FIVE_MINUTES_SECONDS
        self._remember(keys, slots, now)
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
        self._watch(keys, expected, now)
        if self.options.warming and decision.marks:
            self._keep(question, slots, decision, expected, now)

    def _remember(self, keys: Sequence[int], slots: list[int], now: float) -> None:
        """Every prefix of this prompt was accessed; those that are new become known."""
        table, last, flags = self.table, self.table.last, self.table.flags
        known = len(slots) - 1
        if -1 in slots:
            slots[:] = [table.add(keys[block], now) for block in range(len(slots))]
        for slot in slots:
            last[slot] = now
        for key in keys[known + 1 :]:
            slots.append(table.add(key, now))
        for slot in slots[max(known, 0) : -1]:
            flags[slot] |= HAS_CHILD

    def _stake(
        self, question: Question, decision: Decision, expected: _Expected, premium: float, now: float
    ) -> None:
        promise = 0.0
        if premium > 0.0:
            last = decision.marks[-1].block
            contexts = expected.shared_contexts.get(last, expected.tail_contexts)
            written = decision.write_5m_tokens + decision.write_1h_tokens
            promise = self.reuse.proven(contexts[-2:]) * written * (1.0 - question.prices.read)
        account = self.accounts[question.workspace]
        account.stake(premium, promise, now + FIVE_MINUTES_SECONDS)

    def _watch(self, keys: Sequence[int], expected: _Expected, now: float) -> None:
        for block, contexts in expected.shared_contexts.items():
            self.reuse.watch(keys[block], contexts, now)
        if len(keys) - 1 not in expected.shared_contexts:
            self.reuse.watch(keys[-1], expected.tail_contexts, now)

    def _keep(
        self, question: Question, slots: Sequence[int], decision: Decision, expected: _Expected, now: float
    ) -> None:
        """Consider for keeping alive: the deepest entry of this prompt, and its deepest shared one."""
        keys, ends, table = question.keys, question.ends, self.table
        hour_end = max((ends[m.block] for m in decision.marks if table.flags[slots[m.block]] & HOUR), default=0)
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
                tokens_saved=ends[block] - (0 if hour else min(hour_end, ends[block])),
                hour=hour,
                since=now,
                workspace=question.workspace,
                prices=question.prices,
                outlook=expected.shared.get(block, expected.tail),
            )
            if self._keeping.pays(kept):
                contexts = expected.shared_contexts.get(block, expected.tail_contexts)
                kept.outlook = self.reuse.chances(contexts, NOTHING_SEEN)
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
        warm = Warm(kept.request, kept.block, (mark,), kept.tokens, kept.chance())
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


def total_bytes(options: PlannerOptions) -> int:
    """Memory of the planner's tables, taken at once and never more."""
    from gateway.core.planner.index import BYTES_PER_SLOT
    from gateway.core.planner.reuse import BYTES

    return (1 << max(4, (options.capacity - 1).bit_length())) * BYTES_PER_SLOT + BYTES


def compact_keys(digests: Iterable[bytes]) -> tuple[int, ...]:
    from gateway.core.planner.values import compact_key

    return tuple(map(compact_key, digests))
