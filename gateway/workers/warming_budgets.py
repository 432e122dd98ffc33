"""How the warming budget of each workspace stands, for reports."""

from __future__ import annotations

from gateway.core.budget_reading import BudgetReading, reading_of
from gateway.core.limits import BoundLimit, Scope
from gateway.core.principal import warming_principal
from gateway.core.rules import Rules
from gateway.ports import BudgetStore


async def read_warming_budgets(rules: Rules, budgets: BudgetStore) -> list[BudgetReading]:
    """One reading per workspace, in their order. Raises `StoreUnavailable`."""
    bound: list[tuple[str, BoundLimit]] = []
    for workspace in rules.workspaces.values():
        gateway = warming_principal(workspace.id, workspace.organisation)
        bound += [
            (workspace.id, limit)
            for limit in rules.limits.binding(gateway, "")
            if limit.limit.scope is Scope.KEY and gateway.key_id in limit.limit.subjects
        ]
    verdicts = await budgets.peek([limit for _, limit in bound])
    return [reading_of(verdict, workspace) for (workspace, _), verdict in zip(bound, verdicts, strict=True)]
