"""Calendar windows: where a day, week or month begins and ends in a time zone. No clock is read here.

A window is known by the local date on which it begins, so a changed time zone moves its edges without
starting the count again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from gateway.core.limits import Period


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_ms`, inclusive, to `end_ms`, exclusive; milliseconds since the epoch."""

    label: str
    """Local date of its beginning, as in `2026-11-01`."""
    start_ms: int
    end_ms: int


def windows_around(period: Period, timezone: str, now_ms: int) -> tuple[Window, Window, Window]:
    """The window before the current one, the current one, and the one after it, without gaps.

    A store chooses among the three by its own clock, which may differ from the caller's.
    """
    return _windows_around(period, timezone, now_ms // 1000)


@lru_cache(maxsize=256)  # each call asks for each of its limits, often within the same second
def _windows_around(period: Period, timezone: str, now: int) -> tuple[Window, Window, Window]:
    return _windows(period, timezone, datetime.fromtimestamp(now, UTC).astimezone(_zone(timezone)).date())


@lru_cache(maxsize=64)
def _zone(timezone: str) -> ZoneInfo:
    return ZoneInfo(timezone)


@lru_cache(maxsize=256)
def _windows(period: Period, timezone: str, local: date) -> tuple[Window, Window, Window]:
    first = _first_day(period, local)
    before = _first_day(period, first - timedelta(days=1))
    after = _next(period, first)
    days = (before, first, after, _next(period, after))
    edges = [_midnight_ms(day, timezone) for day in days]
    previous, current, following = (
        Window(label=days[i].isoformat(), start_ms=edges[i], end_ms=edges[i + 1]) for i in range(3)
    )
    return previous, current, following


def _first_day(period: Period, day: date) -> date:
    if period is Period.CALENDAR_MONTH:
        return day.replace(day=1)
    if period is Period.CALENDAR_WEEK:  # weeks begin on Monday, as in ISO 8601
        return day - timedelta(days=day.weekday())
    assert period is Period.CALENDAR_DAY, period
    return day


def _next(period: Period, first: date) -> date:
    # 32 days reach the next month from any first of a month.
    days = {Period.CALENDAR_DAY: 1, Period.CALENDAR_WEEK: 7, Period.CALENDAR_MONTH: 32}[period]
    return _first_day(period, first + timedelta(days=days))


def _midnight_ms(day: date, timezone: str) -> int:
    """The first instant of a local day. Where clocks skip midnight, the instant at which they skip; where
    midnight comes twice, the first: `fold=0` means both."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=_zone(timezone))
    return round(midnight.timestamp()) * 1000
