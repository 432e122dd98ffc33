"""What a refused caller reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.errors import Unbounded
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.limits import BoundLimit, Limit, Mode, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.core.refusal import exhausted, show_amount, unbounded

CALLER = Principal(
    workspace=WorkspaceId("search"), key_id=KeyId("k"), key_name="app", organisation="acme", team="ranking"
)


MONTH = Limit(
    id="month",
    scope=Scope.WORKSPACE,
    unit=Unit.NANOUSD,
    amount=250 * 10**9,
    period=Period.CALENDAR_MONTH,
)


def a_refusal(
    *,
    remaining: int = 0,
    needed: int = 1,
    retry: float | None = 1.0,
    reset: float | None = None,
    limit: Limit = MONTH,
    subject: str = "",
) -> str:
    verdict = Verdict(
        bound=BoundLimit(limit=limit, bucket_id="b", subject=subject),
        allowed=False,
        remaining=remaining,
        retry_after_seconds=retry,
        reset_at=reset,
    )
    reservation = Reservation(
        id=ReservationId("r"), limits=(), amounts=Amounts(nanousd=needed, concurrent=1), lease_seconds=1.0
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
        "ask whoever runs this gateway",
    ):
        assert part in message, message


def test_says_when_waiting_can_never_help() -> None:
    assert "never fit" in a_refusal(remaining=0, needed=300 * 10**9, retry=None, reset=None)


@pytest.mark.parametrize(
    ("changes", "subject", "whose"),
    [
        ({"scope": Scope.ORGANISATION}, "acme", "Organisation acme"),
        ({"scope": Scope.TEAM}, "ranking", "Team ranking"),
        ({"scope": Scope.WORKSPACE}, "search", "Workspace search"),
        ({"scope": Scope.KEY}, "k", "Key 'app' of workspace search"),
        ({"scope": Scope.TAG, "tag": "x-user"}, "ann", "x-user 'ann'"),
        ({"scope": Scope.TAG, "tag": "x-user", "require": True}, "", "What is sent without x-user"),
        ({"shared": True}, "", "The pool that workspace search draws on"),
    ],
)
def test_says_whose_limit_it_is(changes: dict[str, Any], subject: str, whose: str) -> None:
    message = a_refusal(limit=replace(MONTH, **changes), subject=subject)

    assert message.startswith(f"{whose} has reached the limit 'month' of this gateway:")


def test_names_the_contact_of_the_limit() -> None:
    message = a_refusal(limit=replace(MONTH, contact="#ai-budget"))

    assert message.endswith("To have it raised, ask #ai-budget.")


def test_of_concurrent_requests_says_that_one_has_to_end() -> None:
    at_once = replace(MONTH, unit=Unit.CONCURRENT, period=Period.OPEN, amount=4)

    assert "4 requests at a time. All of them are under way" in a_refusal(limit=at_once)
    assert "never fit" in a_refusal(limit=replace(at_once, amount=0), retry=None)


def test_only_an_enforced_limit_of_dollars_refuses_what_nothing_bounds() -> None:
    def refused(**changes: Any) -> Unbounded | None:
        bound = BoundLimit(limit=replace(MONTH, **changes), bucket_id="b")
        return unbounded(("it has `thread`",), [bound], CALLER)

    refusal = refused(contact="ann@example.com")

    assert refusal is not None
    for part in ("search", "'month'", "it has `thread`", "ann@example.com", "unbounded: allow"):
        assert part in refusal.message
    assert refused(mode=Mode.SHADOW) is None
    assert refused(unit=Unit.OUTPUT_TOKENS) is None


@pytest.mark.parametrize(
    ("amount", "unit", "shown"),
    [
        (1_234_560_000_000, Unit.NANOUSD, "$1,234.56"),
        (2_048_000, Unit.NANOUSD, "$0.002048"),
        (0, Unit.NANOUSD, "$0.00"),
        (1_200, Unit.REQUESTS, "1,200 requests"),
        (1, Unit.INPUT_TOKENS, "1 input token"),
        (1, Unit.PROMPT_TOKENS, "1 input token, cache reads included"),
        (7, Unit.PROMPT_TOKENS, "7 input tokens, cache reads included"),
        (7, Unit.CONCURRENT, "7 requests"),
    ],
)
def test_shows_amounts_as_people_write_them(amount: int, unit: Unit, shown: str) -> None:
    assert show_amount(amount, unit) == shown
