"""What a close gives back, in every store: of a rate, only what time has not given back already."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.bucket import Payer
from gateway.core.limits import MAX_AMOUNT, BoundLimit, Period, Unit
from gateway.core.settlement import afterwards
from gateway.ports import BudgetStore
from tests.support.budgets import Ground, bound, look, reservation, rid, state, sweep, usd

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


@pytest.mark.parametrize("begin", [0, MAX_AMOUNT - 5])
async def test_what_others_got_back_in_the_meantime_is_not_given_back_again(
    ground: Ground, store: BudgetStore, begin: int
) -> None:
    """All of the first 30 came back at once, the other 30 drained; then others took all there was. However
    much the bucket had given back before, so that its count begins again."""
    rate = bound(60, period=MINUTE)
    for name in ("a", "b"):
        await store.reserve(reservation(name, rate, nanousd=30))
        if name == "a":
            given_back_so_far(ground, store, rate, begin)
    await store.release(rid("a"))
    ground.advance(30)
    assert (await store.reserve(reservation("others", rate, nanousd=60))).allowed

    await store.release(rid("b"))

    assert await state(store, rate) == (60, 0)


def given_back_so_far(ground: Ground, store: BudgetStore, rate: BoundLimit, units: int) -> None:
    """No store can be driven there in a test's time. SQLite runs the Python that memory runs."""
    if ground.redis is not None:
        key = f"{{{ground.prefix}}}:b:{rate.bucket_id}"
        assert ground.redis.command("HSET", key, "given_back", str(units)) == b":0\r\n"
    elif isinstance(store, MemoryBudgets):
        level, keep_until_ms = store._tables._levels[rate.bucket_id]
        store._tables.put_level(rate.bucket_id, replace(level, given_back=units), keep_until_ms)


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
    await sweep(store)
    await store.settle(rid("second"), usd(3))
    await store.settle(rid("first"), usd(MAX_AMOUNT - 4))

    assert await state(store, month) == (MAX_AMOUNT - 1, 0)
    assert (await look(store, rate)).spent == MAX_AMOUNT - 1


async def test_what_is_booked_afterwards_counts_in_the_window_of_its_call(
    ground: Ground, store: BudgetStore
) -> None:
    limit = bound(1000, period=Period.CALENDAR_DAY)
    payer = Payer(received_at_ms=round(ground.clock.now() * 1000))
    call = replace(reservation("a", limit, nanousd=60), payer=payer)
    ground.advance(86_400)
    late = afterwards(call, usd(60))
    await store.reserve(late)
    await store.settle(late.id, usd(60))

    assert await state(store, limit) == (0, 0)
    ground.clock.jump(-86_400)
    ground.tell_time()
    assert await state(store, limit) == (60, 0)
