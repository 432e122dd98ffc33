"""Spans of time that people ask reports for, by a short name that fits a URL, and what came before. Pure.

Days, months and hours are those of UTC, as everywhere in the books.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gateway.core.ledger import YEARS, month_bounds

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MOST_DAYS = 366
_DAYS = re.compile("([0-9]{1,3})d")
_HOURS = re.compile("([0-9]{1,2})h")
_MOST_HOURS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A period, and the one that it is compared with. Epoch milliseconds, ends exclusive, whole steps."""

    name: str
    """As it was asked for."""
    words: str
    """Such as "2026-11-01 to 2026-11-22"."""
    start_ms: int
    end_ms: int
    """Not later than the end of the step that is now."""
    before_start_ms: int
    before_end_ms: int
    before_words: str
    step_ms: int
    """`DAY_MS`, or `HOUR_MS` for periods of hours."""
    month: str = ""
    """Such as "2026-11", where it is one."""
    running: bool = False
    """Whether the month is not over."""

    @property
    def steps(self) -> list[int]:
        """The beginning of each step."""
        return list(range(self.start_ms, self.end_ms, self.step_ms))

    def label(self, start_ms: int) -> str:
        """One step for the axis of a chart: "Nov 3", "14:00"."""
        at = datetime.fromtimestamp(start_ms / 1000, UTC)
        return f"{at:%H:%M}" if self.step_ms == HOUR_MS else f"{at:%b} {at.day}"

    def step_name(self, start_ms: int) -> str:
        """One step in full: "2026-11-03", "2026-11-03 14:00"."""
        at = datetime.fromtimestamp(start_ms / 1000, UTC)
        return f"{at:%Y-%m-%d %H:00}" if self.step_ms == HOUR_MS else f"{at:%Y-%m-%d}"


def read_span(name: str, now_ms: int) -> Span:
    """ "2026-11", "30d", "24h", "2026-11-01..2026-11-15"; empty: the month that is now. What lies in the
    future is left out. Raises ValueError, as a sentence."""
    if not name or name == _month_of(now_ms):
        return _this_month(name, now_ms)
    if match := _DAYS.fullmatch(name):
        return _last(name, int(match[1]), "day", DAY_MS, MOST_DAYS, now_ms)
    if match := _HOURS.fullmatch(name):
        return _last(name, int(match[1]), "hour", HOUR_MS, _MOST_HOURS, now_ms)
    if ".." in name:
        return _days(name, now_ms)
    start_ms, end_ms = month_bounds(name)
    if start_ms > now_ms:
        raise ValueError(f"{name} has not begun yet.")
    before = _month_of(start_ms - 1)
    return Span(
        name=name,
        words=name,
        start_ms=start_ms,
        end_ms=end_ms,
        before_start_ms=_ms(date.fromisoformat(f"{before}-01")),
        before_end_ms=start_ms,
        before_words=before,
        step_ms=DAY_MS,
        month=name,
    )


def months_before(now_ms: int, count: int) -> list[str]:
    """The month that is now and those before it, the latest first."""
    months, at_ms = [], now_ms
    for _ in range(count):
        months.append(_month_of(at_ms))
        at_ms = month_bounds(months[-1])[0] - 1
    return months


def _this_month(name: str, now_ms: int) -> Span:
    """Up to and with today, against as many days of the month before."""
    month = _month_of(now_ms)
    start_ms, month_end_ms = month_bounds(month)
    end_ms = min(month_end_ms, _day_start(now_ms) + DAY_MS)
    before_start_ms, before_last_ms = month_bounds(_month_of(start_ms - 1))
    before_end_ms = min(before_last_ms, before_start_ms + end_ms - start_ms)
    return Span(
        name=name or month,
        words=_words(start_ms, end_ms),
        start_ms=start_ms,
        end_ms=end_ms,
        before_start_ms=before_start_ms,
        before_end_ms=before_end_ms,
        before_words=_words(before_start_ms, before_end_ms),
        step_ms=DAY_MS,
        month=month,
        running=True,
    )


def _last(name: str, count: int, unit: str, step_ms: int, most: int, now_ms: int) -> Span:
    if not 1 <= count <= most:
        raise ValueError(f"There are reports of 1 to {most} {unit}s.")
    end_ms = now_ms // step_ms * step_ms + step_ms
    return _plain(name, end_ms - count * step_ms, end_ms, step_ms, f"the last {count} {unit}s")


def _days(name: str, now_ms: int) -> Span:
    first, _, last = name.partition("..")
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
        if start.year not in YEARS or end.year not in YEARS:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name[:40]!r} is no span of days; write it as 2026-11-01..2026-11-15.") from None
    if not 0 <= (end - start).days < MOST_DAYS:
        raise ValueError(f"There are reports of 1 to {MOST_DAYS} days.")
    start_ms = _ms(start)
    end_ms = min(_ms(end + timedelta(days=1)), _day_start(now_ms) + DAY_MS)
    if end_ms <= start_ms:
        raise ValueError(f"{name} has not begun yet.")
    return _plain(name, start_ms, end_ms, DAY_MS, _words(start_ms, end_ms))


def _plain(name: str, start_ms: int, end_ms: int, step_ms: int, words: str) -> Span:
    before_ms = start_ms - (end_ms - start_ms)
    return Span(
        name=name,
        words=words,
        start_ms=start_ms,
        end_ms=end_ms,
        before_start_ms=before_ms,
        before_end_ms=start_ms,
        before_words=_words(before_ms, start_ms) if step_ms == DAY_MS else f"the {words[9:]} before",
        step_ms=step_ms,
    )


def _words(start_ms: int, end_ms: int) -> str:
    return f"{_day_of(start_ms)} to {_day_of(end_ms - 1)}"


def _day_of(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


def _month_of(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m}"


def _day_start(ms: int) -> int:
    return ms // DAY_MS * DAY_MS


def _ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
