"""When it is worth waiting for calls that are over to be settled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.ending import in_the_way
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Limit, Mode, Period, Scope, Unit

AT_ONCE = Limit(id="at-once", scope=Scope.WORKSPACE, unit=Unit.CONCURRENT, amount=2, period=Period.OPEN)
DAY = Limit(id="day", scope=Scope.WORKSPACE, unit=Unit.NANOUSD, amount=100, period=Period.CALENDAR_DAY)
RATE = Limit(id="rate", scope=Scope.WORKSPACE, unit=Unit.INPUT_TOKENS, amount=100, period=Period.MINUTE)
CALLS = Limit(id="calls", scope=Scope.WORKSPACE, unit=Unit.REQUESTS, amount=1, period=Period.MINUTE)
NEEDED = Amounts(requests=1, nanousd=40, input_tokens=40, concurrent=1)


def bound(limit: Limit, subject: str = "w") -> BoundLimit:
    return BoundLimit(limit=limit, bucket_id=f"{limit.id}/{subject}", subject=subject)


def a_call(id: str, *limits: Limit, subject: str = "w") -> Reservation:
    return Reservation(
        id=ReservationId(id),
        limits=tuple(bound(limit, subject) for limit in limits),
        amounts=NEEDED,
        lease_seconds=1.0,
    )


def refused(limit: Limit, *, spent: int = 0, set_aside: int = 0, remaining: int = 0) -> Verdict:
    return Verdict(
        bound=bound(limit),
        allowed=False,
        remaining=remaining,
        retry_after_seconds=1.0,
        reset_at=None,
        spent=spent,
        set_aside=set_aside,
    )


def ids(*verdicts: Verdict, ended: list[Reservation]) -> list[str]:
    decision = Decision(allowed=False, binding=verdicts[0], verdicts=verdicts)
    return [each.id for each in in_the_way(decision, NEEDED, ended)]


def test_a_place_that_is_given_back_in_a_moment_is_worth_waiting_for() -> None:
    assert ids(refused(AT_ONCE, set_aside=2), ended=[a_call("a", AT_ONCE)]) == ["a"]


def test_nothing_that_is_ending_is_nothing_to_wait_for() -> None:
    assert ids(refused(AT_ONCE, set_aside=2), ended=[]) == []


@pytest.mark.parametrize("ended", [a_call("a", DAY), a_call("a", AT_ONCE, subject="other")])
def test_calls_of_other_limits_and_subjects_are_not_waited_for(ended: Reservation) -> None:
    assert ids(refused(AT_ONCE, set_aside=2), ended=[ended]) == []


def test_what_was_set_aside_for_calls_that_are_over_counts_as_far_as_it_reaches() -> None:
    ended = [a_call("a", DAY), a_call("b", DAY, AT_ONCE)]

    assert ids(refused(DAY, set_aside=80), ended=ended) == ["a", "b"]
    assert ids(refused(DAY, spent=60, set_aside=80), ended=ended) == ["a", "b"]
    assert ids(refused(DAY, spent=61, set_aside=80), ended=ended) == []
    assert ids(refused(RATE, spent=90, remaining=10), ended=[a_call("a", RATE)]) == ["a"]
    assert ids(refused(RATE, spent=100), ended=[a_call("a", RATE)]) == ["a"]


def test_every_limit_that_refuses_has_to_be_helped() -> None:
    ended = [a_call("a", AT_ONCE)]

    assert ids(refused(AT_ONCE, set_aside=2), refused(DAY, spent=100), ended=ended) == []
    assert ids(refused(AT_ONCE, set_aside=2), refused(CALLS), ended=[a_call("a", AT_ONCE, CALLS)]) == []


def test_limits_in_shadow_mode_and_calls_that_passed_are_no_reason_to_wait() -> None:
    ended = [a_call("a", AT_ONCE)]
    shadow = refused(replace(AT_ONCE, mode=Mode.SHADOW), set_aside=2)

    assert ids(shadow, ended=ended) == []
    assert in_the_way(Decision(allowed=True, binding=None, verdicts=(shadow,)), NEEDED, ended) == ()
