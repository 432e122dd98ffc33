"""Sums of a ledger become sums of windows, through the limits that bound the calls."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.core.bucket import Verdict
from gateway.core.limits import Limit, Limits, Mode, Period, Scope, Unit
from gateway.core.rebuild import Drift, LedgerPart, Span, Spend, drift_of, is_rebuilt, spans_of, window_spends

MONTH = Limit(
    id="month", scope=Scope.ORGANISATION, unit=Unit.NANOUSD, amount=100, period=Period.CALENDAR_MONTH
)
DAY = Limit(
    id="day",
    scope=Scope.KEY,
    unit=Unit.NANOUSD,
    amount=100,
    period=Period.CALENDAR_DAY,
    timezone="Europe/Berlin",
    mode=Mode.SHADOW,
)
TEAM = Limit(id="team", scope=Scope.TEAM, unit=Unit.NANOUSD, amount=100, period=Period.CALENDAR_MONTH)
TAGGED = Limit(
    id="tagged", scope=Scope.TAG, tag="x-user", unit=Unit.NANOUSD, amount=9, period=Period.CALENDAR_MONTH
)
DEAR = Limit(
    id="dear",
    scope=Scope.WORKSPACE,
    unit=Unit.NANOUSD,
    amount=9,
    period=Period.CALENDAR_MONTH,
    models=("claude-big*",),
)
RATE = Limit(id="rate", scope=Scope.KEY, unit=Unit.NANOUSD, amount=100, period=Period.HOUR)
TOKENS = Limit(id="tokens", scope=Scope.KEY, unit=Unit.INPUT_TOKENS, amount=9, period=Period.CALENDAR_DAY)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = ms("2026-11-20T12:00")


def spend(nanousd: int, **rest: object) -> Spend:
    fields = {"organisation": "org", "workspace": "w", "key_id": "k", "model": "small", **rest}
    return Spend(nanousd=nanousd, **fields)  # type: ignore[arg-type]


def sums(limits: tuple[Limit, ...], *spends: Spend) -> dict[str, int]:
    part = LedgerPart(ledger="l", spends=dict.fromkeys(spans_of(limits, NOON), spends), known=())
    found = window_spends(
        [part],
        Limits(limits),
        team_of=lambda workspace: "red" if workspace == "w" else "",
        canonical=lambda model: "claude-big-1" if model == "big" else None,
    )
    return {f"{one.bound.limit.id} {one.bound.subject}": one.nanousd for one in found}


def test_only_money_in_calendar_windows_is_rebuilt() -> None:
    assert [is_rebuilt(limit) for limit in (MONTH, DAY, RATE, TOKENS)] == [True, True, False, False]
    assert sums((RATE, TOKENS), spend(5)) == {}


def test_windows_are_those_of_the_limits_in_their_time_zones() -> None:
    month, day = spans_of((MONTH, TEAM, DAY, RATE), NOON)
    assert (month.window.label, day.window.label) == ("2026-11-01", "2026-11-20")
    assert day.window.start_ms == ms("2026-11-19T23:00")


def test_just_after_midnight_the_day_before_is_rebuilt_too() -> None:
    """The clock of the store may still be in it."""
    labels = [span.window.label for span in spans_of((DAY,), ms("2026-11-19T23:30"))]
    assert labels == ["2026-11-20", "2026-11-19"]


def test_what_several_spent_is_added_up_where_it_is_counted_together() -> None:
    more = (spend(7, key_id="other"), spend(9, organisation="else", key_id="third"))
    expected = {"month org": 12, "month else": 9, "day k": 5, "day other": 7, "day third": 9}

    assert sums((MONTH, DAY), spend(5), *more) == expected


def test_teams_tags_and_models_are_found_as_for_a_call() -> None:
    found = sums(
        (TEAM, TAGGED, DEAR),
        spend(5),
        spend(7, workspace="nobody's", tags=(("x-user", "ann"),)),
        spend(9, model="big", tags=(("x-user", "bob"), ("x-other", "ann"))),
    )
    assert found == {"team red": 14, "tagged ann": 7, "tagged bob": 9, "dear w": 9}


def test_a_counter_that_says_more_than_the_ledger_has_a_drift_above_zero() -> None:
    part = LedgerPart(ledger="l", spends={spans_of((MONTH,), NOON)[0]: (spend(5),)}, known=())
    (one,) = window_spends([part], Limits((MONTH,)), team_of=lambda _: "", canonical=lambda _: None)
    verdict = Verdict(
        bound=one.bound, allowed=True, remaining=1, retry_after_seconds=0, reset_at=None, spent=8, set_aside=2
    )
    drift = drift_of(one, verdict)

    assert isinstance(spans_of((MONTH,), NOON)[0], Span)
    assert one.key.endswith("/2026-11-01")
    assert (drift.counted, drift.set_aside, drift.nanousd) == (8, 2, 3)


@pytest.mark.parametrize(("spent", "set_aside", "lacks"), [(3, 0, 2), (3, 1, 1), (3, 2, 0), (8, 0, 0)])
def test_a_counter_lacks_what_neither_it_nor_what_is_open_can_explain(
    spent: int, set_aside: int, lacks: int
) -> None:
    part = LedgerPart(ledger="l", spends={spans_of((MONTH,), NOON)[0]: (spend(5),)}, known=())
    (one,) = window_spends([part], Limits((MONTH,)), team_of=lambda _: "", canonical=lambda _: None)

    assert Drift(spend=one, counted=spent, set_aside=set_aside).lacks == lacks
