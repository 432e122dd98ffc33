"""What a refused caller reads."""

from __future__ import annotations

import pytest

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.limits import BoundLimit, Limit, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.core.refusal import exhausted, show_amount

CALLER = Principal(workspace=WorkspaceId("search"), key_id=KeyId("k"), key_name="app")


def a_refusal(*, remaining: int, needed: int, retry: float | None, reset: float | None) -> str:
    limit = Limit(
        id="month",
        scope=Scope.WORKSPACE,
        unit=Unit.NANOUSD,
        amount=250 * 10**9,
        period=Period.CALENDAR_MONTH,
    )
    verdict = Verdict(
        bound=BoundLimit(limit=limit, bucket_id="b"),
        allowed=False,
        remaining=remaining,
        retry_after_seconds=retry,
        reset_at=reset,
    )
    reservation = Reservation(
        id=ReservationId("r"), limits=(), amounts=Amounts(nanousd=needed), lease_seconds=1.0
    )
    error = exhausted(Decision(allowed=False, binding=verdict), reservation, CALLER)
    assert (error.limit_id, error.reset_at) == ("month", reset)
    return error.message


def test_names_limit_need_rest_reset_and_whom_to_ask() -> None:
    message = a_refusal(remaining=3 * 10**9, needed=5 * 10**9, retry=86_400.0, reset=1_796_083_200.0)

    for part in (
        "search",
        "'month'",
        "$250.00 per month",
        "$5.00",
        "$3.00 left",
        "2026-12-01",
        "Whoever runs",
    ):
        assert part in message, message


def test_says_when_waiting_can_never_help() -> None:
    assert "never fit" in a_refusal(remaining=0, needed=300 * 10**9, retry=None, reset=None)


@pytest.mark.parametrize(
    ("amount", "unit", "shown"),
    [
        (1_234_560_000_000, Unit.NANOUSD, "$1,234.56"),
        (2_048_000, Unit.NANOUSD, "$0.002048"),
        (0, Unit.NANOUSD, "$0.00"),
        (1_200, Unit.REQUESTS, "1,200 requests"),
        (1, Unit.INPUT_TOKENS, "1 input token"),
    ],
)
def test_shows_amounts_as_people_write_them(amount: int, unit: Unit, shown: str) -> None:
    assert show_amount(amount, unit) == shown
