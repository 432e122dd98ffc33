"""What is told of budgets and freezes, as stores say how they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.adapters.adjustment_store import MemoryAdjustmentStore
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.adjustments import Author, Freeze, FreezeScope, Grant, LogEntry, TakenBack, Target
from gateway.core.alerts import Alert, AlertKind
from gateway.core.bucket import Amounts
from gateway.core.budget_alerts import Standing
from gateway.core.limits import BoundLimit, Limit, Period, Scope, Unit
from gateway.workers.alert_watch import (
    FRESH_SECONDS,
    PEEKED_AT_ONCE,
    BudgetWatch,
    FreezeWatch,
    Watched,
    WatchedBudgets,
    freeze_alert,
)
from tests.support.budgets import reservation
from tests.support.clock import FakeClock

LENA = Author(name="lena", via="token")
DAY = 86_400.0


@dataclass
class Told:
    """What would be begun."""

    alerts: list[Alert] = field(default_factory=list)

    def is_news(self, alert_id: str) -> bool:
        return all(alert.id != alert_id for alert in self.alerts)

    async def begin(self, alert: Alert) -> None:
        self.alerts.append(alert)


def watched(number: int = 0, period: Period = Period.CALENDAR_MONTH) -> Watched:
    limit = Limit(id="month", scope=Scope.WORKSPACE, unit=Unit.NANOUSD, amount=100, period=period)
    bound = BoundLimit(limit=limit, bucket_id=f"b{number}", subject=f"w{number}")
    return Watched(bound=bound, organisation="default", workspace=f"w{number}")


async def spend(store: MemoryBudgets, of: Watched, nanousd: int, name: str) -> None:
    asked = reservation(name, of.bound, nanousd=1)
    await store.reserve(asked)
    await store.settle(asked.id, Amounts(nanousd=nanousd))


async def looked(
    store: MemoryBudgets, clock: FakeClock, told: Told, *budgets: Watched, **of: Any
) -> list[str]:
    asked_for: list[str] = []

    async def cause(standing: Standing) -> str:
        asked_for.append(standing.workspace)
        return "key k1"

    settings: dict[str, Any] = {"thresholds": (0.5, 1.0), "forecast": True, **of}
    watch = BudgetWatch(
        told,
        watched=lambda: WatchedBudgets(budgets=budgets, **settings),
        budgets=store,
        cause=cause,
        clock=clock,
    )
    await watch.turn()
    return asked_for


async def test_each_threshold_is_told_once_and_its_cause_looked_up_only_then() -> None:
    clock, told = FakeClock(), Told()
    store, one = MemoryBudgets(clock), watched()
    assert await looked(store, clock, told, one) == []
    await spend(store, one, 60, "r1")
    assert await looked(store, clock, told, one, forecast=False) == ["w0"]
    assert await looked(store, clock, told, one, forecast=False) == []
    await spend(store, one, 60, "r2")
    await looked(store, clock, told, one, forecast=False)

    assert [alert.headline.partition(" of")[0] for alert in told.alerts] == [
        "Workspace w0 has spent 50%",
        "Workspace w0 has spent all",
    ]
    assert dict(told.alerts[0].facts)["top cause"] == "key k1"


async def test_a_window_that_begins_anew_is_told_anew() -> None:
    clock, told = FakeClock(), Told()
    store, one = MemoryBudgets(clock), watched(period=Period.CALENDAR_DAY)
    for number in range(2):
        await spend(store, one, 60, f"r{number}")
        await looked(store, clock, told, one)
        clock.jump(DAY)
        await looked(store, clock, told, one)

    assert [alert.kind for alert in told.alerts] == [AlertKind.THRESHOLD] * 2
    assert len({alert.id for alert in told.alerts}) == 2


async def test_a_budget_that_will_not_last_is_told_where_that_is_wanted() -> None:
    clock, told = FakeClock(1_793_491_200.0 + 10 * DAY), Told()  # the 11th of a month
    store, one = MemoryBudgets(clock), watched()
    await spend(store, one, 45, "r")
    await looked(store, clock, told, one, forecast=False)
    assert told.alerts == []
    await looked(store, clock, told, one)

    assert [alert.kind for alert in told.alerts] == [AlertKind.FORECAST]


async def test_more_limits_than_are_asked_for_at_once_are_all_looked_at() -> None:
    clock, told = FakeClock(), Told()
    store = MemoryBudgets(clock)
    many = [watched(number) for number in range(PEEKED_AT_ONCE + 3)]
    await spend(store, many[-1], 60, "r")
    await looked(store, clock, told, *many, forecast=False)

    assert [alert.workspace for alert in told.alerts] == [f"w{PEEKED_AT_ONCE + 2}"]


def a_freeze(at: float, scope: FreezeScope = FreezeScope.WORKSPACE) -> Freeze:
    return Freeze(id=f"adj_{at:.0f}", scope=scope, subject="demo", reason="A loop", by=LENA, at=at)


async def test_freezes_are_told_in_their_order_and_old_ones_are_not() -> None:
    clock, told, store = FakeClock(), Told(), MemoryAdjustmentStore()
    now = clock.now()
    for at in (now - FRESH_SECONDS - 1, now - 60, now - 30):
        await store.add(a_freeze(at))
    await store.take_back(f"adj_{now - 60:.0f}", TakenBack(reason="Over", by=LENA, at=now))
    watch = FreezeWatch(told, adjustments=store, clock=clock)
    for _ in range(2):
        await watch.turn()

    assert [alert.id for alert in told.alerts] == [
        f"freeze/adj_{now - 60:.0f}",
        f"freeze/adj_{now - 30:.0f}",
        f"unfreeze/adj_{now - 60:.0f}",
    ]


@pytest.mark.parametrize(
    ("scope", "whose"),
    [
        (FreezeScope.ORGANISATION, ("demo", "", "")),
        (FreezeScope.TEAM, ("", "demo", "")),
        (FreezeScope.WORKSPACE, ("", "", "demo")),
        (FreezeScope.KEY, ("", "", "")),
    ],
)
def test_a_freeze_is_for_who_it_stops(scope: FreezeScope, whose: tuple[str, str, str]) -> None:
    alert = freeze_alert(LogEntry(number=1, adjustment=a_freeze(100.0, scope)))

    assert alert is not None
    assert (alert.organisation, alert.team, alert.workspace) == whose
    assert dict(alert.facts) == {"by": "lena", "reason": "A loop"}


def test_how_long_it_was_frozen_is_told_and_other_changes_are_not() -> None:
    over = TakenBack(reason="Over", by=Author(name="max", via="token"), at=700.0)
    alert = freeze_alert(LogEntry(number=2, adjustment=a_freeze(100.0), taken_back=over))
    target = Target(limit="l", subject="s", scope=Scope.KEY, unit=Unit.NANOUSD, period=Period.CALENDAR_DAY)
    grant = Grant(id="g", target=target, extra=1, from_at=0.0, until_at=9.0, reason="More", by=LENA, at=0.0)

    assert alert is not None
    assert dict(alert.facts) == {"by": "max", "reason": "Over", "frozen for": "10 minutes, for: A loop"}
    assert freeze_alert(LogEntry(number=3, adjustment=grant)) is None
