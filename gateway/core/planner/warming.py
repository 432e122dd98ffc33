"""Keep-alive: which entries deserve one more lifetime, and when to ask again.

A warm-up reads the whole prefix, so it costs r per token each lifetime and saves 1.25 - r per token if the
next request comes in that lifetime. An entry of an hour's TTL inside the prefix is what would be read
otherwise, so only what lies behind it counts as saved.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.core.planner.expecting import Boundaries, Expected
from gateway.core.planner.features import NOTHING_SEEN
from gateway.core.planner.index import HOUR, PrefixTable
from gateway.core.planner.reuse import Chances, Reuse
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    ONE_HOUR_SECONDS,
    Decision,
    Mark,
    Prices,
    Question,
    Warm,
    Why,
)

MAX_KEPT = 4096
MAX_LIFETIMES = 12
MARGIN_SECONDS = 15.0
"""How long before its end a lifetime is renewed."""
RETURN = 1.5
"""What a warm-up must be expected to save, in multiples of its cost: it is one more request, and of many
chances that are looked at those that are too high are taken."""
DOUBT = 4.0
"""Expected reads of warmed prefixes that the first belief in such expectations weighs."""
LUCK = 0.5
"""Of the accesses at the ends of prompts of a kind and age, what says nothing yet where a warm-up is to be
paid for: one can always happen."""
MEMORY = 50.0
"""Expected reads after which half of what became of warmed prefixes is forgotten."""


class Kept(msgspec.Struct, gc=False):
    """An entry that may be kept alive, if nobody comes before."""

    request: int
    block: int
    key: int
    tokens: int
    tokens_saved: float
    """What would have to be written again without it: not what an hour's entry holds anyway, nor a system
    prompt as far as others keep it alive."""
    hour: bool
    since: float
    """Instant of the access that began its idleness."""
    account: int
    prices: Prices
    outlook: Chances
    price: float = 1.0
    """Of one uncached token."""
    decided: bool = True
    """Whether its breakpoint was decided here: which account pays for its warm-ups follows from it."""
    lifetimes: int = 0
    """Renewals so far."""
    renewed_at: float = 0.0
    hoped: float = 0.0
    """The chance of a read on which it was last renewed."""
    earned: bool = False
    """Whether a read came that its renewals made possible."""

    @property
    def lifetime_seconds(self) -> float:
        return ONE_HOUR_SECONDS if self.hour else FIVE_MINUTES_SECONDS

    @property
    def cost(self) -> float:
        return self.prices.read * self.tokens

    def chance(self) -> float:
        """Of an access in the next lifetime, given that none came so far."""
        return self.outlook.in_lifetime(self.hour, self.lifetimes)


class Keeping:
    """The entries to be asked about, by time. Bounded: beyond `MAX_KEPT` no more are taken."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Kept]] = []
        self._number = 0
        self._read = DOUBT
        self._expected = DOUBT
        self._renewed: dict[int, Kept] = {}
        self.warmed = 0
        """Warm-ups so far."""
        self.used = 0
        """Of those that can be judged, how many were read within the lifetime that they gave."""

    def pays(self, kept: Kept) -> bool:
        """Whether one more lifetime is worth its read, after how such expectations have turned out."""
        saved = kept.tokens_saved * kept.chance() * (kept.prices.write_5m - kept.prices.read)
        return (
            kept.lifetimes < MAX_LIFETIMES and saved * self._read / self._expected > RETURN * kept.cost > 0.0
        )

    def take_up(self, found: Iterable[Kept], where: Boundaries, reuse: Reuse) -> int | None:
        """Take up what pays of what may be kept alive; the deepest block of it."""
        upto = None
        for kept in found:
            if self.pays(kept):
                luck = 0.0 if kept.block in where.shared else LUCK
                kept.outlook = reuse.chances(where.contexts_at(kept.block), NOTHING_SEEN, doubt=luck)
                if self.consider(kept):
                    upto = kept.block if upto is None else max(upto, kept.block)
        return upto

    def consider(self, kept: Kept) -> bool:
        """Ask again shortly before the entry's lifetime ends; False where there is no room for more."""
        if len(self._queue) >= MAX_KEPT:
            return False
        begins = kept.renewed_at or kept.since
        self._number += 1
        due = begins + kept.lifetime_seconds - MARGIN_SECONDS
        heapq.heappush(self._queue, (due, self._number, kept))
        return True

    def renewed(self, kept: Kept, now: float) -> None:
        """It was given another lifetime; what becomes of that will be asked."""
        kept.hoped = kept.chance()
        self.warmed += 1
        kept.lifetimes += 1
        kept.renewed_at = now
        self._renewed[kept.key] = kept
        if len(self._renewed) > MAX_KEPT:
            del self._renewed[next(iter(self._renewed))]
        self.consider(kept)

    def bridged(self, key: int, now: float) -> float:
        """What a read of this prefix saves, in token equivalents, only because a warm-up bridged the end of
        its lifetime: 0 where it would have lived anyway. Once for each lifetime that was bridged."""
        kept = self._renewed.get(key)
        if kept is None or kept.earned or now <= kept.since + kept.lifetime_seconds:
            return 0.0
        kept.earned = True
        prices = kept.prices
        return kept.tokens_saved * ((prices.write_1h if kept.hour else prices.write_5m) - prices.read)

    def judge(self, kept: Kept, came: bool) -> None:
        """The lifetime that it was given is over: was it read?"""
        if not kept.lifetimes:
            return
        self._expected += kept.hoped
        self._read += came
        self.used += came
        if self._expected > MEMORY:
            self._read = DOUBT + (self._read - DOUBT) / 2
            self._expected = DOUBT + (self._expected - DOUBT) / 2

    def disproved(self, key: int) -> None:
        """An entry that should have lived was gone: where it had been renewed, renewing does not do what it
        is believed to do, which is held against all of it."""
        if key in self._renewed:
            del self._renewed[key]
            self._read = max(0.0, self._read - 2.0)

    def due(self, now: float) -> list[Kept]:
        """Those whose time has come, taken off."""
        ready = []
        while self._queue and self._queue[0][0] <= now:
            ready.append(heapq.heappop(self._queue)[2])
        return ready

    def next_due(self) -> float | None:
        return self._queue[0][0] if self._queue else None


def may_be_kept(
    question: Question,
    slots: Sequence[int],
    table: PrefixTable,
    decision: Decision,
    where: Boundaries,
    expected: Expected,
    now: float,
) -> Iterator[Kept]:
    """The entries of a request that was just sent that could be kept alive: its deepest, and its deepest
    shared one."""
    ends, system_end = question.ends, where.system_end
    hour_end = max((ends[m.block] for m in decision.marks if table.flags[slots[m.block]] & HOUR), default=0)
    by_others = ends[system_end] * expected.shared[system_end].five if system_end >= 0 else 0.0
    shared = [mark.block for mark in decision.marks if mark.block in expected.shared]
    for block in {decision.marks[-1].block, *shared[-1:]}:
        slot = slots[block]
        if table.expires[slot] <= now:
            continue
        hour = bool(table.flags[slot] & HOUR)
        held = max(0 if hour else hour_end, by_others if block > system_end else 0)
        yield Kept(
            request=question.id,
            block=block,
            key=question.keys[block],
            tokens=ends[block],
            tokens_saved=ends[block] - held,
            hour=hour,
            since=now,
            account=question.account,
            prices=question.prices,
            outlook=expected.at(block),
            price=question.price,
            decided=question.decided,
        )


def warm_up_of(kept: Kept) -> Warm:
    """The request that gives it another lifetime."""
    return Warm(
        request=kept.request,
        upto=kept.block,
        marks=(Mark(kept.block, kept.hour, Why.REFRESH, tokens=kept.tokens),),
        tokens=kept.tokens,
        chance=kept.chance(),
        account=kept.account,
        key=kept.key,
        cost=kept.cost,
        prices=kept.prices,
        price=kept.price,
        decided=kept.decided,
    )
