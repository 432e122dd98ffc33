"""The forecast knows weekdays, says how far off it would have been, and says nothing from too little."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.month_end import FEWEST_DAYS, month_end

USD = 10**9


def days(first: date, count: int, weekday: int = 10, weekend: int = 1) -> dict[date, int]:
    """Dollars spent on each day."""
    found = {}
    for n in range(count):
        day = first + timedelta(days=n)
        found[day] = (weekend if day.weekday() >= 5 else weekday) * USD
    return found


def test_weekends_are_expected_to_be_like_weekends() -> None:
    end = month_end(days(date(2026, 10, 1), 47), date(2026, 11, 17))  # a Tuesday; nothing is spent on it yet

    assert end.spent_nanousd == (11 * 10 + 5 * 1) * USD  # of 1 to 16 November, five are weekends
    assert end.forecast_nanousd == (21 * 10 + 9 * 1) * USD
    assert (end.checks, end.of_months, end.off) == (1, True, 0.0)
    assert end.sentence == (
        "$219.00 at the month's end; on the same day of the last month "
        "it would have been off by 0% in the mean."
    )


def test_its_error_is_what_it_would_have_been_wrong_by() -> None:
    # October cost 10 a day until the 20th, then 20: said on the 21st, 11 days at 10 are missing of 420.
    spent = {date(2026, 10, 1) + timedelta(days=n): (10 if n < 20 else 20) * USD for n in range(51)}
    end = month_end(spent, date(2026, 11, 21))

    assert (end.checks, end.of_months) == (1, True)
    assert end.off is not None
    assert abs(end.off - 110 / 420) < 1e-9
    assert end.sentence.endswith("would have been off by 26% in the mean.")


def test_without_an_earlier_month_it_is_held_against_weeks() -> None:
    end = month_end(days(date(2026, 11, 1), 22), date(2026, 11, 23))

    assert (end.checks, end.of_months, end.off) == (1, False, 0.0)
    assert "of the last week" in end.sentence


def test_too_little_is_said_to_be_too_little() -> None:
    day = date(2026, 11, 15)
    few = month_end(days(date(2026, 11, 2), 13), day)
    enough = month_end(days(date(2026, 11, 1), 14), day)

    assert few.forecast_nanousd is None
    assert few.sentence == "No forecast: 13 whole days are known before today, 14 are the fewest."
    assert month_end({}, day).days_known == 0
    assert (enough.off, enough.checks) == (None, 0)
    assert enough.sentence.endswith("too little is known to say how far off this would have been before.")


def test_today_counts_for_what_is_spent_where_that_is_more_than_usual() -> None:
    spent = days(date(2026, 11, 1), 29)  # the 30th is a Monday
    today = date(2026, 11, 30)
    usual = month_end(spent | {today: 3 * USD}, today)
    busy = month_end(spent | {today: 40 * USD}, today)

    assert usual.forecast_nanousd == sum(spent.values()) + 10 * USD
    assert busy.forecast_nanousd == busy.spent_nanousd == sum(spent.values()) + 40 * USD


@given(st.lists(st.integers(0, 2**60), max_size=120), st.integers(0, 40))
def test_it_is_never_below_what_is_spent(amounts: list[int], at: int) -> None:
    first = date(2026, 8, 20)
    today = first + timedelta(days=max(0, len(amounts) - 1 - at))
    spent = {first + timedelta(days=n): amount for n, amount in enumerate(amounts)}
    end = month_end(spent, today)

    assert (end.forecast_nanousd is None) == (end.days_known < FEWEST_DAYS)
    if end.forecast_nanousd is not None:
        assert end.forecast_nanousd >= end.spent_nanousd
