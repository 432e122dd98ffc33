"""What a refused caller is told: which limit, what it needed, what is left, when it resets, whom to ask.
Words only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.errors import BudgetExhausted, Unbounded
from gateway.core.headers import Header
from gateway.core.limits import BoundLimit, Limit, Mode, Period, Scope, Unit
from gateway.core.principal import Principal

_UNITS = {
    Unit.REQUESTS: "requests",
    Unit.INPUT_TOKENS: "input tokens",
    Unit.OUTPUT_TOKENS: "output tokens",
    Unit.PROMPT_TOKENS: "input tokens, cache reads included",
    Unit.CONCURRENT: "requests",
}
_PERIODS = {
    Period.SECOND: "per second",
    Period.MINUTE: "per minute",
    Period.HOUR: "per hour",
    Period.CALENDAR_DAY: "per day",
    Period.CALENDAR_WEEK: "per week",
    Period.CALENDAR_MONTH: "per month",
    Period.OPEN: "at a time",
}


def exhausted(
    decision: Decision, reservation: Reservation, principal: Principal, headers: Sequence[Header] = ()
) -> BudgetExhausted:
    """The refusal for a decision that is not allowed. `headers` are to be on the answer."""
    verdict = decision.binding
    assert verdict is not None
    return BudgetExhausted(
        budget_message(verdict, reservation.amounts, principal),
        limit_id=verdict.bound.limit.id,
        reset_at=verdict.reset_at,
        retry_after_seconds=verdict.retry_after_seconds,
        headers=tuple(headers),
    )


def budget_message(verdict: Verdict, needed: Amounts, principal: Principal) -> str:
    """One paragraph for the person whose call was refused."""
    limit = verdict.bound.limit
    parts = [
        f"{_whose(verdict.bound, principal)} has reached the limit {limit.id!r} of this gateway: "
        f"{show_amount(limit.amount, limit.unit)} {_PERIODS[limit.period]}."
    ]
    if limit.unit is not Unit.CONCURRENT:
        parts.append(
            f"This request may need up to {show_amount(needed.of(limit.unit), limit.unit)}; "
            f"{show_amount(verdict.remaining, limit.unit)} left."
        )
    elif verdict.retry_after_seconds is not None:
        parts.append("All of them are under way; try again when one has ended.")
    if verdict.retry_after_seconds is None and needed.of(limit.unit) > limit.capacity:
        parts.append(
            "It can never fit this limit: make it smaller (max_tokens counts) or ask for a larger limit."
        )
    elif verdict.reset_at is not None:
        when = datetime.fromtimestamp(verdict.reset_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        parts.append(f"It is full again at {when}.")
    parts.append(f"To have it raised, ask {_contact(limit)}.")
    return " ".join(parts)


def unbounded(reasons: Sequence[str], limits: Sequence[BoundLimit], principal: Principal) -> Unbounded | None:
    """The refusal of a call that `reasons` leave without a bound, where one of `limits` is of dollars and
    enforced; None where there is none."""
    bound = _enforced_dollars(limits)
    if bound is None:
        return None
    return Unbounded(
        f"Workspace {principal.workspace} promises never to exceed the limit {bound.limit.id!r}, and nothing "
        f"bounds what this request may cost: {'; '.join(reasons)}. Change that, or ask "
        f"{_contact(bound.limit)} for a workspace with `unbounded: allow` or `estimate: estimate`."
    )


def unpriced(path: str, limits: Sequence[BoundLimit], principal: Principal) -> Unbounded | None:
    """The refusal of a call whose cost nobody is told, as `unbounded`."""
    bound = _enforced_dollars(limits)
    if bound is None:
        return None
    return Unbounded(
        f"Workspace {principal.workspace} has the limit {bound.limit.id!r}, and what POST {path} costs "
        f"cannot be counted against it. Ask {_contact(bound.limit)} for a workspace with `unbounded: allow`."
    )


def _enforced_dollars(limits: Sequence[BoundLimit]) -> BoundLimit | None:
    return next((b for b in limits if b.limit.unit is Unit.NANOUSD and b.limit.mode is Mode.ENFORCE), None)


def _contact(limit: Limit) -> str:
    return limit.contact or "whoever runs this gateway"


def show_amount(amount: int, unit: Unit) -> str:
    """An amount for people: dollars to the cent (finer below ten cents), others with thousands apart."""
    if unit is Unit.NANOUSD:
        dollars = amount / 1e9
        return f"${dollars:,.2f}" if abs(dollars) >= 0.1 or amount == 0 else f"${dollars:.6f}"
    one, comma, rest = _UNITS[unit].partition(",")
    return f"{amount:,} {one if amount != 1 else one.removesuffix('s')}{comma}{rest}"


def _whose(bound: BoundLimit, principal: Principal) -> str:
    if bound.limit.shared:
        return f"The pool that workspace {principal.workspace} draws on"
    match bound.limit.scope:
        case Scope.KEY:
            return f"Key {principal.key_name!r} of workspace {principal.workspace}"
        case Scope.TAG:
            tag = bound.limit.tag
            return f"{tag} {bound.subject!r}" if bound.subject else f"What is sent without {tag}"
        case Scope.WORKSPACE:
            return f"Workspace {principal.workspace}"
        case Scope.TEAM:
            return f"Team {principal.team}"
        case Scope.ORGANISATION:
            return f"Organisation {principal.organisation}"
