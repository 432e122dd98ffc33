"""What people are told of the books, over a ledger of generated weeks and its hourly sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.ledger_rollup import LedgerRollup
from gateway.core.alerts import Alert
from gateway.core.bucket import Verdict
from gateway.core.budget_alerts import Standing
from gateway.core.exchange import ExchangeRecord
from gateway.core.limits import BoundLimit, Limit, Period, Scope, Unit
from gateway.workers.spend_watch import Sensitivity, spend_alerts, top_cause
from tests.support.ledgers import write
from tests.support.weeks import HOUR, NOW, USD, a_call, seven_weeks

WANTED = Sensitivity(deviations=6.0, floor_nanousd=5 * USD, fall=0.25, fall_floor_nanousd=USD)
TEAMS = {"search": "red"}


def book_of(folder: Path, records: list[ExchangeRecord]) -> LedgerRollup:
    write(folder / "ledger.sqlite3", records)
    book = LedgerRollup(folder / "ledger.sqlite3", folder / "sums.sqlite3", lambda: NOW)
    assert book.update().complete
    return book


def told(folder: Path, records: list[ExchangeRecord], wanted: Sensitivity = WANTED) -> list[Alert]:
    return list(spend_alerts(book_of(folder, records), NOW, wanted, TEAMS))


def test_a_day_like_the_others_is_not_worth_a_word(tmp_path: Path) -> None:
    usual = [a_call(number, NOW - 600 + number) for number in range(10)]

    assert told(tmp_path, [*seven_weeks(), *usual]) == []


def test_an_hour_that_costs_far_more_is_told_before_it_is_over_with_who_and_why(tmp_path: Path) -> None:
    loop = [a_call(number, NOW - 1000 + number) for number in range(200)]

    (alert,) = told(tmp_path, [*seven_weeks(), *seven_weeks("quiet"), *loop])

    facts = dict(alert.facts)
    assert alert.id == "anomaly/default/search/2026-11-18"
    assert (alert.workspace, alert.team) == ("search", "red")
    assert facts["spent"] == "$20.00 in the hour from 14:00 UTC"
    assert facts["usual"] == "$1.00 at this hour, over 7 weeks"
    assert facts["top cause"] == (
        "more requests (200 requests in the hour, 10 usually): $19.00 of the difference"
    )
    assert facts["most of it"] == "key k1, model claude-test-1: $20.00, 100% of it, 200 requests"


def test_the_hour_that_just_ended_is_judged_too(tmp_path: Path) -> None:
    loop = [a_call(number, NOW - 1300 - number) for number in range(200)]

    assert [each.kind for each in told(tmp_path, [*seven_weeks(), *loop])] == ["anomaly"]


def test_a_share_read_that_fell_is_told_with_its_cause_and_since_when(tmp_path: Path) -> None:
    changed = [a_call(number, NOW - 900 + 60 * number, read=False) for number in range(5)]

    (alert,) = told(tmp_path, [*seven_weeks(), *changed])

    facts = dict(alert.facts)
    assert alert.headline == "Workspace search reads 0% of its prompts from the cache, 100% before"
    assert facts["cost"] == "$4.50 more in this hour and the last"
    assert facts["likely cause"].startswith(
        "prompts changed: $4.50 since 14:05, 5 calls. Dearest: a tool was added"
    )
    assert alert.command == "gateway report --by workspace,cause --from 2026-11-18"


@pytest.mark.parametrize(
    "wanted",
    [
        Sensitivity(deviations=None, floor_nanousd=0, fall=None, fall_floor_nanousd=0),
        replace(WANTED, floor_nanousd=100 * USD, fall_floor_nanousd=100 * USD),
    ],
)
def test_nobody_is_told_what_nobody_wants_to_know(tmp_path: Path, wanted: Sensitivity) -> None:
    odd = [a_call(number, NOW - 600 + number, read=False) for number in range(50)]

    assert told(tmp_path, [*seven_weeks(), *odd], wanted) == []


@pytest.mark.parametrize(
    ("scope", "subject", "cause"),
    [
        (Scope.WORKSPACE, "search", "key k1, model claude-test-1: $0.30, 100% of it, 3 requests"),
        (Scope.KEY, "k1", "model claude-test-1: $0.40, 100% of it, 4 requests"),
        (
            Scope.ORGANISATION,
            "default",
            "workspace search, model claude-test-1: $0.30, 75% of it, 3 requests",
        ),
        (Scope.TEAM, "red", "workspace search, model claude-test-1: $0.30, 100% of it, 3 requests"),
        (Scope.TAG, "x", ""),
    ],
)
def test_what_costs_the_most_of_a_budget_is_named(
    tmp_path: Path, scope: Scope, subject: str, cause: str
) -> None:
    calls = [a_call(number, NOW - 600 + number) for number in range(3)]
    book = book_of(tmp_path, [*calls, a_call(9, NOW - 9, workspace="other"), a_call(1, NOW - 90 * 24 * HOUR)])
    limit = Limit(
        id="m",
        scope=scope,
        tag="x-user" if scope is Scope.TAG else "",
        unit=Unit.NANOUSD,
        amount=USD,
        period=Period.CALENDAR_MONTH,
    )
    verdict = Verdict(
        bound=BoundLimit(limit=limit, bucket_id="b", subject=subject),
        allowed=True,
        remaining=0,
        retry_after_seconds=0.0,
        reset_at=NOW,
    )

    assert top_cause(book, Standing(verdict=verdict, organisation="default"), NOW, TEAMS) == cause
