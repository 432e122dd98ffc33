"""Money of one replica, put together: the store of budgets, what dead replicas left open, batches that are in
progress. What each does is in `adapters/` and `workers/`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from gateway.adapters.ledger_unsettled import read_unsettled
from gateway.adapters.measured_budgets import MeasuredBudgets
from gateway.adapters.prometheus import Metrics
from gateway.batching import Batching
from gateway.core.bucket import Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.rules import Rules
from gateway.ports import BatchStore, BudgetStore, Clock, Observer, Upstream
from gateway.settings.gateway import LEDGER_FILE, GatewayFile
from gateway.settings.load import Settings
from gateway.stores import open_batch_books, open_batches, open_budgets
from gateway.tasks import TaskSet
from gateway.workers.batches import TURN_SECONDS, BatchSettler
from gateway.workers.budget_gauges import read_budgets
from gateway.workers.periodic import every
from gateway.workers.sweeping import Sweeping

SWEEP_SECONDS = 10.0
GAUGES_SECONDS = 10.0


class Spending:
    """`open` it, `begin` before the first call, `run` its loops, `close` it after the last."""

    def __init__(
        self,
        file: GatewayFile,
        settings: Settings,
        budgets: BudgetStore,
        *,
        clock: Clock,
        metrics: Metrics,
        rules: Callable[[], Rules],
        upstream: Upstream,
        tasks: TaskSet,
        observers: Sequence[Observer],
    ) -> None:
        """`observers` are told of what batches cost in the end."""
        self.budgets = MeasuredBudgets(budgets, took=metrics.store_operation, failed=metrics.store_error)
        self._clock = clock
        self._metrics = metrics
        self._rules = rules
        self._batches: BatchStore = open_batches(file, settings)
        self._sweeping = Sweeping(
            budgets=self.budgets,
            books=open_batch_books(file, settings),
            unsettled=partial(read_unsettled, file.state_path(LEDGER_FILE)),
            expired=metrics.reservations_expired,
        )
        self.settler = BatchSettler(
            self._batches,
            upstream=upstream,
            budgets=self.budgets,
            books=open_batch_books(file, settings),
            observers=observers,
            rules=rules,
            clock=clock,
        )
        self.batching = Batching(self._batches, clock=clock, tasks=tasks, settle_now=self.settler.settle_now)

    @classmethod
    async def open(
        cls,
        file: GatewayFile,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        rules: Callable[[], Rules],
        upstream: Upstream,
        tasks: TaskSet,
        observers: Sequence[Observer],
    ) -> Spending:
        """Open the stores that the settings name. Raises `ConfigError`."""
        return cls(
            file,
            settings,
            await open_budgets(file, settings, clock),
            clock=clock,
            metrics=metrics,
            rules=rules,
            upstream=upstream,
            tasks=tasks,
            observers=observers,
        )

    async def begin(self) -> None:
        """Find what an earlier process left; before this one books anything. Raises `ConfigError`."""
        await self._sweeping.begin()

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
        for seconds, work, name in works:
            loops.spawn(every(seconds, work, name=name, clock=self._clock), name)

    async def close(self) -> None:
        """Close the stores."""
        await self.budgets.close()
        await self._batches.close()

    async def _read_gauges(self) -> None:
        try:
            self._metrics.budgets(await read_budgets(self._rules(), self.budgets))
            self._metrics.store_degraded(False)
        except StoreUnavailable:
            self._metrics.store_degraded(True)
