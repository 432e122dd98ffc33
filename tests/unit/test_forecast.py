"""When a limit will be spent, at the pace of its window so far."""

from __future__ import annotations

import pytest

from gateway.core.bucket import Verdict
from gateway.core.forecast import runs_out_at
from gateway.core.limits import BoundLimit, Limit, Period, Scope, Unit

DAY = 86_400.0


def a_verdict(spent: int, set_aside: int = 0, period: Period = Period.CALENDAR_DAY) -> Verdict:
    limit = Limit(id="l", scope=Scope.WORKSPACE, unit=Unit.NANOUSD, amount=100, period=period)
    return Verdict(
        bound=BoundLimit(limit=limit, bucket_id="b"),
        allowed=True,
        remaining=0,
        retry_after_seconds=0.0,
        reset_at=None,
        spent=spent,
        set_aside=set_aside,
    )


def test_it_goes_on_as_it_has_since_the_window_began() -> None:
    # Half in a quarter of the day: the other half in another quarter.
    assert runs_out_at(a_verdict(50), 10 * DAY + DAY / 4) == 10 * DAY + DAY / 2


def test_what_is_set_aside_is_gone_but_does_not_count_for_the_pace() -> None:
    assert runs_out_at(a_verdict(50, 25), 10 * DAY + DAY / 4) == 10 * DAY + DAY * 3 / 8


def test_what_is_spent_has_run_out() -> None:
    assert runs_out_at(a_verdict(70, 30), 10 * DAY + 1) == 10 * DAY + 1


@pytest.mark.parametrize(
    ("verdict", "at"),
    [
        (a_verdict(20), 10 * DAY + DAY / 4),  # lasts
        (a_verdict(0), 10 * DAY + DAY / 4),
        (a_verdict(90), 10 * DAY + 60),  # too early to say
        (a_verdict(50, period=Period.MINUTE), 10 * DAY + DAY / 4),
    ],
)
def test_it_says_nothing_where_there_is_nothing_to_say(verdict: Verdict, at: float) -> None:
    assert runs_out_at(verdict, at) is None
