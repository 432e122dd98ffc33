"""Money of one replica, put together: the store of budgets, what dead replicas left open, batches that are in
progress. What each does is in `adapters/` and `workers/`."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.ledger_spend import identity, read_part
from gateway.adapters.ledger_unsettled import read_unsettled
from gateway.adapters.measured_budgets import MeasuredBudgets
from gateway.adapters.prometheus import Metrics
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_fence import RedisFence
from gateway.batching import Batching
from gateway.core.bucket import Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.rules import Rules
from gateway.ports import BatchStore, BudgetStore, Clock, Observer, Upstream
from gateway.settings.gateway import LEDGER_FILE, GatewayFile
from gateway.settings.load import Settings
from gateway.stores import open_batch_books, open_batches
from gateway.tasks import TaskSet
from gateway.workers.batches import TURN_SECONDS, BatchSettler
from gateway.workers.budget_gauges import read_budgets
from gateway.workers.periodic import every
from gateway.workers.rebuild import Rebuilding
from gateway.workers.sweeping import Sweeping

SWEEP_SECONDS = 10.0
GAUGES_SECONDS = 10.0
OPENING_SECONDS = 2.0
"""How long a replica waits at its start for counters that have to be rebuilt; then it serves all the same."""


class Spending:
    """`begin` before the first call, `run` its loops, `close` it after the last."""

    def __init__(
        self,
        file: GatewayFile,
        settings: Settings,
        store: BudgetStore,
        *,
        clock: Clock,
        metrics: Metrics,
        rules: Callable[[], Rules],
        upstream: Upstream,
        tasks: TaskSet,
        observers: Sequence[Observer],
        written: Callable[[], Awaitable[None]],
        replica: str,
    ) -> None:
        """`observers` are told of what batches cost in the end; `written` returns once the ledger has all
        that it was told."""
        self._fence = RedisFence(store, clock, replica=replica) if isinstance(store, RedisBudgets) else None
        self._guard = self._guarded(store, clock, metrics)
        self.budgets = MeasuredBudgets(self._guard, took=metrics.store_operation, failed=metrics.store_error)
        ledger = file.state_path(LEDGER_FILE)
        self._rebuilding = Rebuilding(
            guard=self._guard,
            read=partial(read_part, ledger),
            rules=rules,
            clock=clock,
            fence=self._fence,
            ledger=identity(ledger),
            written=written,
        )
        self._clock = clock
        self._metrics = metrics
        self._rules = rules
        self._batches: BatchStore = open_batches(file, settings)
        books = open_batch_books(file, settings)
        self._sweeping = Sweeping(
            budgets=self.budgets,
            books=books,
            unsettled=partial(read_unsettled, ledger),
            expired=metrics.reservations_expired,
        )
        self.settler = BatchSettler(
            self._batches,
            upstream=upstream,
            budgets=self.budgets,
            books=books,
            observers=observers,
            rules=rules,
            clock=clock,
        )
        self.batching = Batching(self._batches, clock=clock, tasks=tasks, settle_now=self.settler.settle_now)

    async def begin(self) -> None:
        """Find what an earlier process left, and see that the counters can be trusted; before this one books
        anything. Raises `ConfigError`."""
        await self._sweeping.begin()
        await self._rebuilding.open(OPENING_SECONDS)

    def run(self, loops: TaskSet, open_reservations: Callable[[], Iterable[Reservation]]) -> None:
        """Sweep, renew, settle batches, read gauges."""

        async def renew() -> None:
            for reservation in open_reservations():
                try:
                    await self.budgets.renew(reservation.id, reservation.lease_seconds)
                except StoreUnavailable:
                    continue  # counted already; there are two more turns before the lease ends

        works: list[tuple[float, Callable[[], Awaitable[object]], str]] = [
            (SWEEP_SECONDS, self._sweeping.turn, "sweeping reservations"),
            (self._rules().lease_seconds / 3, renew, "renewing leases"),
            (GAUGES_SECONDS, self._read_gauges, "reading budgets"),
            (TURN_SECONDS, self.settler.turn, "settling batches"),
        ]
        loops.spawn(self._rebuilding.run(), "rebuilding counters")
        for seconds, work, name in works:
            loops.spawn(every(seconds, work, name=name, clock=self._clock), name)

    async def close(self) -> None:
        """Book what is owed, if the store is there, and close the stores."""
        with contextlib.suppress(StoreUnavailable):
            await self._guard.pay()
        await self.budgets.close()
        await self._batches.close()

    async def _read_gauges(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # counted already, and the guard has said so
            self._metrics.budgets(await read_budgets(self._rules(), self.budgets))

    def _guarded(self, store: BudgetStore, clock: Clock, metrics: Metrics) -> GuardedBudgets:
        fence = self._fence
        if fence is None or not isinstance(store, RedisBudgets):
            return GuardedBudgets(store, clock, degraded=metrics.store_degraded)
        fenced = store.under(lambda: fence.generation)
        return GuardedBudgets(store, clock, fence=fence, fenced=fenced, degraded=metrics.store_degraded)
