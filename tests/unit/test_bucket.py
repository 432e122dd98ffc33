"""Arithmetic of buckets: exact, and the same however often one looks."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.bucket import (
    MORE_THAN_ANY,
    Amounts,
    Level,
    Standing,
    Verdict,
    corrected,
    decide,
    drained,
    fits,
    saturated,
    spend,
    stricter,
)
from gateway.core.limits import MAX_AMOUNT, Mode, Period, Unit
from gateway.core.windows import Window
from tests.support.budgets import bound


@given(
    spent=st.integers(0, MORE_THAN_ANY),
    rate=st.integers(1, MORE_THAN_ANY - 1),
    period_ms=st.sampled_from([1_000, 60_000, 3_600_000]),
    steps=st.lists(st.integers(0, 10**7), max_size=20),
)
def test_looking_often_drains_exactly_what_looking_once_does(
    spent: int, rate: int, period_ms: int, steps: list[int]
) -> None:
    level = Level(spent=spent)
    now_ms = 0
    for step in steps:
        now_ms += step
        level = drained(level, rate, period_ms, now_ms)
    once = drained(Level(spent=spent), rate, period_ms, now_ms)

    assert (once.spent, once.fraction) == (level.spent, level.fraction)
    left = max(Fraction(0), spent - Fraction(now_ms * rate, period_ms))
    assert level.spent == -(-left.numerator // left.denominator)


def test_a_clock_that_goes_back_drains_nothing_and_is_waited_for() -> None:
    level = drained(Level(spent=60, at_ms=30_000), 60, 60_000, 10_000)

    assert level == Level(spent=60, at_ms=30_000)
    assert drained(Level(at_ms=30_000), 60, 60_000, 10_000).at_ms == 30_000


def test_a_clock_that_was_ahead_by_more_than_a_period_is_not_waited_for() -> None:
    level = Level(spent=60, fraction=7, at_ms=70_000, given_back=5)

    assert drained(level, 60, 60_000, 10_000) == level
    set_back = drained(level, 60, 60_000, 9_999)
    assert set_back == replace(level, at_ms=9_999)
    assert drained(set_back, 60, 60_000, 19_999).spent == 50
    assert drained(Level(at_ms=70_000), 60, 60_000, 9_999).at_ms == 9_999


def test_a_bucket_that_is_empty_again_keeps_no_fraction() -> None:
    assert drained(Level(spent=1), 3, 1_000, 400) == Level(at_ms=400)


def test_getting_back_stops_at_an_empty_bucket() -> None:
    assert spend(Level(spent=5, fraction=3, at_ms=7), -9) == Level(at_ms=7)
    assert spend(Level(spent=5, fraction=3, at_ms=7), 4) == Level(spent=9, fraction=3, at_ms=7)


levels = st.builds(
    Level,
    spent=st.integers(1, MORE_THAN_ANY),
    fraction=st.integers(0, 999),
    given_back=st.sampled_from([0, 5, 10**6, MORE_THAN_ANY - 1, MORE_THAN_ANY]),
)


@given(
    level=levels,
    taken=levels,
    amount=st.integers(0, MORE_THAN_ANY),
    actual=st.integers(0, MORE_THAN_ANY),
    rate=st.one_of(st.integers(1, 1000), st.integers(1, MORE_THAN_ANY - 1)),
    elapsed_ms=st.one_of(st.integers(-10, 10**6), st.integers(86_399_999, 86_400_001)),
)
def test_a_correction_gives_back_exactly_what_was_neither_used_nor_drained(
    level: Level, taken: Level, amount: int, actual: int, rate: int, elapsed_ms: int
) -> None:
    after = corrected(level, replace(taken, at_ms=-elapsed_ms), amount, actual, rate, 1_000)

    gone, then = (
        level.spent - Fraction(level.fraction, 1_000),
        taken.spent - Fraction(taken.fraction, 1_000),
    )
    back = Fraction(0)
    if actual > amount:
        expected = min(gone + actual - amount, MORE_THAN_ANY - Fraction(level.fraction, 1_000))
    else:
        drained_since = Fraction(elapsed_ms * rate, 1_000)
        left = amount - drained_since
        if elapsed_ms < 86_400_000:
            given_back = (level.given_back - taken.given_back) % 2**53
            left = max(left, then - drained_since - given_back)
        if elapsed_ms >= 0:  # else a clock that was ahead took it, and nobody knows how long ago
            back = max(Fraction(0), min(Fraction(amount - actual), left, gone))
        expected = gone - back
    assert after.spent - Fraction(after.fraction, 1_000) == expected
    assert 0 <= after.fraction < 1_000
    assert (after.given_back - level.given_back) % 2**53 == ceil(back)


@pytest.mark.parametrize("lasting_ms", [1_000, 10_000, 15_000])
def test_a_saturated_rate_is_used_up_though_estimates_are_four_times_too_high(
    lasting_ms: int,
) -> None:
    """As many as fit at any time, each reserved at 20,000, settled at 5,000 after so long, for 8 minutes."""
    rate, minute = 400_000, 60_000
    estimate, actual, step_ms = 20_000, 5_000, 50
    level, open_, used = Level(), deque[Level](), [0] * (8 * minute // step_ms)
    for step in range(len(used)):
        level = drained(level, rate, minute, step * step_ms)
        while open_ and open_[0].at_ms + lasting_ms <= level.at_ms:
            level = corrected(level, open_.popleft(), estimate, actual, rate, minute)
        while fits(level, rate, estimate):
            level = spend(level, estimate)
            open_.append(level)
            used[step] += actual

    a_minute = minute // step_ms
    assert min(sum(used[i : i + a_minute]) for i in range(0, len(used), a_minute)) >= 0.9 * rate
    # The worst window of all: the largest sum of what was used less what came back.
    worst = most = Fraction(0)
    for units in used:
        worst = max(worst - Fraction(rate * step_ms, minute), Fraction(0)) + units
        most = max(most, worst)
    assert most <= rate


def test_counts_stop_where_every_store_still_counts_exactly() -> None:
    assert saturated(10**30) == MORE_THAN_ANY == 2**53 - 1
    assert saturated(-1) == 0
    assert Amounts(nanousd=10**30).of(Unit.NANOUSD) == MORE_THAN_ANY


def test_negative_amounts_are_a_broken_invariant() -> None:
    with pytest.raises(AssertionError):
        Amounts(nanousd=-1).of(Unit.NANOUSD)


@pytest.mark.parametrize(
    ("level", "amount", "expected"),
    [
        (Level(spent=40, set_aside=30), 30, True),
        (Level(spent=40, set_aside=30), 31, False),
        (Level(spent=130), 1, False),
        (Level(spent=130), 0, True),
    ],
)
def test_what_fits_is_what_is_neither_spent_nor_set_aside(level: Level, amount: int, expected: bool) -> None:
    assert fits(level, 100, amount) is expected


def a_verdict(
    allowed: bool, *, retry: float | None = 0.0, remaining: int = 0, amount: int = 100, id: str = "x"
) -> Verdict:
    return Verdict(
        bound=bound(amount, id=id),
        allowed=allowed,
        remaining=remaining,
        retry_after_seconds=retry,
        reset_at=None,
    )


@pytest.mark.parametrize(
    ("strict", "lenient"),
    [
        (a_verdict(False, retry=1), a_verdict(True)),
        (a_verdict(False, retry=None), a_verdict(False, retry=9e9)),
        (a_verdict(False, retry=9), a_verdict(False, retry=8)),
        (a_verdict(True, remaining=9, amount=100), a_verdict(True, remaining=1, amount=10)),
        (a_verdict(True, remaining=0, amount=0), a_verdict(True, remaining=1, amount=10)),
    ],
)
def test_the_stricter_verdict_wins_in_either_order(strict: Verdict, lenient: Verdict) -> None:
    assert stricter(strict, lenient) is strict
    assert stricter(lenient, strict) is strict


def test_of_equally_strict_verdicts_the_first_is_kept() -> None:
    first, second = a_verdict(True, id="first"), a_verdict(True, id="second")

    assert stricter(first, second) is first


def test_a_decision_of_no_limits_allows() -> None:
    assert decide((), Amounts(nanousd=5), (), 0).allowed


def test_remaining_and_reset_count_what_was_just_taken() -> None:
    rate = bound(60, period=Period.MINUTE)
    decision = decide([rate], Amounts(nanousd=30), [Standing(Level(at_ms=5_000))], 5_000)

    assert decision.binding is not None
    assert (decision.binding.remaining, decision.binding.reset_at) == (30, 35.0)


def test_a_rate_that_fills_up_after_the_end_of_the_calendar_says_the_end() -> None:
    slow = bound(1, period=Period.HOUR, burst=MAX_AMOUNT)
    decision = decide([slow], Amounts(nanousd=MAX_AMOUNT), [Standing(Level())], 0)

    assert decision.binding is not None and decision.binding.reset_at is not None
    assert datetime.fromtimestamp(decision.binding.reset_at, UTC).year == 9999


def test_a_wait_is_rounded_up_and_knows_of_fractions() -> None:
    rate = bound(7, period=Period.SECOND)
    full = Standing(Level(spent=7, fraction=999))
    verdict = decide([rate], Amounts(nanousd=1), [full], 0).verdicts[0]

    assert verdict.retry_after_seconds == 0.001


def test_only_shadow_limits_leave_nothing_binding() -> None:
    shadow = bound(10, mode=Mode.SHADOW)
    window = Window("2026-11-01", 0, 1000)
    decision = decide([shadow], Amounts(nanousd=11), [Standing(Level(), window)], 0)

    assert decision.allowed and decision.binding is None
    assert decision.shadow_refusals == ("limit",)
    assert [v.allowed for v in decision.verdicts] == [False]
