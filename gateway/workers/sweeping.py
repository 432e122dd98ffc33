"""Closes what dead replicas left open, and has the ledger follow.

Counters and ledger come to the same sum although either may be told first, and whoever tells them may die in
between: what an exchange cost is committed to the ledger before it is settled, and is settled again from
there when its replica is back; what the store presumed waits there until this replica's ledger has it. What
this replica's last process had under way when it was killed is booked at the start, and settled from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.core.bucket import Payer, Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.limits import BoundLimit
from gateway.core.presumed import Unsettled, lost_record, presumed_record
from gateway.core.principal import Principal
from gateway.core.rules import Rules
from gateway.ports import BatchBooks, BudgetStore

log = logging.getLogger(__name__)


class FoundBudgets(Protocol):
    """What is asked of `adapters.guarded_budgets.GuardedBudgets`; its docstrings say more."""

    @property
    def is_rebuilding(self) -> bool: ...

    async def settle_found(self, reservation: Reservation, *, ended_at: float, degraded: bool) -> None: ...

    def presumed_found(self, ledger: str, reservation_ids: Sequence[ReservationId]) -> None: ...


class LeftOpen(Protocol):
    """What is asked of `adapters.open_calls.OpenCalls`; its docstrings say more."""

    def found(self) -> Sequence[Unsettled]: ...

    def forget(self) -> None: ...


class Sweeping:
    """One replica's share of it. `unsettled` reads what may be unsettled in this replica's own ledger, with
    so many more than usual, and `guard` settles that; `left_open` has what the process before had under way;
    `reading` is held while that ledger's part of lost counters is read; `expired` is told how many
    reservations were closed; `presumed` reads which ones that ledger was told of last."""

    def __init__(
        self,
        *,
        budgets: BudgetStore,
        guard: FoundBudgets,
        rules: Callable[[], Rules],
        books: BatchBooks,
        reading: AbstractAsyncContextManager[None],
        unsettled: Callable[[int], Sequence[Unsettled]],
        left_open: LeftOpen,
        expired: Callable[[int], None],
        presumed: Callable[[], Sequence[ReservationId]] = tuple,
    ) -> None:
        self._budgets = budgets
        self._guard = guard
        self._rules = rules
        self._reading = reading
        self._books = books
        self._left_open = left_open
        self._lost: Sequence[Unsettled] = ()
        self._is_found = True
        self._unsettled: Sequence[Unsettled] = ()
        self._settled = 0
        self._read = unsettled
        self._expired = expired
        self._read_presumed = presumed
        self._presumed: Sequence[ReservationId] = ()

    async def begin(self) -> None:
        """At the start, before this process books anything: book what the last one had under way, and find
        what it had booked, and perhaps not settled. So counters that are rebuilt now have all of it. Raises
        `ConfigError`."""
        self._lost = await asyncio.to_thread(self._left_open.found)
        try:
            await self._find()
        except StoreUnavailable as error:
            self._is_found = False
            log.error("what the last process had under way is booked later: %s", error.message)

    async def resume(self) -> None:
        """Settle that. Idempotent. Raises `StoreUnavailable`; asked again, it goes on where it was."""
        if not self._is_found:
            await self._find()
        while self._settled < len(self._unsettled):
            one = self._unsettled[self._settled]
            reservation = one.reservation(_binding(self._rules(), one.payer))
            await self._guard.settle_found(reservation, ended_at=one.ended_at, degraded=one.degraded)
            self._settled += 1
        self._unsettled, self._settled = (), 0
        if self._presumed:
            self._guard.presumed_found(self._books.name, self._presumed)
            self._presumed = ()
        self._left_open.forget()
        self._lost = ()

    def look_again(self) -> None:
        """Counters were rebuilt with what another worker had read of this ledger. What this one settled
        since, at a server that was the master until then, may be in none: so all of the ledger's last entries
        are settled once more, at the next turn."""
        self._is_found = False

    async def _find(self) -> None:
        """Calls that have an entry already were over: that stays as it is."""
        if self._lost:
            new = await self._books.add([lost_record(one) for one in self._lost])
            self._expired(new)
            if new:
                log.warning("%d calls that the last process had under way are booked as estimated", new)
        self._presumed = await asyncio.to_thread(self._read_presumed)
        self._unsettled, self._settled = await asyncio.to_thread(self._read, len(self._lost)), 0
        self._is_found = True

    async def turn(self) -> None:
        """Close, and book, all there is. Raises nothing: what failed is there the next time."""
        try:
            await self.resume()
            while await self._sweep():
                pass
        except StoreUnavailable as error:
            log.warning("sweeping goes on later: %s", error.message)

    async def _sweep(self) -> bool:
        """Whether there may be more. What the store said under one generation is in the ledger before its
        part of the next one is read, or never: the sum would lack it, and nobody would add it."""
        async with self._reading:
            if self._guard.is_rebuilding:
                return False
            found = await self._budgets.sweep(self._books.name)
            if not found:
                return False
            new = await self._books.add([presumed_record(one) for one in found])
            await self._budgets.booked(self._books.name, [one.id for one in found])
        self._expired(sum(not one.taken_back for one in found))
        log.warning("%d changes that the store made by itself are in the ledger", new)
        return True


def _binding(rules: Rules, payer: Payer) -> tuple[BoundLimit, ...]:
    """The limits that bind a payer, by the rules that are in force now."""
    workspace = rules.workspaces.get(WorkspaceId(payer.workspace))
    principal = Principal(
        workspace=WorkspaceId(payer.workspace),
        key_id=KeyId(payer.key_id),
        key_name="",
        organisation=payer.organisation,
        team=workspace.team if workspace is not None else "",
    )
    return rules.limits.binding(principal, rules.models.canonical(payer.model) or payer.model, payer.tags)
