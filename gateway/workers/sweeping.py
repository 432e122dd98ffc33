"""Closes what dead replicas left open, and has the ledger follow.

Counters and ledger come to the same sum although either may be told first, and whoever tells them may die in
between: what an exchange cost is committed to the ledger before it is settled, and is settled again from
there when its replica is back; what the store presumed waits there until this replica's ledger has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.core.errors import StoreUnavailable
from gateway.core.presumed import Unsettled, presumed_record
from gateway.ports import BatchBooks, BudgetStore

log = logging.getLogger(__name__)


class Sweeping:
    """One replica's share of it. `unsettled` reads what may be unsettled in this replica's own ledger, and
    `expired` is told how many reservations were closed."""

    def __init__(
        self,
        *,
        budgets: BudgetStore,
        books: BatchBooks,
        unsettled: Callable[[], Sequence[Unsettled]],
        expired: Callable[[int], None],
    ) -> None:
        self._budgets = budgets
        self._books = books
        self._unsettled: Sequence[Unsettled] = ()
        self._read = unsettled
        self._expired = expired

    async def begin(self) -> None:
        """At the start, before this process books anything: find what the last one had booked, and perhaps
        not settled. Raises `ConfigError`."""
        self._unsettled = await asyncio.to_thread(self._read)

    async def resume(self) -> None:
        """Settle that. Idempotent. Raises `StoreUnavailable`; asked again, it goes on where it was."""
        while self._unsettled:
            one, *rest = self._unsettled
            await self._budgets.settle(one.reservation_id, one.amounts)
            self._unsettled = rest

    async def turn(self) -> None:
        """Close, and book, all there is. Raises nothing: what failed is there the next time."""
        try:
            await self.resume()
            while found := await self._budgets.sweep(self._books.name):
                new = await self._books.add([presumed_record(one) for one in found])
                await self._budgets.booked(self._books.name, [one.id for one in found])
                self._expired(sum(not one.taken_back for one in found))
                log.warning("%d changes that the store made by itself are in the ledger", new)
        except StoreUnavailable as error:
            log.warning("sweeping goes on later: %s", error.message)
