"""How one limit stands for one subject, for gauges and reports. A value only."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.bucket import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReading:
    """`unit` is a value of `core.limits.Unit`; amounts are in it."""

    limit: str
    workspace: str
    """Empty for a pool, and for the organisation `default`; `team:NAME` and `organisation:NAME` for theirs.
    Limits of single keys and of values of tags are not read: too many label sets."""
    unit: str
    amount: int
    used: int
    """Spent and reserved together; above `amount` after an overrun."""
    reset_at: float | None
    runs_out_at: float | None = None
    """See `core.forecast.runs_out_at`."""


def reading_of(verdict: Verdict, workspace: str, runs_out_at: float | None = None) -> BudgetReading:
    """What a store's answer says about a limit."""
    limit = verdict.bound.limit
    # What a refilled bucket has set aside is within its `spent` already.
    reserved = 0 if limit.period.is_rate else verdict.set_aside
    return BudgetReading(
        limit=limit.id,
        workspace=workspace,
        unit=limit.unit,
        amount=limit.amount,
        used=verdict.spent + reserved,
        reset_at=verdict.reset_at,
        runs_out_at=runs_out_at,
    )
