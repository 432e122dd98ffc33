"""What a store presumes spent by itself, in every store: one ledger is told, until it says that it has it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.redis_budgets import LOST_MS, RedisBudgets
from gateway.core.bucket import Payer, Presumed
from gateway.core.reservations import SWEEP_BATCH
from gateway.ports import BudgetStore
from tests.support.budgets import Ground, bound, reservation, rid, state, sweep, usd

PAYER = Payer(
    received_at_ms=1_790_000_000_123,
    organisation="org",
    workspace="w",
    key_id="k",
    route="default",
    model="claude-test-1",
    endpoint="messages",
    tags=(("x-team", "süd"),),
)
LIMIT = bound(1000)


async def _dead(ground: Ground, store: BudgetStore, *names: str, nanousd: int = 60) -> None:
    """Reservations whose replica died."""
    for name in names:
        asked = reservation(name, LIMIT, nanousd=nanousd, lease_seconds=5)
        await store.reserve(replace(asked, payer=PAYER))
    ground.advance(6)


async def test_a_sweep_says_who_is_presumed_to_have_spent_how_much(
    ground: Ground, store: BudgetStore
) -> None:
    await _dead(ground, store, "a")

    assert await store.sweep("one") == (Presumed(reservation_id=rid("a"), payer=PAYER, nanousd=60),)


async def test_what_is_not_booked_is_said_again_to_the_same_ledger_only(
    ground: Ground, store: BudgetStore
) -> None:
    await _dead(ground, store, "a", "b")
    found = await store.sweep("one")

    assert await store.sweep("two") == ()
    assert set(await store.sweep("one")) == set(found)
    await store.booked("one", [found[0].id, "never:heard"])
    assert await store.sweep("one") == found[1:]
    await store.booked("one", [found[1].id])
    assert await store.sweep("one") == ()


@pytest.mark.parametrize("actual", [0, 10, 90])
async def test_a_late_close_takes_back_all_that_was_presumed(
    ground: Ground, store: BudgetStore, actual: int
) -> None:
    """The exchange's own entry says what it cost; the counter and both entries have one sum."""
    await _dead(ground, store, "a")
    await sweep(store, "one")

    await (store.settle(rid("a"), usd(actual)) if actual else store.release(rid("a")))

    taken_back = Presumed(reservation_id=rid("a"), payer=PAYER, nanousd=-60, taken_back=True)
    assert await store.sweep("one") == (taken_back,)
    assert await store.sweep("two") == ()
    assert await state(store, LIMIT) == (60 - 60 + actual, 0)


async def test_closing_twice_takes_back_once(ground: Ground, store: BudgetStore) -> None:
    await _dead(ground, store, "a")
    await sweep(store)
    for _ in range(2):
        await store.settle(rid("a"), usd(10))

    (found,) = await store.sweep("books")
    await store.booked("books", [found.id])
    await store.settle(rid("a"), usd(10))

    assert await store.sweep("books") == ()


async def test_what_was_presumed_and_not_booked_is_taken_back_all_the_same(
    ground: Ground, store: BudgetStore
) -> None:
    await _dead(ground, store, "a")
    await store.sweep("one")
    await store.settle(rid("a"), usd(10))

    assert sorted(found.nanousd for found in await store.sweep("one")) == [-60, 60]


async def test_a_reservation_that_is_closed_in_time_is_never_presumed(
    ground: Ground, store: BudgetStore
) -> None:
    for name in ("settled", "released"):
        await store.reserve(reservation(name, LIMIT, nanousd=60, lease_seconds=5))
    await store.settle(rid("settled"), usd(10))
    await store.release(rid("released"))
    ground.advance(6)

    assert await store.sweep("one") == ()


async def test_a_sweep_says_a_bounded_number_and_the_rest_later(ground: Ground, store: BudgetStore) -> None:
    await _dead(ground, store, *(f"r{i}" for i in range(SWEEP_BATCH + 3)), nanousd=1)

    names = set()
    for expected in (SWEEP_BATCH, 3, 0):
        found = await store.sweep("one")
        assert len(found) == expected
        names |= {one.id for one in found}
        await store.booked("one", [one.id for one in found])
    assert len(names) == SWEEP_BATCH + 3


async def test_it_is_there_for_another_object_on_the_same_state(ground: Ground, store: BudgetStore) -> None:
    """The replica that swept died before it could book."""
    await _dead(ground, store, "a")
    found = await store.sweep("one")

    assert await (await ground.store()).sweep("one") == found


async def test_what_a_ledger_that_is_lost_was_given_goes_to_another(
    ground: Ground, store: BudgetStore
) -> None:
    """In the files of one machine there is but one ledger."""
    if not isinstance(store, RedisBudgets):
        return
    await _dead(ground, store, "a")
    found = await store.sweep("one")
    ground.advance(LOST_MS / 1000 - 1)
    assert await store.sweep("two") == ()
    ground.advance(2)

    assert await store.sweep("two") == found
    assert await store.sweep("one") == ()
