"""What every `BudgetStore` promises, for memory, SQLite and a real Redis alike."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.limits import MAX_AMOUNT, Mode, Period, Unit
from gateway.core.reservations import SWEEP_BATCH
from gateway.ports import BudgetStore
from tests.support.budgets import Ground, bound, look, reservation, rid, state, sweep, usd

DAY = 86_400
MINUTE = Period.MINUTE


async def test_what_is_set_aside_is_not_there_for_others(store: BudgetStore) -> None:
    limit = bound(100)

    decision = await store.reserve(reservation("a", limit, nanousd=60))

    assert decision.allowed and decision.binding is not None
    assert decision.binding.remaining == 40
    assert not (await store.reserve(reservation("b", limit, nanousd=41))).allowed
    assert (await store.reserve(reservation("c", limit, nanousd=40))).allowed


async def test_a_refusal_sets_nothing_aside_on_any_limit(store: BudgetStore) -> None:
    wide, tight = bound(1000, id="wide"), bound(10, id="tight")
    rate = bound(1000, id="rate", period=MINUTE)

    decision = await store.reserve(reservation("a", wide, rate, tight, nanousd=11))

    assert not decision.allowed and decision.binding is not None
    assert decision.binding.bound is tight
    assert [v.remaining for v in decision.verdicts] == [1000, 1000, 10]
    for limit in (wide, rate, tight):
        assert await state(store, limit) == (0, 0)


async def test_a_second_reserve_with_one_id_gives_the_first_answer_and_takes_nothing(
    ground: Ground, store: BudgetStore
) -> None:
    limits = (bound(100), bound(100, id="rate", period=MINUTE))
    first = await store.reserve(reservation("a", *limits, nanousd=60))
    ground.advance(7)

    again = await store.reserve(reservation("a", *limits, nanousd=60))

    assert again == first
    assert await state(store, limits[0]) == (0, 60)


async def test_the_first_answer_is_given_again_after_the_close(store: BudgetStore) -> None:
    limit = bound(100)
    first = await store.reserve(reservation("a", limit, nanousd=60))
    await store.settle(rid("a"), usd(10))

    assert await store.reserve(reservation("a", limit, nanousd=60)) == first
    assert await state(store, limit) == (10, 0)


async def test_a_refusal_stays_a_refusal_for_its_id(store: BudgetStore) -> None:
    limit = bound(100)
    await store.reserve(reservation("other", limit, nanousd=90))
    refusal = await store.reserve(reservation("a", limit, nanousd=20))
    await store.release(rid("other"))

    assert not refusal.allowed
    assert await store.reserve(reservation("a", limit, nanousd=20)) == refusal
    assert await state(store, limit) == (0, 0)


async def test_trap_60_settling_for_less_gives_the_rest_back(ground: Ground, store: BudgetStore) -> None:
    day, rate = bound(100), bound(100, id="rate", period=MINUTE)
    await store.reserve(reservation("a", day, rate, nanousd=80))
    await store.settle(rid("a"), usd(30))

    assert await state(store, day) == (30, 0)
    assert await state(store, rate) == (30, 0)


async def test_trap_61_an_overrun_is_charged_and_the_bucket_goes_below_zero(
    ground: Ground, store: BudgetStore
) -> None:
    day, rate = bound(100), bound(60, id="rate", period=MINUTE)
    await store.reserve(reservation("a", day, rate, nanousd=50))
    await store.settle(rid("a"), usd(130))

    assert await state(store, day) == (130, 0)
    assert (await look(store, day)).remaining == 0
    assert await state(store, rate) == (130, 0)
    ground.advance(70)  # one unit a second comes back; 70 below zero, so that is just at zero
    assert not (await store.reserve(reservation("b", rate, nanousd=1))).allowed
    ground.advance(1)
    assert (await store.reserve(reservation("c", rate, nanousd=1))).allowed


async def test_a_unit_that_nothing_was_reserved_of_is_charged_all_the_same(store: BudgetStore) -> None:
    day, rate = bound(100), bound(60, id="rate", unit=Unit.OUTPUT_TOKENS, period=MINUTE)
    await store.reserve(reservation("a", day, rate))
    await store.settle(rid("a"), replace(usd(7), output_tokens=9))

    assert await state(store, day) == (7, 0)
    assert await state(store, rate) == (9, 0)


async def test_a_request_of_nothing_passes_a_bucket_below_zero(store: BudgetStore) -> None:
    day = bound(100)
    await store.reserve(reservation("a", day, nanousd=50))
    await store.settle(rid("a"), usd(130))

    assert (await store.reserve(reservation("free", day))).allowed


async def test_each_unit_counts_its_own_amount(store: BudgetStore) -> None:
    units = [bound(100, id=unit, unit=unit) for unit in Unit if unit is not Unit.CONCURRENT]
    asked = reservation(
        "a", *units, requests=1, input_tokens=20, output_tokens=30, nanousd=40, prompt_tokens=50
    )
    await store.reserve(asked)

    assert [await state(store, limit) for limit in units] == [(0, 1), (0, 20), (0, 30), (0, 40), (0, 50)]
    await store.settle(rid("a"), replace(asked.amounts, input_tokens=21, output_tokens=29))
    assert [await state(store, limit) for limit in units] == [(1, 0), (21, 0), (29, 0), (40, 0), (50, 0)]


@pytest.mark.parametrize("period", [Period.CALENDAR_DAY, MINUTE])
async def test_only_the_first_close_counts(store: BudgetStore, period: Period) -> None:
    limit = bound(100, period=period)
    for name in ("settled", "released"):
        await store.reserve(reservation(name, limit, nanousd=10))
    await store.settle(rid("settled"), usd(5))
    await store.release(rid("released"))

    for name in ("settled", "released", "never reserved"):
        await store.settle(rid(name), usd(50))
        await store.release(rid(name))
        await store.settle(rid(name), usd(70))

    assert await state(store, limit) == (5, 0)


async def test_a_reserve_that_arrives_after_its_own_close_opens_nothing(store: BudgetStore) -> None:
    """The caller was cancelled and closed it, while the reserve was still on its way."""
    limit = bound(100)
    await store.release(rid("a"))

    decision = await store.reserve(reservation("a", limit, nanousd=60))

    assert not decision.allowed and decision.binding is None
    assert await state(store, limit) == (0, 0)
    assert await sweep(store) == 0


async def test_a_late_settlement_books_into_the_window_of_its_reservation(
    ground: Ground, store: BudgetStore
) -> None:
    limit = bound(100)
    await store.reserve(reservation("a", limit, nanousd=60, lease_seconds=3 * DAY))
    ground.advance(DAY)
    assert await state(store, limit) == (0, 0)

    await store.settle(rid("a"), usd(90))

    assert await state(store, limit) == (0, 0)
    assert (await store.reserve(reservation("b", limit, nanousd=100))).allowed


async def test_settlement_ignores_what_is_configured_by_now(store: BudgetStore) -> None:
    before = bound(100)
    await store.reserve(reservation("a", before, nanousd=60))
    raised = bound(500)  # the same limit after a reload

    await store.settle(rid("a"), usd(70))

    assert await state(store, raised) == (70, 0)
    assert (await look(store, raised)).remaining == 430


async def test_a_changed_time_zone_does_not_forget_what_was_spent(store: BudgetStore) -> None:
    await store.reserve(reservation("a", bound(100), nanousd=60))
    await store.settle(rid("a"), usd(60))

    assert await state(store, bound(100, timezone="Europe/Berlin")) == (60, 0)


async def test_sweep_closes_what_outlived_its_lease_at_what_it_set_aside(
    ground: Ground, store: BudgetStore
) -> None:
    day, rate = bound(100), bound(100, id="rate", period=Period.HOUR)
    await store.reserve(reservation("dead", day, rate, nanousd=60, lease_seconds=10))
    await store.reserve(reservation("alive", day, nanousd=5, lease_seconds=100))
    ground.advance(9.999)
    assert await sweep(store) == 0
    ground.advance(0.001)

    assert await sweep(store) == 1
    assert await state(store, day) == (60, 5)
    assert await state(store, rate) == (60, 0)
    assert await sweep(store) == 0


@pytest.mark.parametrize("actual", [0, 20, 95])
async def test_a_late_settlement_replaces_what_the_sweep_presumed(
    ground: Ground, store: BudgetStore, actual: int
) -> None:
    day, rate = bound(100), bound(100, id="rate", period=Period.HOUR)
    await store.reserve(reservation("a", day, rate, nanousd=60, lease_seconds=10))
    ground.advance(10)
    await sweep(store)

    if actual:
        await store.settle(rid("a"), usd(actual))
    else:
        await store.release(rid("a"))
    await store.settle(rid("a"), usd(1))

    assert await state(store, day) == (actual, 0)
    assert (await look(store, rate)).spent == actual


async def test_renewing_keeps_a_reservation_open(ground: Ground, store: BudgetStore) -> None:
    limit = bound(100)
    await store.reserve(reservation("a", limit, nanousd=60, lease_seconds=10))
    ground.advance(9)
    await store.renew(rid("a"), 10)
    await store.renew(rid("a"), 10)
    ground.advance(9)
    assert await sweep(store) == 0
    ground.advance(1)
    assert await sweep(store) == 1
    await store.renew(rid("a"), 10)
    await store.renew(rid("never reserved"), 10)

    assert await state(store, limit) == (60, 0)
    assert (await store.reserve(reservation("never reserved", limit, nanousd=1))).allowed


async def test_a_sweep_is_bounded_and_the_next_goes_on(ground: Ground, store: BudgetStore) -> None:
    limit = bound(1000)
    for i in range(SWEEP_BATCH + 3):
        await store.reserve(reservation(f"r{i}", limit, nanousd=1, lease_seconds=10))
    ground.advance(10)

    assert [await sweep(store) for _ in range(3)] == [SWEEP_BATCH, 3, 0]
    assert await state(store, limit) == (SWEEP_BATCH + 3, 0)


async def test_a_shadow_limit_never_refuses_but_counts(store: BudgetStore) -> None:
    shadow, real = bound(10, id="shadow", mode=Mode.SHADOW), bound(100, id="real")

    first = await store.reserve(reservation("a", shadow, real, nanousd=11))
    assert first.allowed and first.shadow_refusals == ("shadow",)
    assert first.binding is not None and first.binding.bound is real
    await store.settle(rid("a"), usd(11))
    second = await store.reserve(reservation("b", shadow, real, nanousd=95))

    assert not second.allowed and second.shadow_refusals == ("shadow",)
    assert await state(store, shadow) == (11, 0)


async def test_a_request_above_the_capacity_is_told_not_to_wait(store: BudgetStore) -> None:
    for limit in (bound(100), bound(100, id="rate", period=MINUTE, burst=50)):
        decision = await store.reserve(reservation(limit.limit.id, limit, nanousd=101))

        assert not decision.allowed and decision.binding is not None
        assert decision.binding.retry_after_seconds is None


@pytest.mark.parametrize("amount", [1, 7, 997, 1_000_003, MAX_AMOUNT])
async def test_a_rate_refusal_names_the_very_moment_at_which_the_same_request_passes(
    ground: Ground, store: BudgetStore, amount: int
) -> None:
    rate = bound(amount, period=Period.HOUR)
    await store.reserve(reservation("all", rate, nanousd=amount))
    want = max(amount // 3, 1)
    refusal = (await store.reserve(reservation("no", rate, nanousd=want))).binding
    assert refusal is not None and refusal.retry_after_seconds is not None

    wait_ms = round(refusal.retry_after_seconds * 1000)
    ground.advance((wait_ms - 1) / 1000)
    assert not (await store.reserve(reservation("too early", rate, nanousd=want))).allowed
    ground.advance(0.001)
    assert (await store.reserve(reservation("in time", rate, nanousd=want))).allowed


async def test_what_comes_back_in_fractions_of_a_unit_is_not_lost(ground: Ground, store: BudgetStore) -> None:
    """Each 7 ms bring 0.11633 of a unit, and each reservation looks at the bucket."""
    rate = bound(997, period=MINUTE)
    await store.reserve(reservation("all", rate, nanousd=900))
    for i in range(60):
        ground.advance(0.007)
        await store.reserve(reservation(f"r{i}", rate, nanousd=1))

    assert (await look(store, rate)).spent == 900 + 60 - (60 * 7 * 997) // 60_000


async def test_a_spent_window_says_when_it_ends(ground: Ground, store: BudgetStore) -> None:
    limit = bound(100)
    await store.reserve(reservation("a", limit, nanousd=100))
    await store.settle(rid("a"), usd(100))
    left = DAY - ground.clock.now() % DAY

    refusal = (await store.reserve(reservation("b", limit, nanousd=1))).binding

    assert refusal is not None
    assert refusal.retry_after_seconds == left
    assert refusal.reset_at == ground.clock.now() + left
    ground.advance(left)
    assert (await store.reserve(reservation("c", limit, nanousd=100))).allowed


async def test_open_reservations_alone_make_a_refusal_short(store: BudgetStore) -> None:
    """They may settle for less at any moment: no reason to send a caller away until next month."""
    limit = bound(100, period=Period.CALENDAR_MONTH)
    await store.reserve(reservation("a", limit, nanousd=90))

    refusal = (await store.reserve(reservation("b", limit, nanousd=20))).binding

    assert refusal is not None and refusal.retry_after_seconds == 1.0


async def test_a_clock_that_goes_back_gives_nothing_twice(ground: Ground, store: BudgetStore) -> None:
    rate = bound(60, period=MINUTE)
    await store.reserve(reservation("a", rate, nanousd=60))
    ground.advance(30)
    assert (await store.reserve(reservation("b", rate, nanousd=30))).allowed
    ground.clock.jump(-20)
    ground.tell_time()
    assert not (await store.reserve(reservation("c", rate, nanousd=1))).allowed
    assert (await look(store, rate)).spent == 60
    ground.advance(20)

    assert (await look(store, rate)).remaining == 0


async def test_a_rate_goes_on_when_a_clock_that_was_ahead_for_days_is_set_right(
    ground: Ground, store: BudgetStore
) -> None:
    """Three days ahead all of the minute was taken; also while all that comes is refused."""
    rate, day = bound(60, period=MINUTE), bound(100, id="day")
    ground.advance(3 * DAY)
    assert (await store.reserve(reservation("ahead", rate, day, nanousd=60))).allowed
    ground.clock.jump(-3 * DAY)
    ground.tell_time()
    refusal = (await store.reserve(reservation("a", rate, day, nanousd=10))).binding
    assert refusal is not None and refusal.retry_after_seconds == 10
    assert await state(store, day) == (0, 0)

    ground.advance(5)
    assert not (await store.reserve(reservation("b", rate, nanousd=10))).allowed
    ground.advance(5)
    assert (await store.reserve(reservation("c", rate, nanousd=10))).allowed
    await store.settle(rid("ahead"), usd(1))
    assert await state(store, rate) == (60, 0), "nobody knows what of it drained"
    ground.advance(30)
    for i in range(100):
        ground.advance(1)
        assert (await store.reserve(reservation(f"one a second {i}", rate, nanousd=1))).allowed


async def test_absurd_amounts_are_refused_and_break_no_count(store: BudgetStore) -> None:
    limit, shadow = bound(MAX_AMOUNT), bound(10, id="shadow", mode=Mode.SHADOW)

    assert not (await store.reserve(reservation("a", limit, nanousd=10**30))).allowed
    for i in range(3):
        assert (await store.reserve(reservation(f"s{i}", shadow, nanousd=10**30))).allowed
        await store.settle(rid(f"s{i}"), usd(10**30))
    assert await state(store, limit) == (0, 0)
    assert await state(store, shadow) == (MAX_AMOUNT + 1, 0)


async def test_a_limit_of_zero_lets_only_nothing_pass(store: BudgetStore) -> None:
    frozen = bound(0)

    assert not (await store.reserve(reservation("a", frozen, nanousd=1))).allowed
    assert (await store.reserve(reservation("b", frozen))).allowed


async def test_peek_changes_nothing(store: BudgetStore) -> None:
    limits = [bound(100), bound(100, id="rate", period=MINUTE)]
    before = await store.peek(limits)

    assert [v.remaining for v in before] == [100, 100]
    assert await store.peek(limits) == before
    assert await store.peek([]) == ()
    await store.ping()
