"""What the contract suite cannot see from outside: that nothing is kept for longer than it is needed."""

from __future__ import annotations

import pytest

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.limits import Period
from gateway.core.reservations import (
    CLOSED_KEPT_MS,
    REFUSED_KEPT_MS,
    SWEPT_KEPT_MS,
    WINDOW_KEPT_MS,
)
from tests.support.budgets import bound, reservation, rid, sweep, usd
from tests.support.clock import FakeClock

DAY_MS = 86_400_000


def kept(budgets: MemoryBudgets) -> int:
    return len(budgets._tables._records)


def buckets(budgets: MemoryBudgets) -> int:
    return len(budgets._tables._levels)


@pytest.mark.parametrize("close", ["settle", "release", "refuse", "unknown"])
async def test_closed_ids_are_forgotten_after_minutes(close: str) -> None:
    clock = FakeClock()
    budgets = MemoryBudgets(clock)
    limit = bound(100)
    if close != "unknown":
        await budgets.reserve(reservation("a", limit, nanousd=101 if close == "refuse" else 10))
    if close == "settle":
        await budgets.settle(rid("a"), usd(10))
    elif close != "refuse":
        await budgets.release(rid("a"))
    clock.advance(((REFUSED_KEPT_MS if close == "refuse" else CLOSED_KEPT_MS) - 1) / 1000)
    await sweep(budgets)
    assert kept(budgets) == 1
    clock.advance(0.001)
    await sweep(budgets)

    assert kept(budgets) == 0


async def test_a_swept_reservation_can_be_corrected_for_a_day_and_is_then_forgotten() -> None:
    clock = FakeClock()
    budgets = MemoryBudgets(clock)
    await budgets.reserve(reservation("a", bound(100), nanousd=10, lease_seconds=1))
    clock.advance(1)
    await sweep(budgets)
    clock.advance((SWEPT_KEPT_MS - 1) / 1000)
    await sweep(budgets)
    assert kept(budgets) == 1
    clock.advance(0.001)
    await sweep(budgets)

    assert kept(budgets) == 0


async def test_an_open_reservation_is_never_forgotten_only_swept() -> None:
    clock = FakeClock()
    budgets = MemoryBudgets(clock)
    await budgets.reserve(reservation("a", bound(100), nanousd=10, lease_seconds=40 * 86_400))
    clock.advance(39 * 86_400)
    await sweep(budgets)

    assert kept(budgets) == 1


async def test_a_drained_rate_and_a_window_long_over_take_no_room() -> None:
    clock = FakeClock(1_800_057_600.0)  # midnight, UTC
    budgets = MemoryBudgets(clock)
    rate, day = bound(60, id="rate", period=Period.MINUTE), bound(100)
    await budgets.reserve(reservation("a", rate, day, nanousd=60))
    await budgets.settle(rid("a"), usd(60))
    clock.advance((DAY_MS + 60_000 - 1) / 1000)
    await sweep(budgets)
    assert buckets(budgets) == 2
    clock.advance(3600)
    await sweep(budgets)
    assert buckets(budgets) == 1
    clock.advance(WINDOW_KEPT_MS / 1000)
    await sweep(budgets)

    assert buckets(budgets) == 0


async def test_what_a_forgotten_bucket_gave_back_is_not_given_back_again() -> None:
    clock = FakeClock()
    budgets = MemoryBudgets(clock)
    slow = bound(1, id="slow", period=Period.HOUR, burst=1000)
    await budgets.reserve(reservation("first", slow, nanousd=1, lease_seconds=10**7))
    await budgets.reserve(reservation("other", slow, nanousd=900, lease_seconds=10**7))
    await budgets.reserve(reservation("long", slow, nanousd=10, lease_seconds=10**7))
    await budgets.release(rid("other"))
    clock.advance(60 * 3600)
    await sweep(budgets)
    assert buckets(budgets) == 0

    await budgets.reserve(reservation("all", slow, nanousd=1000))
    await budgets.release(rid("long"))

    assert not (await budgets.reserve(reservation("more", slow, nanousd=1))).allowed
