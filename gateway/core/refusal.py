"""What a refused caller is told: which limit, what it needed, what is left, when it resets. Words only."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.errors import BudgetExhausted
from gateway.core.limits import Period, Unit
from gateway.core.principal import Principal

_UNITS = {
    Unit.REQUESTS: "requests",
    Unit.INPUT_TOKENS: "input tokens",
    Unit.OUTPUT_TOKENS: "output tokens",
}
_PERIODS = {
    Period.SECOND: "per second",
    Period.MINUTE: "per minute",
    Period.HOUR: "per hour",
    Period.CALENDAR_DAY: "per day",
    Period.CALENDAR_WEEK: "per week",
    Period.CALENDAR_MONTH: "per month",
}


def exhausted(decision: Decision, reservation: Reservation, principal: Principal) -> BudgetExhausted:
    """The refusal for a decision that is not allowed."""
    verdict = decision.binding
    assert verdict is not None
    return BudgetExhausted(
        budget_message(verdict, reservation.amounts, principal),
        limit_id=verdict.bound.limit.id,
        reset_at=verdict.reset_at,
        retry_after_seconds=verdict.retry_after_seconds,
    )


def budget_message(verdict: Verdict, needed: Amounts, principal: Principal) -> str:
    """One paragraph for the person whose call was refused."""
    limit = verdict.bound.limit
    parts = [
        f"Workspace {principal.workspace} has reached the limit {limit.id!r} of this gateway: "
        f"{show_amount(limit.amount, limit.unit)} {_PERIODS[limit.period]}.",
        f"This request may need up to {show_amount(needed.of(limit.unit), limit.unit)}; "
        f"{show_amount(verdict.remaining, limit.unit)} left.",
    ]
    if verdict.retry_after_seconds is None and needed.of(limit.unit) > limit.capacity:
        parts.append(
            "It can never fit this limit: make it smaller (max_tokens counts) or ask for a larger limit."
        )
    elif verdict.reset_at is not None:
        when = datetime.fromtimestamp(verdict.reset_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        parts.append(f"It is full again at {when}.")
    parts.append("Whoever runs this gateway can raise it.")
    return " ".join(parts)


def show_amount(amount: int, unit: Unit) -> str:
    """An amount for people: dollars to the cent (finer below ten cents), others with thousands apart."""
    if unit is Unit.NANOUSD:
        dollars = amount / 1e9
        return f"${dollars:,.2f}" if abs(dollars) >= 0.1 or amount == 0 else f"${dollars:.6f}"
    unit_name = _UNITS[unit] if amount != 1 else _UNITS[unit].removesuffix("s")
    return f"{amount:,} {unit_name}"
