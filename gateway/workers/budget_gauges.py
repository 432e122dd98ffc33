"""How the limits of organisations, teams and workspaces stand, for the gauges. Keys and values of tags are
left out: too many."""

from __future__ import annotations

from gateway.core.bucket import Verdict
from gateway.core.budget_reading import BudgetReading, reading_of
from gateway.core.forecast import runs_out_at
from gateway.core.ids import KeyId
from gateway.core.limits import BoundLimit, Scope
from gateway.core.principal import DEFAULT_ORGANISATION, Principal
from gateway.core.rules import Rules
from gateway.ports import BudgetStore

PEEKED_AT_ONCE = 100
"""Limits that the store is asked for in one go: it serves calls meanwhile."""


async def read_budgets(rules: Rules, budgets: BudgetStore, at: float) -> list[BudgetReading]:
    """One reading per limit and subject, `at` an instant (epoch seconds). Raises `StoreUnavailable`."""
    bound: dict[str, tuple[str, BoundLimit]] = {}
    for workspace in rules.workspaces.values():
        nobody = Principal(
            workspace=workspace.id,
            key_id=KeyId(""),
            key_name="",
            organisation=workspace.organisation,
            team=workspace.team,
        )
        for limit in rules.limits.binding(nobody, ""):
            if limit.limit.scope not in (Scope.KEY, Scope.TAG):
                bound[limit.bucket_id] = (_label(limit), limit)
    limits = [limit for _, limit in bound.values()]
    verdicts: list[Verdict] = []
    for start in range(0, len(limits), PEEKED_AT_ONCE):
        verdicts += await budgets.peek(limits[start : start + PEEKED_AT_ONCE])
    return [
        reading_of(verdict, workspace, runs_out_at(verdict, at))
        for (workspace, _), verdict in zip(bound.values(), verdicts, strict=True)
    ]


def _label(bound: BoundLimit) -> str:
    """A name of a workspace has no colon, so that the others cannot be taken for one."""
    scope = bound.limit.scope
    if scope is Scope.WORKSPACE or bound.limit.shared:
        return bound.subject
    return "" if bound.subject == DEFAULT_ORGANISATION else f"{scope.value}:{bound.subject}"
