"""What a month will have cost when it ends, from the days before, and how far off that would be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice

from gateway.core.ledger import dollars

SAME_WEEKDAYS = 4
FEWEST_DAYS = 14
"""Whole days without which nothing is said: two of each weekday."""
MOST_CHECKS = 12

METHOD = (
    "Forecast: what was spent before today and, for today and each day left of the month, the mean of the "
    f"last {SAME_WEEKDAYS} days of its weekday (for today at least what is spent already)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthEnd:
    """Nano-dollars."""

    spent_nanousd: int
    """So far in the month, today included."""
    forecast_nanousd: int | None
    """At its end; None where there are fewer than `FEWEST_DAYS` before today."""
    days_known: int
    checks: int = 0
    """How often the same reckoning was held against what came true, with what was known then."""
    of_months: bool = True
    """Whether those were earlier months, on the same day of theirs; else earlier weeks, from the same day."""
    off: float | None = None
    """By how much of what came true it was wrong, in the mean of those; None without any."""
    expected_nanousd: tuple[int, ...] = ()
    """Of today and each day that is left; empty where there is no forecast."""

    @property
    def sentence(self) -> str:
        if self.forecast_nanousd is None:
            return (
                f"No forecast: {self.days_known} whole days are known before today, "
                f"{FEWEST_DAYS} are the fewest."
            )
        said = f"${dollars(self.forecast_nanousd, 2)} at the month's end"
        if self.off is None:
            return f"{said}; too little is known to say how far off this would have been before."
        of = "month" if self.of_months else "week"
        times = f"the last {of}" if self.checks == 1 else f"the last {self.checks} {of}s"
        return f"{said}; on the same day of {times} it would have been off by {self.off:.0%} in the mean."


def month_end(spent: Mapping[date, int], today: date) -> MonthEnd:
    """`spent`: nano-dollars by day (UTC); days since its first one that are not in it cost nothing."""
    before = [day for day in spent if day < today]
    first = min(before, default=today)
    known = (today - first).days
    start = today.replace(day=1)
    so_far = sum(amount for day, amount in spent.items() if start <= day <= today)
    if known < FEWEST_DAYS:
        return MonthEnd(spent_nanousd=so_far, forecast_nanousd=None, days_known=known)
    wrong = list(islice(_months(spent, first, today), MOST_CHECKS))
    of_months = bool(wrong)
    if not of_months:
        wrong = list(islice(_weeks(spent, first, today), MOST_CHECKS))
    left = [today + timedelta(days=n) for n in range((_next_month(start) - today).days)]
    expected = [_expected(spent, first, today, day) for day in left]
    expected[0] = max(expected[0], spent.get(today, 0))
    return MonthEnd(
        spent_nanousd=so_far,
        forecast_nanousd=so_far - spent.get(today, 0) + sum(expected),
        days_known=known,
        checks=len(wrong),
        of_months=of_months,
        off=sum(wrong) / len(wrong) if wrong else None,
        expected_nanousd=tuple(expected),
    )


def _expected(spent: Mapping[date, int], first: date, today: date, day: date) -> int:
    """The mean of the last days before `today` that are of the same weekday as `day`."""
    last = today - timedelta(days=(today - day).days % 7 or 7)
    days = [last - timedelta(weeks=n) for n in range(SAME_WEEKDAYS)]
    amounts = [spent.get(one, 0) for one in days if one >= first]
    return sum(amounts) // len(amounts)


def _months(spent: Mapping[date, int], first: date, today: date) -> Iterator[float]:
    """How far off it would have been in earlier months, the last one first."""
    start = today.replace(day=1)
    while (start := (start - timedelta(days=1)).replace(day=1)) >= first:
        end = _next_month(start)
        then = min(start + timedelta(days=today.day - 1), end - timedelta(days=1))
        if (then - first).days >= FEWEST_DAYS:
            yield from _off(spent, first, start, then, end)


def _weeks(spent: Mapping[date, int], first: date, today: date) -> Iterator[float]:
    """How far off the same would have been for the seven days from the same weekday on."""
    then = today
    while ((then := then - timedelta(weeks=1)) - first).days >= FEWEST_DAYS:
        yield from _off(spent, first, then, then, then + timedelta(weeks=1))


def _off(spent: Mapping[date, int], first: date, start: date, then: date, end: date) -> Iterator[float]:
    """Said at the beginning of the day `then`, of the days from `start` to `end`; nothing where they cost
    nothing."""
    days = [start + timedelta(days=n) for n in range((end - start).days)]
    true = sum(spent.get(day, 0) for day in days)
    said = sum(spent.get(day, 0) if day < then else _expected(spent, first, then, day) for day in days)
    if true:
        yield abs(said - true) / true


def _next_month(start: date) -> date:
    return (start + timedelta(days=31)).replace(day=1)
