"""Whatever is flushed and whenever, the counter of money is in the end the sum of what exchanges have cost:
none is lost, none counts twice; and as long as nothing is flushed, calls that run keep their places. Driven
by generated histories of two replicas over a real Redis; ledgers are lists here, so that an entry can be
written down at any moment of the rebuilding."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.adapters import redis_scripts
from gateway.adapters.clock import SystemClock
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_fence import RedisFence
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Limits, OnStoreFailure, Period, Scope, Unit
from gateway.core.rebuild import LedgerPart, Span, Spend
from gateway.core.rules import Rules
from gateway.workers.rebuild import Rebuilding
from tests.support.budget_replica import MODEL, WHO
from tests.support.budgets import reservation, rid, usd
from tests.support.fakes import make_rules
from tests.support.redis_server import RedisServer

MONEY = Limit(
    id="money",
    scope=Scope.ORGANISATION,
    unit=Unit.NANOUSD,
    amount=10**9,
    period=Period.CALENDAR_MONTH,
    on_store_failure=OnStoreFailure.ALLOW,
)
RATE = Limit(id="rate", scope=Scope.KEY, unit=Unit.REQUESTS, amount=10**6, period=Period.HOUR)
PLACES = Limit(id="places", scope=Scope.KEY, unit=Unit.CONCURRENT, amount=10**6, period=Period.OPEN)
LIMITS = Limits((MONEY, RATE, PLACES))
BOUND = LIMITS.binding(WHO, MODEL)

Step = tuple[str, int, int]
"""What, which replica, which number."""

STEPS = st.tuples(
    st.sampled_from(["spend", "reserve", "end", "settle", "release", "turn", "pay"]),
    st.integers(0, 1),
    st.integers(0, 7),
)
FLUSHES, REPAIRS = (
    st.tuples(st.sampled_from(words), st.integers(0, 1), st.integers(0, 7))
    for words in (["flush", "flush", "repair"], ["repair"])
)
HISTORIES = st.one_of(
    [st.lists(st.one_of(STEPS, STEPS, STEPS, often), min_size=5, max_size=40) for often in (FLUSHES, REPAIRS)]
)


@dataclass
class _Replica:
    """One replica with the exchanges that are its own."""

    name: str
    redis: RedisBudgets
    fence: RedisFence
    budgets: GuardedBudgets
    rules: Rules
    entries: dict[str, int] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    meanwhile: list[Step] = field(default_factory=list)
    """What happens between the reading of the ledger and the next word to Redis."""
    count: int = 0

    def read(
        self,
        spans: Sequence[Span],
        *,
        known_since_ms: int,
        by_tags: bool,
        beyond: Mapping[str, int] | None,
    ) -> LedgerPart:
        total = sum(self.entries.values())
        spend = Spend(organisation="org", workspace="w", key_id="k", model=MODEL, nanousd=total)
        part = LedgerPart(ledger=self.name, spends=dict.fromkeys(spans, (spend,)), known=tuple(self.entries))
        for what, _, number in self.meanwhile:
            if what == "end":
                self.end(number)
        return part

    def end(self, number: int) -> None:
        if self.running:
            id = self.running.pop(number % len(self.running))
            self.entries[id] = 10 + abs(number)
            self.ended.append(id)

    async def do(self, what: str, number: int) -> None:
        match what:
            case "spend":
                await self.do("reserve", 0)
                self.end(-1)
                await self.do("settle", -1)
            case "reserve":
                self.count += 1
                id = f"{self.name}{self.count}"
                await self.budgets.reserve(reservation(id, *BOUND, nanousd=20, requests=1, concurrent=1))
                self.running.append(id)
            case "end":
                self.end(number)
            case "settle" if self.ended:
                id = self.ended[number % len(self.ended)]
                await self.budgets.settle(rid(id), structs.replace(usd(self.entries[id]), requests=1))
                self.ended.remove(id)
            case "release" if self.running:
                id = self.running.pop(number % len(self.running))
                await self.budgets.release(rid(id))

    def rebuilding(self) -> Rebuilding:
        async def written() -> None:
            pass

        return Rebuilding(
            guard=self.budgets,
            read=self.read,
            rules=lambda: self.rules,
            clock=SystemClock(),
            fence=self.fence,
            ledger=self.name,
            written=written,
        )


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    """The machine may stall for longer than a call would wait, which is not what is proved here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(redis_scripts, "ATTEMPT_SECONDS", 10.0)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    path: Path = tmp_path_factory.mktemp("rules")
    return replace(make_rules(path, {}), limits=LIMITS)


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    history=HISTORIES,
    meanwhile=st.lists(STEPS, max_size=3),
    waits=st.sampled_from([0.0, 0.2]),
)
def test_every_exchange_counts_once_whatever_is_flushed(
    server: RedisServer, rules: Rules, history: list[Step], meanwhile: list[Step], waits: float
) -> None:
    """`waits`: for how long one replica waits for the other's ledger; where it does not, that comes late."""
    asyncio.run(_live(server, rules, history, meanwhile, waits))


async def _live(
    server: RedisServer, rules: Rules, history: list[Step], meanwhile: list[Step], waits: float
) -> None:
    server.command("FLUSHALL")
    replicas = [_replica(name, server, rules, meanwhile, waits) for name in "ab"]
    workers = [replica.rebuilding() for replica in replicas]
    for worker in (*workers, *workers):
        await worker.turn()
    flushed = False
    for what, which, number in history:
        with contextlib.suppress(StoreUnavailable):
            if what == "flush":
                server.command("FLUSHALL")
            elif what == "repair":
                await workers[which].repair()
            elif what == "turn":
                await workers[which].turn()
            elif what == "pay":
                await replicas[which].budgets.pay()
            else:
                await replicas[which].do(what, number)
        flushed |= what == "flush"
        if not flushed:
            await _check_places(replicas)
    for replica in replicas:
        replica.meanwhile = []
        while replica.running:
            replica.end(1)
    for worker in workers:  # the last flush may be unnoticed yet
        await worker.turn()
    async with asyncio.timeout(10):
        while any(
            replica.ended or replica.budgets.owed or replica.budgets.is_rebuilding for replica in replicas
        ):
            for worker, replica in zip(workers, replicas, strict=True):
                with contextlib.suppress(StoreUnavailable):
                    await replica.do("settle", 0)
                with contextlib.suppress(StoreUnavailable):
                    await worker.turn()
    verdict, _, places = await replicas[0].redis.peek(BOUND)
    total = sum(sum(replica.entries.values()) for replica in replicas)
    for replica in replicas:
        await replica.budgets.close()

    assert (verdict.spent, verdict.set_aside) == (total, 0)
    assert places.set_aside == 0


async def _check_places(replicas: Sequence[_Replica]) -> None:
    """As long as the store loses nothing, no rebuilding gives back the place of a call that runs."""
    _, _, places = await replicas[0].redis.peek(BOUND)
    running = sum(len(replica.running) for replica in replicas)
    ended = sum(len(replica.ended) + replica.budgets.owed for replica in replicas)
    assert running <= places.set_aside <= running + ended


def _replica(name: str, server: RedisServer, rules: Rules, meanwhile: list[Step], waits: float) -> _Replica:
    redis = RedisBudgets(server.url, SystemClock())
    fence = RedisFence(redis, SystemClock(), replica=name, alone=True, gather_most_seconds=waits)
    rest: dict[str, Any] = {"fence": fence, "fenced": redis.under(lambda: fence.generation)}
    return _Replica(
        name, redis, fence, GuardedBudgets(redis, SystemClock(), **rest), rules, meanwhile=list(meanwhile)
    )
