"""Compares the counters of money with the ledger: now and then by itself, for the gauges, and when an admin
asks; and has them computed anew on demand. What is read is `rebuild.py`'s, what counts as a difference
`core/drift.py`'s.

The ledger of a replica that has one of its own is only its part of what the counters have: then a counter
that says more than the ledger is as it should be, and one that says less is still wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from gateway.core.drift import Reading, differences
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.ledger import NANOUSD_PER_USD
from gateway.core.rebuild import Drift
from gateway.ports import Clock

log = logging.getLogger(__name__)

AUDIT_SECONDS: Final = 900.0
"""Between two audits that nobody asked for: each adds up a month of the ledger."""
AGAIN_SECONDS: Final = 2.0
"""Between the two readings of one audit."""


class Counters(Protocol):
    """What is asked of `Rebuilding`."""

    async def audit(self) -> tuple[Drift, ...]: ...

    async def repair(self) -> None: ...


class Guard(Protocol):
    """What is asked of `GuardedBudgets`."""

    @property
    def is_rebuilding(self) -> bool: ...


class Auditing:
    """`ledger` names this replica's ledger; `can_repair` says whether the counters can be computed anew while
    the gateway runs."""

    def __init__(
        self, counters: Counters, guard: Guard, *, clock: Clock, ledger: str, can_repair: bool
    ) -> None:
        self._counters = counters
        self._guard = guard
        self._clock = clock
        self.ledger = ledger
        self.can_repair = can_repair
        self._short = self._over = 0
        self._reading = asyncio.Lock()

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

    async def turn(self) -> None:
        """An audit for the gauges. Raises nothing that store or ledger do."""
        try:
            first = readings_of(await self.audit())
            await self._clock.sleep(AGAIN_SECONDS)
            found = differences(first, readings_of(await self.audit()))
        except (StoreUnavailable, ConfigError, OSError) as error:
            log.warning("the counters of money could not be compared with the ledger: %s", error)
            return
        self._short = max((-each for each in found.values()), default=0)
        self._over = max(found.values(), default=0)
        self._short, self._over = max(self._short, 0), max(self._over, 0)
        if self._short:
            log.error(
                "counters of money say less than the ledger, by up to $%.6f: see `gateway budget audit`",
                self.short_usd(),
            )


def readings_of(drifts: tuple[Drift, ...]) -> Mapping[str, Reading]:
    """By the counters' keys."""
    return {
        drift.spend.key: Reading(counted=drift.counted, set_aside=drift.set_aside, ledger=drift.spend.nanousd)
        for drift in drifts
    }
