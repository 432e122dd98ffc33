"""Which limits have gauges, and under which label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.bucket import Verdict
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import BoundLimit, Limit, Limits, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.core.rules import Rules, Workspace
from gateway.workers.budget_gauges import PEEKED_AT_ONCE, read_budgets
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
    readings = await read_budgets(rules_of(tmp_path, *limits, pool), MemoryBudgets(FakeClock()), 0.0)

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

    reading = next(r for r in await read_budgets(rules, store, 0.0) if not r.workspace)
    assert (reading.used, reading.amount, reading.reset_at) == (2, 9, None)


class Pages:
    """The store, and how many limits it was asked for in one go."""

    def __init__(self) -> None:
        self._store = MemoryBudgets(FakeClock())
        self.sizes: list[int] = []

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        self.sizes.append(len(limits))
        return await self._store.peek(limits)


async def test_many_limits_are_read_page_by_page(tmp_path: Path) -> None:
    """One script for all of them would keep Redis from calls for as long."""
    rules = rules_of(tmp_path, *(a_limit(f"l{n}", Scope.ORGANISATION) for n in range(120)))
    pages: Any = Pages()

    readings = await read_budgets(rules, pages, 0.0)

    assert pages.sizes == [PEEKED_AT_ONCE, PEEKED_AT_ONCE, 240 - 2 * PEEKED_AT_ONCE]
    assert len({(reading.limit, reading.workspace) for reading in readings}) == 240
