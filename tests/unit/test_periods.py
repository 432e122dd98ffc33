"""Periods by their names, and what each is compared with. Days are those of UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.core.periods import DAY_MS, HOUR_MS, Span, months_before, read_span

NOW_MS = round(datetime(2026, 11, 22, 15, 30, tzinfo=UTC).timestamp() * 1000)


def _text(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H}"


def _bounds(span: Span) -> tuple[str, str, str, str]:
    ends = (span.start_ms, span.end_ms, span.before_start_ms, span.before_end_ms)
    one, two, three, four = (_text(ms) for ms in ends)
    return one, two, three, four


@pytest.mark.parametrize("name", ["", "2026-11"])
def test_this_month_ends_with_today_and_is_compared_with_as_many_days(name: str) -> None:
    span = read_span(name, NOW_MS)

    assert _bounds(span) == ("2026-11-01T00", "2026-11-23T00", "2026-10-01T00", "2026-10-23T00")
    assert (span.month, span.running, len(span.steps)) == ("2026-11", True, 22)
    assert span.words == "2026-11-01 to 2026-11-22"


def test_a_long_month_is_compared_with_the_whole_of_a_short_one() -> None:
    now_ms = round(datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp() * 1000)

    assert _bounds(read_span("", now_ms))[2:] == ("2026-02-01T00", "2026-03-01T00")


def test_a_month_that_is_over_is_compared_with_the_one_before() -> None:
    span = read_span("2026-01", NOW_MS)

    assert _bounds(span) == ("2026-01-01T00", "2026-02-01T00", "2025-12-01T00", "2026-01-01T00")
    assert (span.before_words, span.running) == ("2025-12", False)


def test_days_and_hours_end_with_the_one_that_is_now() -> None:
    assert _bounds(read_span("7d", NOW_MS)) == (
        "2026-11-16T00",
        "2026-11-23T00",
        "2026-11-09T00",
        "2026-11-16T00",
    )
    hours = read_span("24h", NOW_MS)
    assert _bounds(hours) == ("2026-11-21T16", "2026-11-22T16", "2026-11-20T16", "2026-11-21T16")
    assert (hours.step_ms, hours.step_name(hours.start_ms)) == (HOUR_MS, "2026-11-21 16:00")
    assert hours.before_words == "the 24 hours before"


def test_a_span_of_days_leaves_out_the_future() -> None:
    span = read_span("2026-11-20..2026-12-24", NOW_MS)

    assert _bounds(span)[:2] == ("2026-11-20T00", "2026-11-23T00")
    assert (span.step_ms, span.label(span.start_ms)) == (DAY_MS, "Nov 20")


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "0d",
        "367d",
        "49h",
        "2026-13",
        "2026-12",
        "2027-01-01..2027-01-02",
        "2026-11-02..2026-11-01",
        "..",
        "1..",
    ],
)
def test_what_is_no_period_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        read_span(name, NOW_MS)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("9999-12-31..9999-12-31", "no span of days"),
        ("2026-11-01..9999-12-31", "no span of days"),
        ("0001-01-01..0001-01-02", "no span of days"),
        ("9999-12", "no month"),
        ("0001-01", "no month"),
        ("1969-12", "no month"),
    ],
)
def test_a_year_that_no_calendar_goes_beyond_is_no_period_either(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is {reason}; write it as"):
        read_span(name, NOW_MS)


def test_the_first_month_of_all_is_compared_with_the_one_before() -> None:
    assert _bounds(read_span("1970-01", NOW_MS))[2:] == ("1969-12-01T00", "1970-01-01T00")
    assert read_span("1970-01-01..1970-01-02", NOW_MS).start_ms == 0


def test_months_go_back_over_the_year() -> None:
    assert months_before(NOW_MS, 12)[-2:] == ["2026-01", "2025-12"]
