"""What the admin API says of limits: which there are for whom, how they stand, what adjusts them. Read only;
the routes are in `admin_budgets.py`, `admin_adjustments.py` and `me.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from gateway.core.adjustments import Adjustment, Freeze, Grant, LogEntry, Override, TakenBack, limit_of
from gateway.core.bucket import Verdict
from gateway.core.errors import StoreUnavailable
from gateway.core.forecast import runs_out_at
from gateway.core.limits import BoundLimit, Limit, Limits, Tags, Unit
from gateway.core.principal import Principal
from gateway.core.refusal import show_amount
from gateway.core.rules import Rules
from gateway.ports import AdjustmentStore, BudgetStore
from gateway.web.admin_api import AdminError
from gateway.web.openapi import Answer

UNKNOWN = "?"
"""The text of what nobody knows before the counters are computed anew."""
PEEKED_AT_ONCE = 100
"""Limits that the store is asked for in one go: it serves calls meanwhile."""


class InForce(Protocol):
    """What holds on this replica."""

    @property
    def rules(self) -> Rules: ...
    @property
    def configured(self) -> Limits:
        """The limits without adjustments."""
        ...

    @property
    def adjustments(self) -> tuple[Adjustment, ...]: ...
    async def refresh_adjustments(self, store: AdjustmentStore, at: float) -> bool: ...
    def read_amount(self, limit: Limit, amount: str | int) -> int:
        """An amount of this limit as people write it. Raises ValueError."""
        ...


class Quantity(Answer):
    """So much of a limit's unit, exactly."""

    value: int
    """In the limit's unit; dollars are counted in billionths."""
    text: str
    """The same for people, rounded."""

    @classmethod
    def of(cls, value: int, unit: Unit) -> Quantity:
        return cls(value=value, text=show_amount(value, unit))


class TakenBackAnswer(Answer):
    """That it does not hold any longer."""

    at: str
    by: str
    via: str
    """How it is known that they may."""
    reason: str


class AdjustmentAnswer(Answer):
    """One change that somebody made while the gateway ran."""

    id: str
    kind: str
    """`override`, `grant` or `freeze`."""
    limit: str | None
    """Id of the limit; null for a freeze."""
    scope: str
    subject: str
    """The member of the scope; empty for a pool."""
    amount: Quantity | None
    """Of an override, in place of the configured amount; of a grant, beside it."""
    begins_at: str | None
    ends_at: str | None
    """Of a grant; null for others, which hold until they are taken back."""
    at: str
    by: str
    via: str
    """How it is known that they may."""
    reason: str
    taken_back: TakenBackAnswer | None


class BudgetAnswer(Answer):
    """How one limit stands for one subject."""

    limit: str
    scope: str
    subject: str
    """The member of the scope; empty for a pool."""
    organisation: str
    """Whose member the subject is; empty for a pool."""
    unit: str
    period: str
    mode: str
    models: list[str]
    """Globs of models that it counts; all where empty."""
    warn_at: list[float]
    """Shares of the amount whose crossing is reported."""
    amount: Quantity
    """In force now, with what adjusts it."""
    configured: Quantity
    """As limits.yaml has it."""
    spent: Quantity
    """In this window; of a rate, what has not come back yet."""
    set_aside: Quantity
    """By calls that are under way."""
    left: Quantity
    """Below zero after an overrun."""
    rebuilding: bool
    """Whether the counter is being computed anew from the ledgers: `spent`, `set_aside` and `left` say
    nothing meanwhile, and their texts are "?"."""
    resets_at: str | None
    """When all of it is there again; null where nobody knows, as of concurrent requests."""
    runs_out_at: str | None
    """When it is spent, if spending goes on as it has on average since the window began. Null where it lasts,
    where it is too early to say (before 1% of the window), and for rates."""
    adjustments: list[AdjustmentAnswer]
    """Those in force."""
    contact: str
    comment: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit as it binds somebody."""

    organisation: str
    limit: BoundLimit


def bound_to(rules: Rules, principals: Iterable[Principal], tags: Tags = ()) -> list[Bound]:
    """Each limit that binds one of them for some known model, once for each bucket, in configured order."""
    names = [""]
    if any(limit.models for limit in rules.limits.all):
        names += [facts.id for facts in rules.models.known()]
    found: dict[str, Bound] = {}
    for principal in principals:
        for name in names:
            for limit in rules.limits.binding(principal, name, tags):
                found.setdefault(limit.bucket_id, Bound(principal.organisation, limit))
    order = {id(limit): place for place, limit in enumerate(rules.limits.all)}
    return sorted(found.values(), key=lambda bound: order[id(bound.limit.limit)])


async def peek_all(budgets: BudgetStore, limits: Sequence[BoundLimit]) -> list[Verdict]:
    """How they stand. Raises `AdminError` where the store does not answer."""
    verdicts: list[Verdict] = []
    try:
        for start in range(0, len(limits), PEEKED_AT_ONCE):
            verdicts += await budgets.peek(limits[start : start + PEEKED_AT_ONCE])
    except StoreUnavailable as error:
        raise AdminError(503, f"The budgets cannot be read: {error.message}") from None
    return verdicts


def budget_answers(
    configured: Limits,
    adjustments: Iterable[Adjustment],
    bounds: Sequence[Bound],
    verdicts: Sequence[Verdict],
    at: float,
) -> list[BudgetAnswer]:
    """An answer for each, in this order."""
    made: dict[tuple[str, str], list[Override | Grant]] = {}
    for each in adjustments:
        if not isinstance(each, Freeze):
            made.setdefault((each.target.limit, each.target.subject), []).append(each)
    return [
        _budget_answer(configured, made, bound, verdict, at)
        for bound, verdict in zip(bounds, verdicts, strict=True)
    ]


def _budget_answer(
    configured: Limits,
    made: Mapping[tuple[str, str], Sequence[Override | Grant]],
    bound: Bound,
    verdict: Verdict,
    at: float,
) -> BudgetAnswer:
    limit, subject = bound.limit.limit, bound.limit.subject
    adjustments = [each for each in made.get((limit.id, subject), ()) if each.target.is_of(limit)]
    as_written = (limit_of(configured, limit.id, subject) if adjustments else None) or limit
    return BudgetAnswer(
        limit=limit.id,
        scope=limit.scope,
        subject=subject,
        organisation="" if limit.shared else bound.organisation,
        unit=limit.unit,
        period=limit.period,
        mode=limit.mode,
        models=list(limit.models),
        warn_at=list(limit.warn_at),
        amount=Quantity.of(limit.amount, limit.unit),
        configured=Quantity.of(as_written.amount, limit.unit),
        spent=counted(verdict, verdict.spent),
        set_aside=counted(verdict, verdict.set_aside),
        left=left_of(verdict),
        rebuilding=verdict.rebuilding,
        resets_at=instant(verdict.reset_at),
        runs_out_at=instant(runs_out_at(verdict, at)),
        adjustments=[adjustment_answer(each) for each in adjustments],
        contact=limit.contact,
        comment=limit.comment,
    )


def left_of(verdict: Verdict) -> Quantity:
    """What is left of a limit; below zero after an overrun."""
    return counted(verdict, verdict.bound.limit.capacity - verdict.spent - verdict.set_aside)


def counted(verdict: Verdict, value: int) -> Quantity:
    """What comes from the counter of a limit."""
    if verdict.rebuilding:
        return Quantity(value=value, text=UNKNOWN)
    return Quantity.of(value, verdict.bound.limit.unit)


def adjustment_answer(made: Adjustment, taken_back: TakenBack | None = None) -> AdjustmentAnswer:
    limit: str | None = None
    amount: Quantity | None = None
    begins_at = ends_at = None
    match made:
        case Override():
            limit, amount = made.target.limit, Quantity.of(made.amount, made.target.unit)
        case Grant():
            limit, amount = made.target.limit, Quantity.of(made.extra, made.target.unit)
            begins_at, ends_at = made.from_at, made.until_at
        case Freeze():
            pass
    whom = made if isinstance(made, Freeze) else made.target
    return AdjustmentAnswer(
        id=made.id,
        kind=type(made).__name__.lower(),
        limit=limit,
        scope=whom.scope,
        subject=whom.subject,
        amount=amount,
        begins_at=instant(begins_at),
        ends_at=instant(ends_at),
        at=stated(made.at),
        by=made.by.name,
        via=made.by.via,
        reason=made.reason,
        taken_back=None
        if taken_back is None
        else TakenBackAnswer(
            at=stated(taken_back.at), by=taken_back.by.name, via=taken_back.by.via, reason=taken_back.reason
        ),
    )


def entry_answer(entry: LogEntry) -> AdjustmentAnswer:
    return adjustment_answer(entry.adjustment, entry.taken_back)


def instant(at: float | None) -> str | None:
    """An instant as answers have it, where there is one."""
    return None if at is None else stated(at)


def stated(at: float) -> str:
    """An instant as answers have it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
