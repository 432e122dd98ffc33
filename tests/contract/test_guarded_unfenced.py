"""The guard around a store without a fence, as SQLite and memory are: policies hold there likewise."""

from __future__ import annotations

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.bucket import Decision, Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import OnStoreFailure
from tests.support.budgets import bound, reservation, rid, state, usd


async def test_a_store_without_a_fence_is_guarded_too() -> None:
    """SQLite and memory: policies hold there likewise, and nothing is rebuilt."""
    store = MemoryBudgets(SystemClock())
    guarded = GuardedBudgets(store, SystemClock())
    limit = bound(100)
    await guarded.reserve(reservation("a", limit, nanousd=60))
    await guarded.settle(rid("a"), usd(50))
    await guarded.pay()

    assert await state(guarded, limit) == (50, 0)
    assert not guarded.is_rebuilding


class _Away(MemoryBudgets):
    """A store without a fence that can be away."""

    away = True

    async def reserve(self, reservation: Reservation) -> Decision:
        await self.ping()
        return await super().reserve(reservation)

    async def ping(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


async def test_a_store_without_a_fence_is_back_when_it_answers_and_not_before() -> None:
    """The worker comes every second, and finds nothing that is owed."""
    store, said = _Away(SystemClock()), list[bool]()
    guarded = GuardedBudgets(store, SystemClock(), degraded=said.append)
    limit = bound(1_000, on_store_failure=OnStoreFailure.REFUSE)
    for name in ("a", "b"):
        with pytest.raises(StoreUnavailable):
            await guarded.reserve(reservation(name, limit, nanousd=100))
        with pytest.raises(StoreUnavailable):
            await guarded.pay()
    assert said == [True]
    store.away = False
    await guarded.pay()

    assert said == [True, False]
    assert (await guarded.reserve(reservation("c", limit, nanousd=100))).allowed


async def test_a_batch_that_was_kept_while_the_store_was_away_has_used_the_allowance() -> None:
    store = _Away(SystemClock())
    guarded = GuardedBudgets(store, SystemClock())
    limit = bound(1_000, on_store_failure=OnStoreFailure.ALLOWANCE, allowance=100)
    assert (await guarded.reserve(reservation("a", limit, nanousd=100))).degraded
    guarded.hand_over(rid("a"))

    with pytest.raises(StoreUnavailable, match="used up"):
        await guarded.reserve(reservation("b", limit, nanousd=1))
