"""Schedules fire when people expect it: in their own time zone, once, and not for nobody."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.core.schedule import UNREAD_FIRINGS, Readership, Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def a_schedule(cron: str, timezone: str = "Europe/Berlin") -> Schedule:
    return Schedule(name="morning", cron=cron, timezone=timezone, workspace="demo", prompts="p.jsonl")


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def firings(schedule: Schedule, start: float, count: int) -> list[str]:
    found = []
    for _ in range(count):
        instant = schedule.next_after(start)
        assert instant is not None
        start = instant
        found.append(datetime.fromtimestamp(instant, BERLIN).isoformat())
    return found


def test_fires_on_weekdays_at_the_local_time() -> None:
    friday_noon = at("2026-11-20T12:00")

    assert firings(a_schedule("45 8 * * mon-fri"), friday_noon, 2) == [
        "2026-11-23T08:45:00+01:00",
        "2026-11-24T08:45:00+01:00",
    ]


def test_the_same_expression_is_another_instant_in_another_zone() -> None:
    start = at("2026-11-20T12:00")
    berlin, tokyo = a_schedule("45 8 * * *"), a_schedule("45 8 * * *", "Asia/Tokyo")

    assert berlin.next_after(start) == at("2026-11-21T08:45")
    assert tokyo.next_after(start) == at("2026-11-21T00:45")


def test_a_time_that_does_not_exist_fires_once_right_after_the_gap() -> None:
    assert firings(a_schedule("30 2 * * *"), at("2026-03-28T12:00"), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_exists_twice_fires_once() -> None:
    assert firings(a_schedule("30 2 * * *"), at("2026-10-24T12:00"), 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_what_is_next_is_never_over_even_in_the_hour_that_comes_again() -> None:
    """At 02:10 by winter time, 02:30 by the wall clock is ahead; the 02:30 that was meant is forty minutes
    past."""
    second_time_round = at("2026-10-25T02:10", fold=1)

    assert firings(a_schedule("30 2 * * *"), second_time_round, 1) == ["2026-10-26T02:30:00+01:00"]


def test_every_half_hour_counts_real_half_hours() -> None:
    assert firings(a_schedule("*/30 * * * *"), at("2026-10-25T02:20"), 3) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
    ]


def test_an_instant_itself_is_not_after_itself() -> None:
    schedule, due = a_schedule("45 8 * * *"), at("2026-11-21T08:45")

    assert schedule.next_after(due - 0.001) == due
    assert schedule.next_after(due) == at("2026-11-22T08:45")


@pytest.mark.parametrize("warm", [0, 3])
def test_firings_that_nobody_reads_are_given_up_only_if_they_warmed_something(warm: int) -> None:
    readership = Readership()
    for _ in range(UNREAD_FIRINGS):
        readership = readership.before_firing(0)
        assert readership.is_worth_firing
        readership = readership.after_firing(warm)

    assert readership.before_firing(0).is_worth_firing is (warm == 0)


def test_one_read_starts_the_count_again() -> None:
    readership = Readership()
    for _ in range(UNREAD_FIRINGS):
        readership = readership.before_firing(0).after_firing(1)

    readership = readership.before_firing(1)

    assert readership.is_worth_firing
    assert readership.unread == 0
