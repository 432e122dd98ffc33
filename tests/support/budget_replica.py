"""One replica's budgets as the service wires them, without the rest: Redis, fence, guard, a ledger of its
own, and the worker that rebuilds. Time is real, unless its clock is told to jump."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_spend import identity, read_part
from gateway.adapters.ledger_unsettled import read_presumed, read_unsettled
from gateway.adapters.open_calls import OpenCalls
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_fence import RedisFence
from gateway.core.bucket import Payer, Reservation
from gateway.core.exchange import Timings
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.limits import Limit, Limits
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.rules import Rules
from gateway.ports import BatchBooks
from gateway.workers.rebuild import Rebuilding
from gateway.workers.sweeping import Sweeping
from tests.support.budgets import reservation, usd
from tests.support.clock import ShiftedClock
from tests.support.fakes import make_rules
from tests.support.records import a_record
from tests.support.redis_server import RedisServer

WHO = Principal(workspace=WorkspaceId("w"), key_id=KeyId("k"), key_name="k", organisation="org")
MODEL = "claude-test-1"


class BudgetReplica:
    """`spend` is an exchange from reservation to settlement, written to the ledger in between as the pipeline
    does it. `turn` drives the worker by hand; `run` lets it run."""

    def __init__(self, url: str, state: Path, limits: Sequence[Limit], *, alone: bool = True) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.clock = ShiftedClock()
        self.path = state / "ledger.db"
        self.ledger = Ledger(self.path)
        self.identity = identity(self.path)
        self.limits = Limits(tuple(limits))
        rules = replace(make_rules(state, {}), limits=self.limits)
        self.rules: Rules = rules
        self.redis = RedisBudgets(url, self.clock)
        self.fence = RedisFence(
            self.redis,
            self.clock,
            replica=f"{random.getrandbits(64):x}",
            alone=alone,
            gather_most_seconds=2.0 if alone else 8.0,
        )
        self.degraded: list[bool] = []
        self.open_calls = OpenCalls(state / "open-calls.txt", self.clock.now)
        self.budgets = GuardedBudgets(
            self.redis,
            self.clock,
            fence=self.fence,
            fenced=self.redis.under(lambda: self.fence.generation),
            degraded=self.degraded.append,
            open_calls=self.open_calls,
        )
        self.reading = asyncio.Lock()
        self.rebuilding = Rebuilding(
            guard=self.budgets,
            read=functools.partial(read_part, self.path),
            rules=lambda: self.rules,
            clock=self.clock,
            fence=self.fence,
            ledger=self.identity,
            written=self.written,
            reading=self.reading,
            joined=lambda: self.on_joined(),  # noqa: PLW0108 - a test may replace it
        )
        self.on_joined: Callable[[], None] = lambda: None
        self._worker: asyncio.Task[None] | None = None

    async def written(self) -> None:
        """Until the ledger has all that was observed."""
        await self.ledger.written()

    def run(self) -> None:
        self._worker = asyncio.get_running_loop().create_task(self.rebuilding.run())

    async def until_open(self, seconds: float = 5.0) -> None:
        for _ in range(20):  # the store may have been away until now: the breaker waits for a second
            if await self.rebuilding.open(seconds):
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the counters were not rebuilt in time")

    async def reserve(self, id: str, nanousd: int) -> bool:
        """Whether it is admitted. Raises `StoreUnavailable` as the budgets do."""
        bound = self.limits.binding(WHO, MODEL)
        decision = await self.budgets.reserve(reservation(id, *bound, nanousd=nanousd, requests=1))
        return decision.allowed

    def asking(self, id: str, nanousd: int, *, lease_seconds: float, **amounts: int) -> Reservation:
        """A reservation that says for whom it is, as those of the pipeline do."""
        payer = Payer(
            received_at_ms=round(self.clock.now() * 1000),
            organisation=WHO.organisation,
            workspace=WHO.workspace,
            key_id=WHO.key_id,
            model=MODEL,
            endpoint="messages",
        )
        asked = reservation(id, *self.limits.binding(WHO, MODEL), nanousd=nanousd, requests=1, **amounts)
        return structs.replace(asked, lease_seconds=lease_seconds, payer=payer)

    def write_down(
        self,
        id: str,
        nanousd: int,
        *,
        seconds: float = 0.0,
        reservation_id: str | None = None,
        **changes: Any,
    ) -> None:
        """The exchange has ended; its entry is on the way to the ledger. It had lasted `seconds`; `changes`
        are of its record."""
        cost = Cost(output_nanousd=nanousd, counterfactual_nanousd=nanousd, price_id="test")
        timings = Timings(total_seconds=seconds)
        at = self.clock.now() - seconds
        held = None if reservation_id is None else reservation(reservation_id, nanousd=nanousd)
        record = a_record(
            id=id,
            principal=WHO,
            cost=cost,
            received_at=at,
            timings=timings,
            **{"reservation": held, "model": MODEL} | changes,
        )
        self.ledger.observe(record)

    async def settle(self, id: str, nanousd: int) -> None:
        await self.budgets.settle(ReservationId(id), structs.replace(usd(nanousd), requests=1))

    async def settle_found(self) -> None:
        """What the service does at its start, once it is open: settle what an earlier process had booked."""
        sweeping = self.sweeping(LedgerBatchBooks(self.path))
        await sweeping.begin()
        await sweeping.resume()

    def sweeping(self, books: BatchBooks) -> Sweeping:
        return Sweeping(
            budgets=self.budgets,
            guard=self.budgets,
            rules=lambda: self.rules,
            reading=self.reading,
            books=books,
            unsettled=lambda more: read_unsettled(self.path, round(self.clock.now() * 1000), more),
            left_open=self.open_calls,
            expired=lambda _: None,
            presumed=lambda: read_presumed(self.path, round(self.clock.now() * 1000)),
        )

    async def die(self) -> None:
        """As a process does that is killed: what is in its memory is gone, what is in its ledger is not."""
        await self.written()
        self.ledger.close()
        self.open_calls.close()
        await self.budgets.close()

    async def spend(self, id: str, nanousd: int, *, estimate: int | None = None) -> None:
        assert await self.reserve(id, nanousd if estimate is None else estimate)
        self.write_down(id, nanousd)
        await self.settle(id, nanousd)

    async def spent(self, limit: str = "") -> int:
        """What the counter of a limit says, the first one's where none is named."""
        bound = self.limits.binding(WHO, MODEL)
        verdicts = await self.redis.peek(bound)
        return next(v.spent for v in verdicts if not limit or v.bound.limit.id == limit)

    async def set_aside(self) -> int:
        return (await self.redis.peek(self.limits.binding(WHO, MODEL)))[0].set_aside

    async def standing(self) -> tuple[int, int]:
        """What the counter of the first limit says is spent, and what is set aside in it."""
        return await self.spent(), await self.set_aside()

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self.ledger.close()
        self.open_calls.close()
        await self.budgets.close()


class Replicas:
    """On one Redis, each on a state directory of its name."""

    def __init__(self, redis: RedisServer, folder: Path, limits: Sequence[Limit]) -> None:
        self.redis = redis
        self.folder = folder
        self._limits = limits
        self._all: list[BudgetReplica] = []

    def replica(self, name: str = "one", *, alone: bool = True) -> BudgetReplica:
        replica = BudgetReplica(self.redis.url, self.folder / name, self._limits, alone=alone)
        self._all.append(replica)
        return replica

    async def close(self) -> None:
        for replica in self._all:
            await replica.close()
