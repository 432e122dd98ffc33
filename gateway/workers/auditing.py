"""Compares the counters of money with the ledger, by itself and when an admin asks, and has them mended where
they let more be spent than they should. What is read is `rebuild.py`'s, what counts as a difference
`core/drift.py`'s.

Where each replica has a ledger of its own, they tell each other what theirs say. So much a counter must have
at least; what it has more may be spend that was not told yet. Counters are not computed anew by themselves
while the replica of one of these ledgers is down: what it spent would be forgotten until it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, Protocol

from gateway.core.drift import Reading, differences
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.ledger import NANOUSD_PER_USD
from gateway.core.limits import Limit, Limits
from gateway.core.rebuild import Drift, is_rebuilt
from gateway.ports import Clock

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""How often it is looked whether an audit is due."""
FIRST_SECONDS: Final = 60.0
"""From the start to the first audit: by then is settled what the process before left. From one that found
something to mend to the next as well."""
AUDIT_SECONDS: Final = 900.0
"""Between two audits that nothing gives cause for: each adds up a month of the ledger."""
SILENT_SECONDS: Final = AUDIT_SECONDS * 1.5
"""Who did not audit for so long is taken to be down."""
AGAIN_SECONDS: Final = 2.0
"""Between the two readings of one audit."""
NEW_SECONDS: Final = 60.0
"""The same after limits were added: by then all replicas have read them."""
MENDED_SECONDS: Final = 3_600.0
"""Where money refuses while it is mended, that is not done by itself more often."""
LEAST_SHORT_NANOUSD: Final = NANOUSD_PER_USD // 100
SHARE_SHORT: Final = 1_000
"""What is mended by itself is more than a cent, and more than this part of the limit."""


class Counters(Protocol):
    """What is asked of `Rebuilding`."""

    async def audit(self) -> tuple[Drift, ...]: ...

    async def repair(self) -> None: ...

    async def mend(self, keys: Collection[str]) -> None: ...


class Guard(Protocol):
    """What is asked of `GuardedBudgets`."""

    @property
    def is_rebuilding(self) -> bool: ...

    @property
    def owed(self) -> int: ...


class Others(Protocol):
    """What is asked of `RedisAudits`; its docstrings say more."""

    async def claim(self, ledger: str, seconds: float, *, taking: bool) -> bool: ...

    async def told(
        self, ledger: str, sums: Mapping[str, int], silent_seconds: float
    ) -> tuple[Mapping[str, int], bool]: ...


class Auditing:
    """`ledger` names this replica's ledger, which is the only one where `shared`; `can_repair` says whether
    the counters can be computed anew while the gateway runs. Without `others`, nobody else has counters."""

    def __init__(
        self,
        counters: Counters,
        guard: Guard,
        *,
        limits: Callable[[], Limits],
        clock: Clock,
        ledger: str,
        can_repair: bool,
        shared: bool = False,
        others: Others | None = None,
    ) -> None:
        self._counters = counters
        self._guard = guard
        self._limits = limits
        self._clock = clock
        self.ledger = ledger
        self.can_repair = can_repair
        self._shared = shared
        self._others = others
        self._short = self._over = 0
        self._reading = asyncio.Lock()
        self._seen: Limits | None = None
        self._kinds: frozenset[_Kind] = frozenset()
        self._due_at: float | None = None
        """When the next audit is due, by the monotonic clock; None before the first look."""
        self._mended_at = float("-inf")
        self._is_first = True

    @property
    def is_rebuilding(self) -> bool:
        """Whether the counters are being computed anew."""
        return self._guard.is_rebuilding

    def short_usd(self) -> float:
        """By how much the counter that is the furthest behind the ledger was, at the last audit."""
        return self._short / NANOUSD_PER_USD

    def over_usd(self) -> float:
        """By how much the counter that is the furthest ahead of it was."""
        return self._over / NANOUSD_PER_USD

    async def audit(self) -> tuple[Drift, ...]:
        """One reading of every counter that the ledger knows, one after the other for all who ask. Raises
        `StoreUnavailable`, `ConfigError` and OSError."""
        async with self._reading:
            return await self._counters.audit()

    async def repair(self) -> None:
        """Have all counters of money computed anew; they refuse, or do what `on_store_failure` says, for the
        seconds that it takes. Raises `StoreUnavailable`."""
        log.warning("the counters of money are computed anew, as an admin asked")
        await self._counters.repair()

    async def look(self) -> None:
        """Audit where that is due: soon after the start, at once after a limit of money was added, now and
        then. Raises nothing that store or ledger do."""
        now, is_new = self._clock.monotonic(), self._has_new_limits()
        if self._due_at is None:
            self._due_at = now + FIRST_SECONDS
        elif is_new:
            await self.turn(NEW_SECONDS)
        elif now >= self._due_at:
            await self.turn()

    async def turn(self, again_seconds: float | None = None) -> None:
        """An audit for the gauges, which mends what is found. Raises nothing that store or ledger do."""
        self._due_at = self._clock.monotonic() + AUDIT_SECONDS
        seconds = AGAIN_SECONDS if again_seconds is None else again_seconds
        try:
            if not await self._is_mine(taking=self._is_first or again_seconds is not None):
                self._short = self._over = 0  # who does it says so
                return
            self._is_first = False
            drifts, found, may_mend = await self._found(seconds)
            if self._guard.is_rebuilding:  # what is counted says nothing then
                self._due_at = self._clock.monotonic() + FIRST_SECONDS
                return
            self._note(found)
            short = [each for each in drifts if -found.get(each.spend.key, 0) > _bearable(each)]
            if short and not self._guard.owed:  # what is owed explains it, too, and is paid soon
                await self._mend(short, may_mend=may_mend)
        except (StoreUnavailable, ConfigError, OSError) as error:
            log.warning("the counters of money could not be compared with the ledger: %s", error)

    def _has_new_limits(self) -> bool:
        """Whether some were added since the last look whose counters the ledger may know more of."""
        limits = self._limits()
        if limits is self._seen:
            return False
        before, self._seen, self._kinds = self._kinds, limits, frozenset(_kinds_of(limits.all))
        # What is for one that was bound by the same before has its counter.
        return any(kind not in before and (*kind[:-1], "") not in before for kind in self._kinds)

    async def _is_mine(self, *, taking: bool) -> bool:
        """Of replicas and workers that read one ledger, one is enough; it is another one if that dies."""
        if self._others is None:
            return True
        return await self._others.claim(self.ledger, SILENT_SECONDS, taking=taking)

    async def _found(self, seconds: float) -> tuple[tuple[Drift, ...], Mapping[str, int], bool]:
        """What two readings come to, one where all agrees; and whether all ledgers can be read anew."""
        drifts = await self.audit()
        others: Mapping[str, int] = {}
        all_live = True
        if self._others is not None and not self._shared:
            own = {drift.spend.key: drift.spend.nanousd for drift in drifts}
            others, all_live = await self._others.told(self.ledger, own, SILENT_SECONDS)
        first = readings_of(drifts, others)
        if all(each.counted == each.ledger for each in first.values()):
            return drifts, {}, all_live
        await self._clock.sleep(seconds)
        drifts = await self.audit()
        return drifts, differences(first, readings_of(drifts, others)), all_live

    def _note(self, found: Mapping[str, int]) -> None:
        self._short = max((0, *(-each for each in found.values())))
        self._over = max((0, *found.values()))
        if self._short:
            log.error(
                "counters of money say less than the ledger, by up to $%.6f: see `gateway budget audit`",
                self.short_usd(),
            )

    async def _mend(self, short: Collection[Drift], *, may_mend: bool) -> None:
        """What they lack could be spent beyond the limit."""
        names = ", ".join(sorted({drift.spend.bound.limit.id for drift in short}))
        now = self._clock.monotonic()
        if self.can_repair and now - self._mended_at < MENDED_SECONDS:
            return
        if self._shared and not self.can_repair:  # the ledger has what others count in stores of their own
            return
        self._due_at = now + FIRST_SECONDS
        if not may_mend:
            log.error(
                "%s: not computed anew by itself while a replica with a ledger of its own is down", names
            )
            return
        self._mended_at = now
        log.warning("counters of money that are behind the ledger are mended: %s", names)
        await self._counters.mend({drift.spend.key for drift in short})


_Kind = tuple[object, ...]


def _kinds_of(limits: Collection[Limit]) -> Iterator[_Kind]:
    """What tells buckets apart, of limits whose counters can be computed from the ledger. The subject is the
    last; empty for all."""
    for limit in limits:
        if is_rebuilt(limit):
            kind = (
                limit.id,
                limit.scope,
                limit.period,
                limit.timezone,
                limit.shared,
                limit.tag,
                limit.models,
            )
            for subject in limit.subjects or ("",):
                yield (*kind, subject)


def _bearable(drift: Drift) -> int:
    return max(LEAST_SHORT_NANOUSD, drift.spend.bound.limit.amount // SHARE_SHORT)


def readings_of(drifts: tuple[Drift, ...], others: Mapping[str, int]) -> Mapping[str, Reading]:
    """By the counters' keys; `others`: what other ledgers say."""
    return {
        drift.spend.key: Reading(
            counted=drift.counted,
            set_aside=drift.set_aside,
            ledger=drift.spend.nanousd + others.get(drift.spend.key, 0),
        )
        for drift in drifts
    }
