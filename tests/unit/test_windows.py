"""Where calendar windows begin and end, also where the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.limits import Period
from gateway.core.windows import windows_around

DAY, WEEK, MONTH = Period.CALENDAR_DAY, Period.CALENDAR_WEEK, Period.CALENDAR_MONTH


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("period", "timezone", "now", "label", "start", "hours"),
    [
        (DAY, "UTC", "2026-11-21T13:00+00:00", "2026-11-21", "2026-11-21T00:00+00:00", 24),
        (DAY, "Europe/Berlin", "2026-11-21T23:30+00:00", "2026-11-22", "2026-11-22T00:00+01:00", 24),
        # clocks go forward, and back; in years gone by, as coming ones are still decreed
        (DAY, "Europe/Berlin", "2025-03-30T12:00+02:00", "2025-03-30", "2025-03-30T00:00+01:00", 23),
        (DAY, "Europe/Berlin", "2025-10-26T12:00+01:00", "2025-10-26", "2025-10-26T00:00+02:00", 25),
        # midnight itself is skipped in Beirut, and comes twice in Havana
        (DAY, "Asia/Beirut", "2025-03-30T12:00+03:00", "2025-03-30", "2025-03-30T01:00+03:00", 23),
        (DAY, "America/Havana", "2024-11-03T12:00-05:00", "2024-11-03", "2024-11-03T00:00-04:00", 25),
        # weeks begin on Monday
        (WEEK, "UTC", "2026-11-22T23:59:59+00:00", "2026-11-16", "2026-11-16T00:00+00:00", 168),
        (WEEK, "Europe/Berlin", "2025-10-27T00:00+01:00", "2025-10-27", "2025-10-27T00:00+01:00", 168),
        (WEEK, "Europe/Berlin", "2025-10-26T23:59+01:00", "2025-10-20", "2025-10-20T00:00+02:00", 169),
        (MONTH, "UTC", "2028-02-29T10:00+00:00", "2028-02-01", "2028-02-01T00:00+00:00", 29 * 24),
        (MONTH, "America/New_York", "2026-01-01T04:59+00:00", "2025-12-01", "2025-12-01T05:00+00:00", 744),
        (MONTH, "Asia/Kolkata", "2025-10-31T18:30+00:00", "2025-11-01", "2025-11-01T00:00+05:30", 720),
    ],
)
def test_the_current_window(
    period: Period, timezone: str, now: str, label: str, start: str, hours: int
) -> None:
    _, current, _ = windows_around(period, timezone, ms(now))

    assert (label, ms(start)) == (current.label, current.start_ms)
    assert current.end_ms - current.start_ms == hours * 3_600_000


@pytest.mark.parametrize("period", [DAY, WEEK, MONTH])
@pytest.mark.parametrize(
    "timezone", ["UTC", "Europe/Berlin", "Asia/Beirut", "America/Havana", "Pacific/Apia"]
)
def test_three_windows_follow_each_other_and_hold_every_instant_of_a_year(
    period: Period, timezone: str
) -> None:
    instant = datetime(2026, 1, 1, tzinfo=UTC)
    while instant.year == 2026:
        now_ms = round(instant.timestamp() * 1000)
        before, current, after = windows_around(period, timezone, now_ms)

        assert current.start_ms <= now_ms < current.end_ms
        assert before.start_ms < before.end_ms == current.start_ms
        assert current.end_ms == after.start_ms < after.end_ms
        assert windows_around(period, timezone, current.end_ms)[1] == after
        assert windows_around(period, timezone, current.start_ms - 1)[1] == before
        instant += timedelta(hours=7)


def test_a_day_that_a_country_skipped_holds_no_instant() -> None:
    """Samoa crossed the date line: the 30th of December 2011 never was."""
    before, current, _ = windows_around(DAY, "Pacific/Apia", ms("2011-12-31T12:00+14:00"))

    assert current.label == "2011-12-31"
    assert before.start_ms == before.end_ms == current.start_ms
