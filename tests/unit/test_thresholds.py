"""Soft thresholds: each is told once, whoever led past it, and none too early."""

from __future__ import annotations

import pytest

from gateway.core.bucket import Amounts, Verdict
from gateway.core.limits import BoundLimit, Limit, Period, Scope, Unit
from gateway.core.thresholds import MAX_REMEMBERED, Crossing, Thresholds, crossed

NOVEMBER, DECEMBER = 1_796_083_200.0, 1_798_761_600.0
"""When the windows end."""


def a_limit(amount: int = 1_000, warn_at: tuple[float, ...] = (0.5, 0.8)) -> Limit:
    return Limit(
        id="month",
        scope=Scope.WORKSPACE,
        unit=Unit.NANOUSD,
        amount=amount,
        period=Period.CALENDAR_MONTH,
        warn_at=warn_at,
    )


def found(
    spent: int, *, ends: float = NOVEMBER, subject: str = "search", limit: Limit | None = None
) -> Verdict:
    """How a call found the limit."""
    bound = BoundLimit(limit=limit or a_limit(), bucket_id=f"b/{subject}", subject=subject)
    return Verdict(
        bound=bound,
        allowed=True,
        remaining=0,
        retry_after_seconds=0,
        reset_at=ends,
        spent=spent,
        set_aside=900,
    )


def shares(crossings: tuple[Crossing, ...]) -> list[float]:
    return [crossing.threshold for crossing in crossings]


@pytest.mark.parametrize(
    ("before", "after", "shares"),
    [
        (0, 499, ()),
        (0, 500, (0.5,)),
        (499, 500, (0.5,)),
        (500, 799, ()),
        (499, 2_000, (0.5, 0.8)),
        (800, 2_000, ()),
        (600, 400, ()),
    ],
)
def test_a_threshold_is_crossed_by_what_reaches_it(
    before: int, after: int, shares: tuple[float, ...]
) -> None:
    assert crossed(a_limit(), before, after) == shares


def test_shares_are_taken_exactly() -> None:
    """0.07 of 100 is 7.000000000000001 in binary."""
    assert crossed(a_limit(100, (0.07,)), 6, 7) == (0.07,)
    assert crossed(a_limit(3, (0.5,)), 1, 2) == (0.5,)
    assert crossed(a_limit(0, (0.5,)), 0, 5) == ()


def test_what_is_set_aside_is_not_spent_and_warns_of_nothing() -> None:
    assert Thresholds().settled([found(0)], Amounts(nanousd=10)) == ()


def test_each_is_told_once_in_a_window_and_again_in_the_next() -> None:
    thresholds = Thresholds()

    first = thresholds.settled([found(450)], Amounts(nanousd=60))
    again = thresholds.settled([found(480)], Amounts(nanousd=60))
    last = thresholds.settled([found(570)], Amounts(nanousd=500))
    december = thresholds.settled([found(0, ends=DECEMBER)], Amounts(nanousd=700))

    assert first == (Crossing("month", "search", 0.5),)
    assert (again, shares(last), shares(december)) == ((), [0.8], [0.5])


def test_calls_that_found_the_same_and_together_lead_past_it_tell_it() -> None:
    thresholds = Thresholds()
    verdict = found(450)

    assert thresholds.settled([verdict], Amounts(nanousd=30)) == ()
    assert shares(thresholds.settled([verdict], Amounts(nanousd=30))) == [0.5]


def test_what_another_replica_spent_is_told_by_the_next_call_here() -> None:
    thresholds = Thresholds()
    thresholds.settled([found(100)], Amounts(nanousd=10))

    assert shares(thresholds.settled([found(850)], Amounts())) == [0.5, 0.8]


def test_a_restart_tells_nothing_again() -> None:
    assert Thresholds().settled([found(850)], Amounts(nanousd=10)) == ()


def test_a_late_settlement_of_the_last_window_leaves_this_one_alone() -> None:
    thresholds = Thresholds()
    thresholds.settled([found(490, ends=DECEMBER)], Amounts())

    assert thresholds.settled([found(490)], Amounts(nanousd=400)) == ()
    assert shares(thresholds.settled([found(490, ends=DECEMBER)], Amounts(nanousd=10))) == [0.5]


def test_limits_without_thresholds_are_not_remembered() -> None:
    thresholds = Thresholds()

    assert thresholds.settled([found(0, limit=a_limit(warn_at=()))], Amounts(nanousd=999)) == ()
    assert not thresholds._known


def test_values_that_clients_make_up_do_not_pile_up() -> None:
    thresholds = Thresholds()
    for i in range(MAX_REMEMBERED + 5):
        thresholds.settled([found(0, subject=f"user {i}")], Amounts())

    assert len(thresholds._known) == MAX_REMEMBERED
