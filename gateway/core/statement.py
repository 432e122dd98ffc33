"""One month of one cost centre, as finance wants it: what it spent on what, of which budget, what caching
did. Pure; the sums are the ledger's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.core.focus import KINDS
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.ledger import By, Dimension, Tag, Total, add_up
from gateway.core.limits import Limits, Period, Scope, Unit
from gateway.core.month_end import MonthEnd
from gateway.core.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one kind of tokens of one model cost, or its web searches."""

    model: str
    kind: str
    unit: str
    quantity: int
    nanousd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Nano-dollars; the lines sum to `total.cost_nanousd` exactly."""

    name: str
    """The workspace, team or value of a tag; "-" for what has none."""
    lines: tuple[Line, ...]
    """Dearest first."""
    total: Total
    budget_nanousd: int | None = None
    """Of the month, as configured; None where nothing limits it by itself."""
    month_end: MonthEnd | None = None
    """Of a month that is not over."""

    @property
    def share(self) -> float | None:
        """Of the budget that is spent."""
        return self.total.cost_nanousd / self.budget_nanousd if self.budget_nanousd else None


def statements(
    totals: Iterable[Total], budgets: Mapping[str, int], month_ends: Mapping[str, MonthEnd]
) -> tuple[Statement, ...]:
    """One for each first value of the groups, dearest first. Groups are of a name and a model."""
    by_name: dict[str, list[Total]] = {}
    for total in add_up(totals):
        by_name.setdefault(total.group[0], []).append(total)
    wholes = {
        name: add_up(replace(part, group=(name,)) for part in parts)[0] for name, parts in by_name.items()
    }
    return tuple(
        Statement(
            name=name,
            lines=tuple(
                sorted(
                    (line for part in by_name[name] for line in _lines(part)),
                    key=lambda line: (-line.nanousd, line.model, line.kind),
                )
            ),
            total=whole,
            budget_nanousd=budgets.get(name),
            month_end=month_ends.get(name),
        )
        for name, whole in sorted(wholes.items(), key=lambda item: (-item[1].cost_nanousd, item[0]))
    )


SCOPES: dict[By, Scope] = {
    Dimension.ORGANISATION: Scope.ORGANISATION,
    Dimension.WORKSPACE: Scope.WORKSPACE,
    Dimension.TEAM: Scope.TEAM,
}
"""What has budgets of its own, beside tags."""


def month_budgets(
    limits: Limits, by: By, names: Iterable[str], organisation_of: Mapping[str, str]
) -> dict[str, int]:
    """Nano-dollars by name, where there are any: the least limit of dollars a month that counts all models of
    one workspace, team, organisation or value of a tag, and nobody else's. `organisation_of`: workspaces."""
    found = {}
    for name in names:
        if name == "-":
            continue
        caller = Principal(
            workspace=WorkspaceId(name if by is Dimension.WORKSPACE else ""),
            key_id=KeyId(""),
            key_name="",
            organisation=name if by is Dimension.ORGANISATION else organisation_of.get(name, "default"),
            team=name if by is Dimension.TEAM else "",
        )
        tags = ((by.name, name),) if isinstance(by, Tag) else ()
        amounts = [
            bound.limit.amount
            for bound in limits.binding(caller, "", tags)
            if bound.limit.scope is SCOPES.get(by, Scope.TAG)
            and bound.limit.unit is Unit.NANOUSD
            and bound.limit.period is Period.CALENDAR_MONTH
            and not bound.limit.models
            and not bound.limit.shared
            and (not isinstance(by, Tag) or bound.limit.tag == by.name)
        ]
        if amounts:
            found[name] = min(amounts)
    return found


def _lines(total: Total) -> list[Line]:
    amounts = ((getattr(total, kind.column), getattr(total, kind.cost)) for kind in KINDS)
    return [
        Line(model=total.group[1], kind=kind.name, unit=kind.unit, quantity=quantity, nanousd=nanousd)
        for kind, (quantity, nanousd) in zip(KINDS, amounts, strict=True)
        if quantity or nanousd
    ]
