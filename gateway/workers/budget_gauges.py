"""How the limits of organisations and workspaces stand, for the gauges. Keys are left out: too many."""

from __future__ import annotations

from gateway.core.budget_reading import BudgetReading, reading_of
from gateway.core.ids import KeyId
from gateway.core.limits import BoundLimit, Scope
from gateway.core.principal import Principal
from gateway.core.rules import Rules
from gateway.ports import BudgetStore


async def read_budgets(rules: Rules, budgets: BudgetStore) -> list[BudgetReading]:
    """One reading per limit and subject. Raises `StoreUnavailable`."""
    bound: dict[str, tuple[str, BoundLimit]] = {}
    for workspace in rules.workspaces.values():
        nobody = Principal(
            workspace=workspace.id, key_id=KeyId(""), key_name="", organisation=workspace.organisation
        )
        for limit in rules.limits.binding(nobody, ""):
            if limit.limit.scope is not Scope.KEY:
                of_organisation = limit.limit.scope is Scope.ORGANISATION
                bound[limit.bucket_id] = ("" if of_organisation else workspace.id, limit)
    verdicts = await budgets.peek([limit for _, limit in bound.values()])
    return [
        reading_of(verdict, workspace)
        for (workspace, _), verdict in zip(bound.values(), verdicts, strict=True)
    ]
