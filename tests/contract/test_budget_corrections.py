"""What a close gives back, in every store: of a rate, only what time has not given back already."""

from __future__ import annotations

import pytest

from gateway.core.limits import MAX_AMOUNT, Period, Unit
from gateway.ports import BudgetStore
from tests.support.budgets import Ground, bound, look, reservation, rid, state, usd

DAY = 86_400
MINUTE = Period.MINUTE


async def test_long_reservations_that_end_together_give_back_nothing_that_time_gave_back(
    ground: Ground, store: BudgetStore
) -> None:
    """Ten streams, each estimated far too high, one a minute; then they all end while others wait."""
    rate = bound(1000, period=MINUTE)
    for i in range(10):
        assert (await store.reserve(reservation(f"long{i}", rate, nanousd=1000, lease_seconds=DAY))).allowed
        ground.advance(60)

    used = 0
    for i in range(10):
        used += 1000 * (await store.reserve(reservation(f"burst{i}", rate, nanousd=1000))).allowed
        await store.settle(rid(f"long{i}"), usd(10))

    assert used == 1000


@pytest.mark.parametrize(
    ("actual", "left"), [(0, 90), (10, 90), (50, 90), (51, 91), (60, 100), (75, 115)], ids=str
)
async def test_a_close_gives_back_only_what_has_not_drained_since(
    ground: Ground, store: BudgetStore, actual: int, left: int
) -> None:
    """60 were taken; in half a minute 50 came back by themselves, and others took all there was."""
    rate = bound(100, period=MINUTE)
    await store.reserve(reservation("a", rate, nanousd=60))
    ground.advance(30)
    assert (await store.reserve(reservation("b", rate, nanousd=90))).allowed
    await store.settle(rid("b"), usd(90))

    if actual:
        await store.settle(rid("a"), usd(actual))
    else:
        await store.release(rid("a"))

    assert await state(store, rate) == (left, 0)


async def test_a_busy_bucket_gives_back_although_more_has_drained_than_was_taken(
    ground: Ground, store: BudgetStore
) -> None:
    """50 came back in half a minute, of the 100 that were gone when 40 were taken: all 40 are still there."""
    rate = bound(100, period=MINUTE)
    for name, amount in (("before", 60), ("a", 40)):
        await store.reserve(reservation(name, rate, nanousd=amount))
    ground.advance(30)

    await store.settle(rid("a"), usd(1))

    assert await state(store, rate) == (11, 0)


async def test_two_that_close_do_not_both_get_back_the_little_that_had_not_drained(
    ground: Ground, store: BudgetStore
) -> None:
    """5 of 20 were left when others took 15. With neither of the two those 15 were all that is gone."""
    rate = bound(20, period=MINUTE)
    for name in ("a", "b"):
        await store.reserve(reservation(name, rate, nanousd=10))
    ground.advance(45)
    assert (await store.reserve(reservation("others", rate, nanousd=15))).allowed

    await store.release(rid("b"))
    await store.release(rid("a"))

    assert await state(store, rate) == (15, 0)


async def test_a_release_after_a_moment_gives_a_single_request_back(
    ground: Ground, store: BudgetStore
) -> None:
    """In 50 ms come back 0.0058 of a request: that much less is given back, not a whole one less."""
    rate = bound(7, unit=Unit.REQUESTS, period=MINUTE)
    for i in range(7):
        await store.reserve(reservation(f"r{i}", rate, requests=1))
    ground.advance(0.05)
    assert not (await store.reserve(reservation("too many", rate, requests=1))).allowed

    await store.release(rid("r0"))

    assert (await store.reserve(reservation("in its place", rate, requests=1))).allowed


async def test_a_bucket_that_takes_ages_to_drain_breaks_no_count(ground: Ground, store: BudgetStore) -> None:
    slow = bound(1, period=Period.HOUR, burst=MAX_AMOUNT)

    assert (await store.reserve(reservation("a", slow, nanousd=MAX_AMOUNT))).allowed
    ground.advance(DAY)
    await store.settle(rid("a"), usd(MAX_AMOUNT - 100))

    assert await state(store, slow) == (MAX_AMOUNT - 100 - 24, 0)


async def test_counts_near_the_largest_are_corrected_to_the_unit(ground: Ground, store: BudgetStore) -> None:
    month = bound(MAX_AMOUNT, id="month", period=Period.CALENDAR_MONTH)
    rate = bound(1, id="rate", period=Period.HOUR, burst=MAX_AMOUNT)
    for name, amount in (("first", MAX_AMOUNT - 3), ("second", 2)):
        await store.reserve(reservation(name, month, rate, nanousd=amount, lease_seconds=1))
    ground.advance(1)
    await store.sweep()
    await store.settle(rid("second"), usd(3))
    await store.settle(rid("first"), usd(MAX_AMOUNT - 4))

    assert await state(store, month) == (MAX_AMOUNT - 1, 0)
    assert (await look(store, rate)).spent == MAX_AMOUNT - 1
