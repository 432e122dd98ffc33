"""Money of one replica, put together: the store of budgets, what dead replicas left open, batches that are in
progress. What each does is in `adapters/` and `workers/`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from gateway.adapters.file_lock import FileLock
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.ledger_source import LedgerSource
from gateway.adapters.ledger_spend import identity, read_part
from gateway.adapters.ledger_unsettled import read_presumed, read_unsettled
from gateway.adapters.measured_budgets import MeasuredBudgets, MeasuredFencedBudgets
from gateway.adapters.open_calls import OpenCalls, left_behind
from gateway.adapters.prometheus import Metrics
from gateway.adapters.redis_audits import RedisAudits
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_fence import RedisFence
from gateway.batching import Batching
from gateway.core.bucket import Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.rules import Rules
from gateway.core.worker import Worker
from gateway.ports import BatchStore, BudgetStore, Clock, Observer, Upstream
from gateway.settings.gateway import LEDGER_FILE, OPEN_CALLS_FILE, GatewayFile
from gateway.settings.load import Settings
from gateway.stores import ledger_source, open_batch_books, open_batches
from gateway.tasks import TaskSet
from gateway.workers.auditing import LOOK_SECONDS, Auditing
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
        worker: Worker | None = None,
    ) -> None:
        """`observers` are told of what batches cost in the end; `written` returns once the ledger has all
        that it was told."""
        self._redis = store if isinstance(store, RedisBudgets) else None
        self._fence = RedisFence(self._redis, clock, replica=replica) if self._redis is not None else None
        self._open_calls = _open_calls(file, clock, worker)
        self._guard = self._guarded(store, clock, metrics)
        self.budgets: BudgetStore = self._guard
        self._clock = clock
        self._metrics = metrics
        self._rules = rules
        ledger, source = file.state_path(LEDGER_FILE), ledger_source(file, settings)
        self._reading = FileLock(ledger)
        self._rebuilding = self._rebuilt(ledger, source, written, worker)
        self.auditing = self._audited(identity(source), shared=source != ledger, replica=replica)
        self._batches: BatchStore = open_batches(file, settings)
        books = open_batch_books(file, settings)
        self._sweeping = Sweeping(
            budgets=self.budgets,
            guard=self._guard,
            rules=rules,
            reading=self._reading,
            books=books,
            unsettled=lambda more: read_unsettled(ledger, round(clock.now() * 1000), more),
            left_open=self._open_calls,
            expired=metrics.reservations_expired,
            presumed=lambda: read_presumed(ledger, round(clock.now() * 1000)),
        )
        self.settler = BatchSettler(
            self._batches,
            upstream=upstream,
            budgets=self._guard,
            books=books,
            observers=observers,
            rules=rules,
            clock=clock,
        )
        self.batching = Batching(
            self._batches,
            clock=clock,
            tasks=tasks,
            settle_now=self.settler.settle_now,
            budgets=self._guard,
        )

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
            (self._rules().lease_seconds / 3, renew, "renewing leases"),
            (GAUGES_SECONDS, self._read_gauges, "reading budgets"),
            (TURN_SECONDS, self.settler.turn, "settling batches"),
            (LOOK_SECONDS, self.auditing.look, "comparing counters with the ledger"),
        ]
        loops.spawn(self._rebuilding.run(), "rebuilding counters")
        at_once = asyncio.Event()
        at_once.set()  # what was found at the start is missing in the counters until it is settled
        sweeping = every(
            SWEEP_SECONDS, self._sweeping.turn, name="sweeping reservations", clock=self._clock, wake=at_once
        )
        loops.spawn(sweeping, "sweeping reservations")
        for seconds, work, name in works:
            loops.spawn(every(seconds, work, name=name, clock=self._clock), name)

    async def close(self) -> None:
        """Book what is owed, if the store is there, and close the stores."""
        with contextlib.suppress(StoreUnavailable):
            await self._sweeping.resume()
            await self._guard.pay()
        self._open_calls.close()
        await self.budgets.close()
        await self._batches.close()

    def _rebuilt(
        self,
        ledger: Path,
        source: LedgerSource,
        written: Callable[[], Awaitable[None]],
        worker: Worker | None,
    ) -> Rebuilding:
        def joined() -> None:
            if worker is not None:
                self._sweeping.look_again()

        return Rebuilding(
            guard=self._guard,
            read=partial(read_part, ledger),
            read_shared=partial(read_part, source) if source != ledger else None,
            rules=self._rules,
            clock=self._clock,
            fence=self._fence,
            ledger=identity(ledger),
            written=written,
            reading=self._reading,
            joined=joined,
        )

    def _audited(self, ledger: str, *, shared: bool, replica: str) -> Auditing:
        guard, pull = self._guard, self._metrics.pull
        auditing = Auditing(
            self._rebuilding,
            guard,
            limits=lambda: self._rules().limits,
            clock=self._clock,
            ledger=ledger,
            can_repair=self._fence is not None,
            shared=shared,
            others=None if self._redis is None else RedisAudits(self._redis, replica=replica),
        )
        pull("gateway_budget_settlements_owed", lambda: guard.owed)
        pull("gateway_budget_settlements_given_up_total", lambda: guard.given_up)
        pull("gateway_budget_rebuilding", lambda: guard.is_rebuilding)
        pull("gateway_budget_drift_short_usd", auditing.short_usd)
        pull("gateway_budget_drift_over_usd", auditing.over_usd)
        return auditing

    async def _read_gauges(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # counted already, and the guard has said so
            self._metrics.budgets(await read_budgets(self._rules(), self.budgets, self._clock.now()))

    def _guarded(self, store: BudgetStore, clock: Clock, metrics: Metrics) -> GuardedBudgets:
        """Measured below the guard, which goes on where the store fails."""
        fence = self._fence
        measured = partial(MeasuredBudgets, took=metrics.store_operation, failed=metrics.store_error)
        if fence is None or not isinstance(store, RedisBudgets):
            return GuardedBudgets(
                measured(store), clock, degraded=metrics.store_degraded, open_calls=self._open_calls
            )
        return GuardedBudgets(
            measured(store),
            clock,
            fence=fence,
            fenced=MeasuredFencedBudgets(
                store.under(lambda: fence.generation),
                took=metrics.store_operation,
                failed=metrics.store_error,
            ),
            degraded=metrics.store_degraded,
            open_calls=self._open_calls,
        )


def _open_calls(file: GatewayFile, clock: Clock, worker: Worker | None) -> OpenCalls:
    """Those of this process, and of workers that there are no more."""
    first = file.state_path(OPEN_CALLS_FILE)
    if worker is not None and not worker.is_first:
        return OpenCalls(first.with_name(worker.own_name(first.name)), clock.now)
    return OpenCalls(first, clock.now, left_behind(first, worker.count if worker is not None else 1))
