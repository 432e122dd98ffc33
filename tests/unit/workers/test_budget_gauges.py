"""Which limits have gauges, and under which label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.core.rules import Rules, Workspace
from gateway.workers.budget_gauges import read_budgets
from tests.support.budgets import reservation
from tests.support.clock import FakeClock
from tests.support.fakes import make_rules


def a_limit(id: str, scope: Scope, **changes: object) -> Limit:
    tag = "x-user" if scope is Scope.TAG else ""
    return replace(
        Limit(id=id, scope=scope, tag=tag, unit=Unit.REQUESTS, amount=9, period=Period.CALENDAR_DAY),
        **changes,  # type: ignore[arg-type]
    )


def rules_of(tmp_path: Path, *limits: Limit) -> Rules:
    """Three workspaces: two of the default organisation, one of which is in a team; one of another."""
    workspaces = {
        WorkspaceId(name): Workspace(id=WorkspaceId(name), organisation=of, team=team, upstream="default")
        for name, of, team in (("a", "default", "red"), ("b", "default", ""), ("c", "acme", ""))
    }
    return replace(make_rules(tmp_path, {}), workspaces=workspaces, limits=Limits(limits))


async def test_every_bucket_that_is_not_of_a_key_or_a_tag_is_read_once_under_a_name_of_its_own(
    tmp_path: Path,
) -> None:
    limits = [a_limit(scope.value, scope) for scope in Scope]
    pool = a_limit("pool", Scope.WORKSPACE, shared=True)
    readings = await read_budgets(rules_of(tmp_path, *limits, pool), MemoryBudgets(FakeClock()))

    assert sorted((reading.limit, reading.workspace) for reading in readings) == [
        ("organisation", ""),
        ("organisation", "organisation:acme"),
        ("pool", ""),
        ("team", "team:red"),
        ("workspace", "a"),
        ("workspace", "b"),
        ("workspace", "c"),
    ]


async def test_open_requests_are_what_a_limit_of_them_uses(tmp_path: Path) -> None:
    at_once = a_limit("at once", Scope.ORGANISATION, unit=Unit.CONCURRENT, period=Period.OPEN)
    rules, store = rules_of(tmp_path, at_once), MemoryBudgets(FakeClock())
    caller = Principal(workspace=WorkspaceId("a"), key_id=KeyId(""), key_name="", organisation="default")
    (bound,) = rules.limits.binding(caller, "")
    for name in "ab":
        await store.reserve(reservation(name, bound, concurrent=1))

    reading = next(r for r in await read_budgets(rules, store) if not r.workspace)
    assert (reading.used, reading.amount, reading.reset_at) == (2, 9, None)
