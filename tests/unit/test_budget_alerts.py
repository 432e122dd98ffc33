"""When a budget deserves an alert, and what that says."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from gateway.core.alerts import AlertKind
from gateway.core.bucket import Verdict
from gateway.core.budget_alerts import (
    Standing,
    budget_alert,
    forecast_notice,
    grant_command,
    threshold_notice,
)
from gateway.core.limits import BoundLimit, Limit, Mode, Period, Scope, Unit

USD = 1_000_000_000
NOVEMBER = 1_793_491_200.0
"""2026-11-01T00:00:00Z, a Sunday."""
DAY = 86_400.0
USUAL = (0.5, 0.8, 1.0)


def standing(spent: int, *, subject: str = "demo", reset_at: float | None = None, **of: Any) -> Standing:
    fields: dict[str, Any] = {
        "id": "month",
        "scope": Scope.WORKSPACE,
        "unit": Unit.NANOUSD,
        "amount": 100 * USD,
        "period": Period.CALENDAR_MONTH,
        "contact": "lena",
        **of,
    }
    limit = Limit(**fields)
    reset = NOVEMBER + 30 * DAY if reset_at is None else reset_at
    verdict = Verdict(
        bound=BoundLimit(limit=limit, bucket_id=f"default/{limit.id}/{subject}", subject=subject),
        allowed=True,
        remaining=0,
        retry_after_seconds=0.0,
        reset_at=reset if limit.period.is_calendar else None,
        spent=spent,
    )
    return Standing(verdict=verdict, organisation="default", team="red", workspace="demo")


def share_of(spent: int, **of: Any) -> float | None:
    notice = threshold_notice(standing(spent, **of), USUAL)
    return None if notice is None else notice.share


@pytest.mark.parametrize(
    ("spent", "share"),
    [(0, None), (50 * USD - 1, None), (50 * USD, 0.5), (79 * USD, 0.5), (80 * USD, 0.8), (170 * USD, 1.0)],
)
def test_only_the_highest_threshold_that_was_passed_is_told(spent: int, share: float | None) -> None:
    assert share_of(spent) == share


def test_a_limits_own_thresholds_count_in_place_of_the_usual_ones() -> None:
    assert share_of(30 * USD, warn_at=(0.25, 0.9)) == 0.25
    assert share_of(80 * USD, warn_at=(0.25, 0.9)) == 0.25
    assert share_of(60, unit=Unit.REQUESTS, amount=100) is None
    assert share_of(60, unit=Unit.REQUESTS, amount=100, warn_at=(0.5,)) == 0.5
    assert share_of(60, unit=Unit.REQUESTS, amount=100, warn_at=(0.5,), period=Period.HOUR) is None
    assert share_of(0, amount=0) is None


def test_a_window_that_begins_anew_is_told_anew_and_a_raised_budget_above_what_was_told() -> None:
    def told(spent: int, **of: Any) -> str:
        notice = threshold_notice(standing(spent, **of), USUAL)
        assert notice is not None
        return notice.id

    first = told(100 * USD)
    assert told(120 * USD) == first
    assert told(100 * USD, reset_at=NOVEMBER + 61 * DAY) != first
    assert told(100 * USD, subject="other") != first
    # 50% of twice as much are the same dollars, 80% of it are not
    assert told(100 * USD, amount=200 * USD) == first
    assert told(160 * USD, amount=200 * USD) != first


def forecast_at(spent: int, days: float, **of: Any) -> float | None:
    notice = forecast_notice(standing(spent, **of), NOVEMBER + days * DAY)
    return None if notice is None else notice.runs_out_at


def test_a_budget_that_will_not_last_is_told_once_its_pace_says_something() -> None:
    assert forecast_at(50 * USD, 10) == NOVEMBER + 20 * DAY
    assert forecast_at(30 * USD, 10) is None  # lasts
    assert forecast_at(30 * USD, 3) is None  # too early
    assert forecast_at(20 * USD, 5) is None  # too little
    assert forecast_at(100 * USD, 10) is None  # spent: a threshold says so
    assert forecast_at(50 * USD, 10, period=Period.CALENDAR_DAY) is None
    assert forecast_at(50, 10, unit=Unit.REQUESTS, amount=100) is None


def test_an_alert_says_who_what_how_fast_until_when_why_and_what_to_do() -> None:
    notice = threshold_notice(standing(80 * USD), USUAL)
    assert notice is not None
    alert = budget_alert(notice, NOVEMBER + 20 * DAY, "key k1, claude-test-1: $60.00")

    assert alert.headline == "Workspace demo has spent 80% of its $100.00 (month)"
    assert dict(alert.facts) == {
        "spent": "$80.00 of $100.00",
        "limit": "month, a month, UTC",
        "rate": "$4.00 a day",
        "runs out": "2026-11-26T00:00:00Z, at the pace so far",
        "resets": "2026-12-01T00:00:00Z",
        "top cause": "key k1, claude-test-1: $60.00",
        "contact": "lena",
    }
    assert dict(alert.amounts)["spent_nanousd"] == 80 * USD
    assert alert.command == "gateway budget grant month '$20.00' -s demo -r 'why'"
    assert (alert.kind, alert.workspace, alert.team, alert.contact) == (
        AlertKind.THRESHOLD,
        "demo",
        "red",
        "lena",
    )


def test_a_forecast_says_when() -> None:
    notice = forecast_notice(standing(50 * USD), NOVEMBER + 10 * DAY)
    assert notice is not None

    assert budget_alert(notice, NOVEMBER + 10 * DAY).headline == (
        "Workspace demo will have spent its $100.00 (month) by 2026-11-21T00:00:00Z, before the window ends"
    )


def test_shadow_says_that_nothing_is_refused() -> None:
    notice = threshold_notice(standing(100 * USD, mode=Mode.SHADOW), USUAL)
    assert notice is not None
    alert = budget_alert(notice, NOVEMBER + 20 * DAY)

    assert alert.headline.startswith("Workspace demo has spent all of its")
    assert dict(alert.facts)["mode"] == "shadow: nothing is refused"
    assert dict(alert.facts)["runs out"] == "now"


@pytest.mark.parametrize(
    ("of", "subject", "who"),
    [
        ({"scope": Scope.KEY}, "k1", "Key k1 of workspace demo"),
        ({"scope": Scope.TAG, "tag": "x-user"}, "ann", "x-user ann"),
        ({"scope": Scope.TAG, "tag": "x-user"}, "", "What is sent without x-user"),
        ({"scope": Scope.TEAM}, "red", "Team red"),
        ({"shared": True}, "", "The pool"),
    ],
)
def test_whoever_it_is_about_is_named(of: dict[str, Any], subject: str, who: str) -> None:
    notice = threshold_notice(standing(100 * USD, subject=subject, **of), USUAL)
    assert notice is not None

    assert budget_alert(notice, NOVEMBER + DAY).headline.startswith(f"{who} has spent")


@pytest.mark.parametrize("subject", ["demo", "a b", "'; rm -rf /", "$(x)"])
def test_the_command_is_one_command_whatever_the_subject_is(subject: str) -> None:
    limit = standing(0).verdict.bound.limit

    assert shlex.split(grant_command(limit, subject)) == [
        "gateway", "budget", "grant", "month", "$20.00", "-s", subject, "-r", "why",
    ]  # fmt: skip


def test_the_command_offers_something_of_small_limits_and_names_nobody_of_a_pool() -> None:
    tiny = standing(0, amount=3, shared=True).verdict.bound.limit
    tokens = standing(0, amount=1001, unit=Unit.OUTPUT_TOKENS).verdict.bound.limit

    assert grant_command(tiny, "") == "gateway budget grant month '$0.01' -r 'why'"
    assert grant_command(tokens, "demo") == "gateway budget grant month 201 -s demo -r 'why'"
