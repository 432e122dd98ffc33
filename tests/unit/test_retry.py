"""When the gateway tries again: only where that is free, and seldom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UpstreamCut, UpstreamFailure, UpstreamTimeout, UpstreamUnreachable
from gateway.core.retry import (
    MAX_ATTEMPTS,
    MAX_DELAY_SECONDS,
    Failure,
    RetryBudget,
    RetryDecision,
    failure_of,
    plan_retry,
)


def _decide(failure: Failure = Failure.NOT_SENT, **changes: Any) -> RetryDecision:
    values: dict[str, Any] = {
        "attempts": 1,
        "client_retries": False,
        "free": False,
        "continues_thread": False,
        "budget": RetryBudget(),
        "randomness": 0.5,
    }
    return plan_retry(failure, **(values | changes))


def test_tries_again_where_nothing_was_sent() -> None:
    decision = _decide()

    assert decision.again
    assert 0 < decision.delay_seconds < 0.1


@pytest.mark.parametrize("failure", [Failure.BROKE, Failure.SILENT, Failure.BEGUN, Failure.ANSWERED])
def test_trap_39_never_repeats_what_upstream_may_have_billed(failure: Failure) -> None:
    decision = _decide(failure)

    assert not decision.again
    assert decision.reason


def test_repeats_a_free_request_on_a_connection_that_broke() -> None:
    assert _decide(Failure.BROKE, free=True).again


@pytest.mark.parametrize("failure", [Failure.SILENT, Failure.BEGUN, Failure.ANSWERED])
def test_does_not_repeat_even_a_free_request_that_was_answered_or_is_worked_on(failure: Failure) -> None:
    assert not _decide(failure, free=True).again


def test_trap_50_never_multiplies_with_a_client_that_is_retrying() -> None:
    assert not _decide(client_retries=True).again


def test_never_repeats_the_continuation_of_a_thread() -> None:
    assert not _decide(continues_thread=True).again


def test_gives_up_after_the_last_attempt() -> None:
    assert _decide(attempts=MAX_ATTEMPTS - 1).again
    assert not _decide(attempts=MAX_ATTEMPTS).again
    assert not _decide(attempts=1, most_attempts=1).again


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (UpstreamUnreachable("no connection", request_sent=False), Failure.NOT_SENT),
        (UpstreamTimeout("no connection in time", request_sent=False), Failure.NOT_SENT),
        (UpstreamUnreachable("reset", request_sent=True), Failure.BROKE),
        (UpstreamTimeout("silent", request_sent=True), Failure.SILENT),
        (UpstreamCut("cut"), Failure.BROKE),
    ],
)
def test_failures_are_told_apart_by_whether_upstream_may_be_at_work(
    error: UpstreamFailure, failure: Failure
) -> None:
    assert failure_of(error) is failure


@given(attempts=st.integers(1, MAX_ATTEMPTS - 1), randomness=st.floats(0, 1, exclude_max=True))
def test_delays_grow_with_jitter_and_stay_bounded(attempts: int, randomness: float) -> None:
    least = _decide(attempts=attempts, randomness=0.0).delay_seconds
    delay = _decide(attempts=attempts, randomness=randomness).delay_seconds

    assert least <= delay <= 2 * least <= MAX_DELAY_SECONDS


@given(st.lists(st.booleans(), max_size=600))
def test_retries_stay_a_tenth_of_the_exchanges_however_many_fail(failing: list[bool]) -> None:
    budget, retries = RetryBudget(), 0
    for fails in failing:
        budget = budget.earned()
        attempts = 1
        while fails and _decide(attempts=attempts, budget=budget).again:
            budget = budget.spent()
            retries, attempts = retries + 1, attempts + 1

    assert retries <= len(failing) / 10 + RetryBudget.BURST


def test_an_outage_spends_the_budget_and_traffic_earns_it_back() -> None:
    budget = RetryBudget()
    for _ in range(RetryBudget.BURST):
        assert _decide(budget=budget).again
        budget = budget.spent()

    assert not _decide(budget=budget).again
    for _ in range(9):
        budget = budget.earned()
    assert not _decide(budget=budget).again
    assert _decide(budget=budget.earned()).again


def test_a_quiet_time_does_not_save_up_more_than_the_burst() -> None:
    assert RetryBudget().earned() == RetryBudget()
