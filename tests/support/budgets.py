"""Budget stores under test, each with a clock that the test moves, what a rate may admit, and short ways to
say limits and reservations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.core.bucket import Amounts, Reservation, Verdict
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.limits import BoundLimit, Limit, Limits, Mode, OnStoreFailure, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.ports import BudgetStore
from tests.support.clock import FakeClock, zone_at_noon
from tests.support.redis_server import RedisServer

PERIOD_MS = {Period.SECOND: 1000, Period.MINUTE: 60_000, Period.HOUR: 3_600_000}
CLOCK_IN_A_KEY = """
local function now_ms()
  return tonumber(redis.call('GET', '%s'))
end
"""


@dataclass
class Ground:
    """One store, its time, and more objects on the same state where a kind has such."""

    kind: str
    clock: FakeClock
    directory: Path
    redis: RedisServer | None = None
    prefix: str = field(default_factory=lambda: f"t{uuid4().hex}")
    _opened: list[BudgetStore] = field(default_factory=list)

    async def store(self) -> BudgetStore:
        """A store object; each call gives another on the same state (memory has but one)."""
        made: BudgetStore
        if self.kind == "memory":
            made = self._opened[0] if self._opened else MemoryBudgets(self.clock)
        elif self.kind == "sqlite":
            made = await SqliteBudgets(self.directory / f"{self.prefix}.db", self.clock).open()
        else:
            assert self.redis is not None
            source = CLOCK_IN_A_KEY % f"{{{self.prefix}}}:now"
            timed = type("TimedRedisBudgets", (RedisBudgets,), {"clock_source": source})
            self.tell_time()
            made = await timed(self.redis.url, self.clock, self.prefix).open()
        self._opened.append(made)
        return made

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.tell_time()

    def tell_time(self) -> None:
        if self.redis is not None:
            now_ms = round(self.clock.now() * 1000)
            assert self.redis.command("SET", f"{{{self.prefix}}}:now", str(now_ms)) == b"+OK\r\n"

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


class Admitted:
    """What each enforced rate has admitted and when: as reserved, or as settled once that is known, always at
    the instant of the reservation. Costs beyond what was reserved were never admitted, and do not count."""

    def __init__(self) -> None:
        self._limits: dict[str, BoundLimit] = {}
        self._at_ms: dict[str, dict[str, int]] = {}
        self._used: dict[str, dict[str, int]] = {}

    def reserved(self, name: str, limits: Sequence[BoundLimit], amounts: Amounts, now_ms: int) -> None:
        for limit in limits:
            if limit.limit.period.is_rate and limit.limit.mode is Mode.ENFORCE:
                id = limit.limit.id
                self._limits[id] = limit
                self._at_ms.setdefault(id, {})[name] = now_ms
                self._used.setdefault(id, {})[name] = amounts.of(limit.limit.unit)

    def closed(self, name: str, actual: Amounts) -> None:
        """At its first close."""
        for id, used in self._used.items():
            if name in used:
                used[name] = min(used[name], actual.of(self._limits[id].limit.unit))

    def check(self) -> None:
        """Over every window of a length t, no more than capacity + rate * t."""
        for id, bound_limit in self._limits.items():
            limit = bound_limit.limit
            events = list(zip(self._at_ms[id].values(), self._used[id].values(), strict=True))
            for first, (start_ms, _) in enumerate(events):
                total = 0
                for end_ms, used in events[first:]:
                    total += used
                    came_back = Fraction((end_ms - start_ms) * limit.amount, PERIOD_MS[limit.period])
                    assert total <= limit.capacity + came_back, (id, events)


async def sweep(store: BudgetStore, ledger: str = "books") -> int:
    """Sweep, and say that a ledger has it; how many reservations were closed."""
    found = await store.sweep(ledger)
    await store.booked(ledger, [one.id for one in found])
    return sum(not one.taken_back for one in found)


def bound(
    amount: int,
    *,
    id: str = "limit",
    unit: Unit = Unit.NANOUSD,
    period: Period = Period.CALENDAR_DAY,
    **rest: Any,
) -> BoundLimit:
    """One limit of an organisation, bound."""
    limit = Limit(id=id, scope=Scope.ORGANISATION, unit=unit, amount=amount, period=period, **rest)
    principal = Principal(workspace=WorkspaceId("w"), key_id=KeyId("k"), key_name="k", organisation="org")
    (only,) = Limits((limit,)).binding(principal, "claude-model")
    return only


def reservation(
    id: str, *limits: BoundLimit, nanousd: int = 0, lease_seconds: float = 60, **amounts: int
) -> Reservation:
    return Reservation(
        id=ReservationId(id),
        limits=limits,
        amounts=Amounts(nanousd=nanousd, **amounts),
        lease_seconds=lease_seconds,
    )


def rid(name: str) -> ReservationId:
    return ReservationId(name)


def money_a_month(nanousd: int, on_store_failure: OnStoreFailure = OnStoreFailure.REFUSE) -> Limit:
    """Of the organisation, in months that neither begin nor end while a test runs."""
    return Limit(
        id="money",
        scope=Scope.ORGANISATION,
        unit=Unit.NANOUSD,
        amount=nanousd,
        period=Period.CALENDAR_MONTH,
        timezone=zone_at_noon(),
        on_store_failure=on_store_failure,
    )


def usd(nanousd: int) -> Amounts:
    return Amounts(nanousd=nanousd)


async def state(store: BudgetStore, limit: BoundLimit) -> tuple[int, int]:
    """What is spent and what is set aside."""
    (verdict,) = await store.peek([limit])
    return verdict.spent, verdict.set_aside


async def look(store: BudgetStore, limit: BoundLimit) -> Verdict:
    (verdict,) = await store.peek([limit])
    return verdict
