"""Limits of requests that are open at the same time, for every store: who has a place, who gives it back."""

from __future__ import annotations

import pytest

from gateway.core.bucket import Amounts
from gateway.core.limits import BoundLimit, Mode, Period, Unit
from gateway.ports import BudgetStore
from tests.support.budgets import Ground, bound, look, reservation, rid, state, sweep, usd

SOON = 1.0
ONE = Amounts(requests=1, nanousd=5)
"""What an exchange costs in the end: no settlement has anything of concurrency."""


def at_once(most: int, **rest: Mode) -> BoundLimit:
    return bound(most, id="at once", unit=Unit.CONCURRENT, period=Period.OPEN, **rest)


async def test_as_many_are_admitted_as_may_be_open_at_once(store: BudgetStore) -> None:
    limit = at_once(2)

    decisions = [await store.reserve(reservation(f"r{i}", limit, concurrent=1)) for i in range(3)]

    assert [d.allowed for d in decisions] == [True, True, False]
    assert [d.binding.remaining for d in decisions if d.binding] == [1, 0, 0]
    refusal = decisions[2].binding
    assert refusal is not None
    assert (refusal.retry_after_seconds, refusal.reset_at) == (SOON, None)


@pytest.mark.parametrize("close", ["settle", "release", "sweep"])
async def test_every_close_gives_the_place_back_once(ground: Ground, store: BudgetStore, close: str) -> None:
    limit = at_once(3)
    await store.reserve(reservation("a", limit, concurrent=1, lease_seconds=10))
    await store.reserve(reservation("b", limit, concurrent=1, lease_seconds=100))
    ground.advance(10)
    if close == "settle":
        await store.settle(rid("a"), ONE)
    elif close == "release":
        await store.release(rid("a"))
    else:
        assert await sweep(store) == 1
    assert await state(store, limit) == (0, 1)

    await store.settle(rid("a"), ONE)  # late, or again
    await store.release(rid("a"))

    assert await state(store, limit) == (0, 1)


async def test_one_that_is_renewed_keeps_its_place_and_a_dead_one_loses_it(
    ground: Ground, store: BudgetStore
) -> None:
    limit = at_once(2)
    for name in ("stream", "dead"):
        await store.reserve(reservation(name, limit, concurrent=1, lease_seconds=10))
    for _ in range(20 * 24):  # 20 days: longer than any bucket of a window is kept
        ground.advance(3600 - 5)
        await store.renew(rid("stream"), 3600)
        await sweep(store)

    assert await state(store, limit) == (0, 1)
    await store.settle(rid("stream"), ONE)
    assert await state(store, limit) == (0, 0)


async def test_it_is_decided_with_all_other_limits_at_once(store: BudgetStore) -> None:
    places, day = at_once(1), bound(100)
    await store.reserve(reservation("a", places, day, concurrent=1, nanousd=40))

    no_place = await store.reserve(reservation("b", places, day, concurrent=1, nanousd=40))
    await store.settle(rid("a"), usd(40))
    no_money = await store.reserve(reservation("c", places, day, concurrent=1, nanousd=61))

    assert no_place.binding is not None and no_place.binding.bound is places
    assert no_money.binding is not None and no_money.binding.bound is day
    assert [await state(store, limit) for limit in (places, day)] == [(0, 0), (40, 0)]


async def test_one_asked_for_again_has_one_place(store: BudgetStore) -> None:
    limit = at_once(3)
    first = await store.reserve(reservation("a", limit, concurrent=1))

    assert await store.reserve(reservation("a", limit, concurrent=1)) == first
    assert await state(store, limit) == (0, 1)


async def test_a_reserve_that_comes_after_its_close_takes_no_place(store: BudgetStore) -> None:
    limit = at_once(1)
    await store.release(rid("a"))

    assert not (await store.reserve(reservation("a", limit, concurrent=1))).allowed
    assert await state(store, limit) == (0, 0)


async def test_in_shadow_more_are_open_than_may_be(store: BudgetStore) -> None:
    limit = at_once(1, mode=Mode.SHADOW)
    decisions = [await store.reserve(reservation(f"r{i}", limit, concurrent=1)) for i in range(3)]

    assert [d.shadow_refusals for d in decisions] == [(), ("at once",), ("at once",)]
    assert (await look(store, limit)).set_aside == 3


async def test_what_may_never_be_open_is_told_not_to_wait(store: BudgetStore) -> None:
    refusal = (await store.reserve(reservation("a", at_once(0), concurrent=1))).binding

    assert refusal is not None and refusal.retry_after_seconds is None
