"""Budgets under concurrency, cancellation and death, for every store; among it the faults that users of a
peer reported, each by its number there."""

from __future__ import annotations

import asyncio

from gateway.ports import BudgetStore
from tests.support.budgets import Ground, bound, reservation, rid, state, sweep, usd

DAY = 86_400


async def test_many_at_once_through_two_objects_are_admitted_up_to_the_limit_exactly(ground: Ground) -> None:
    stores = [await ground.store(), await ground.store()]
    limit = bound(100)

    decisions = await asyncio.gather(
        *(stores[i % 2].reserve(reservation(f"r{i}", limit, nanousd=10)) for i in range(50))
    )

    assert sum(d.allowed for d in decisions) == 10
    assert await state(stores[0], limit) == (0, 100)


async def test_any_replica_can_close_what_another_opened(ground: Ground) -> None:
    one, other = await ground.store(), await ground.store()
    limit = bound(100)
    await one.reserve(reservation("a", limit, nanousd=60))
    await other.settle(rid("a"), usd(10))
    await one.settle(rid("a"), usd(60))

    assert await state(one, limit) == (10, 0)


async def test_a_cancelled_reserve_that_is_then_closed_leaves_nothing_open(store: BudgetStore) -> None:
    """At whatever await the cancellation strikes."""
    limit = bound(1000)
    finished = 0
    for turns in range(60):
        name = f"r{turns}"
        asking = asyncio.get_running_loop().create_task(store.reserve(reservation(name, limit, nanousd=10)))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        finished += not isinstance((await asyncio.gather(asking, return_exceptions=True))[0], BaseException)
        await store.release(rid(name))

    assert await state(store, limit) == (0, 0)
    assert await sweep(store) == 0
    assert finished < 60, "no cancellation ever struck"


async def test_closing_again_and_again_from_everywhere_equals_closing_once(ground: Ground) -> None:
    """LiteLLM #28247: pods that each repeated a correction added it up."""
    stores = [await ground.store(), await ground.store()]
    limit = bound(1000)
    await stores[0].reserve(reservation("a", limit, nanousd=60))

    await asyncio.gather(*(stores[i % 2].settle(rid("a"), usd(40)) for i in range(20)))

    assert await state(stores[0], limit) == (40, 0)


async def test_a_process_that_dies_leaves_no_phantom_behind(ground: Ground, store: BudgetStore) -> None:
    """LiteLLM #27639: what had been reserved by requests that never ended stayed reserved."""
    limit = bound(100)
    await store.reserve(reservation("a", limit, nanousd=100, lease_seconds=30))
    ground.advance(30)
    await sweep(await ground.store())

    assert await state(store, limit) == (100, 0)
    await store.settle(rid("a"), usd(1))
    assert (await store.reserve(reservation("b", limit, nanousd=99))).allowed


async def test_after_everything_is_settled_nobody_is_refused_wrongly(store: BudgetStore) -> None:
    """LiteLLM #36926: refusals although the budget had room."""
    limit = bound(100)
    for i in range(30):
        assert (await store.reserve(reservation(f"r{i}", limit, nanousd=86))).allowed
        await store.settle(rid(f"r{i}"), usd(i % 2))

    assert await state(store, limit) == (15, 0)
    assert (await store.reserve(reservation("last", limit, nanousd=85))).allowed


async def test_check_and_charge_are_one_step(ground: Ground) -> None:
    """LiteLLM #34732: concurrent requests of one session each saw the budget before the others' charge."""
    stores = [await ground.store(), await ground.store()]
    limit = bound(100)

    async def one(i: int) -> bool:
        store = stores[i % 2]
        decision = await store.reserve(reservation(f"r{i}", limit, nanousd=30))
        if decision.allowed:
            await store.settle(rid(f"r{i}"), usd(30))
        return decision.allowed

    admitted = sum(await asyncio.gather(*(one(i) for i in range(40))))

    assert admitted == 3
    assert await state(stores[0], limit) == (90, 0)


async def test_a_settlement_during_the_rollover_does_not_overwrite_the_new_window(
    ground: Ground, store: BudgetStore
) -> None:
    """LiteLLM #34733: the reset of a window and a charge overwrote each other."""
    limit = bound(100)
    await store.reserve(reservation("old", limit, nanousd=60, lease_seconds=2 * DAY))
    ground.advance(DAY - ground.clock.now() % DAY - 0.001)
    assert await state(store, limit) == (0, 60)
    ground.advance(0.001)
    await store.reserve(reservation("new", limit, nanousd=25))
    await store.settle(rid("old"), usd(60))
    await store.settle(rid("new"), usd(20))

    assert await state(store, limit) == (20, 0)
