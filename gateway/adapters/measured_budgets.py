"""A `BudgetStore` that tells how long its operations take and which of them fail. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_fence import is_fenced
from gateway.core.bucket import Amounts, Decision, Presumed, Reservation, Verdict
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit
from gateway.ports import BudgetStore

T = TypeVar("T")


class MeasuredBudgets:
    """`took` is told operation and seconds of what succeeded; `failed` the operation, and whether the store
    may have acted (`outcome_unknown`), surely has not (`unavailable`), or has its dollar windows behind the
    fence (`fenced`). Goes around the store itself: what goes on without the store swallows its failures."""

    def __init__(
        self,
        store: BudgetStore,
        *,
        took: Callable[[str, float], None],
        failed: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._took = took
        self._failed = failed

    async def reserve(self, reservation: Reservation) -> Decision:
        return await self._measure("reserve", self._store.reserve(reservation))

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        await self._measure("settle", self._store.settle(reservation_id, actual))

    async def release(self, reservation_id: ReservationId) -> None:
        await self._measure("release", self._store.release(reservation_id))

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        await self._measure("renew", self._store.renew(reservation_id, lease_seconds))

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        return await self._measure("sweep", self._store.sweep(ledger))

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        await self._measure("booked", self._store.booked(ledger, entry_ids))

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        return await self._measure("peek", self._store.peek(limits))

    async def ping(self) -> None:
        await self._measure("ping", self._store.ping())

    async def close(self) -> None:
        await self._store.close()

    async def _measure(self, operation: str, work: Awaitable[T]) -> T:
        started = time.perf_counter()
        try:
            result = await work
        except StoreUnavailable as error:
            self._failed(operation, _kind(error))
            raise
        self._took(operation, time.perf_counter() - started)
        return result


class MeasuredFencedBudgets(MeasuredBudgets):
    """The same around a store under a generation."""

    def __init__(
        self,
        store: RedisBudgets,
        *,
        took: Callable[[str, float], None],
        failed: Callable[[str, str], None],
    ) -> None:
        super().__init__(store, took=took, failed=failed)
        self._fenced = store

    async def settle_known(self, reservation_id: ReservationId, actual: Amounts) -> bool | None:
        return await self._measure("settle", self._fenced.settle_known(reservation_id, actual))


def _kind(error: StoreUnavailable) -> str:
    if is_fenced(error):
        return "fenced"
    return "unavailable" if error.outcome_known else "outcome_unknown"
