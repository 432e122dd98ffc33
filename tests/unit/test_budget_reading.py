"""How a store's verdict becomes a reading."""

from __future__ import annotations

import pytest

from gateway.core.bucket import Verdict
from gateway.core.budget_reading import reading_of
from gateway.core.limits import BoundLimit, Limit, Period, Scope, Unit


@pytest.mark.parametrize(
    ("period", "used"),
    [(Period.CALENDAR_MONTH, 70 + 20), (Period.MINUTE, 70)],
)
def test_what_is_set_aside_counts_once(period: Period, used: int) -> None:
    """A refilled bucket's `spent` already holds what open reservations took."""
    limit = Limit(id="l", scope=Scope.WORKSPACE, unit=Unit.REQUESTS, amount=100, period=period)
    verdict = Verdict(
        bound=BoundLimit(limit=limit, bucket_id="b"),
        allowed=True,
        remaining=10,
        retry_after_seconds=None,
        reset_at=5.0,
        spent=70,
        set_aside=20,
    )
    reading = reading_of(verdict, "w")

    assert (reading.used, reading.amount, reading.limit, reading.workspace) == (used, 100, "l", "w")
