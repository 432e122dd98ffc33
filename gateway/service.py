"""The only place that builds things: from settings to a gateway that listens, and back to nothing.

What each part does is in its own module; here is only which parts there are, how they are wired, and in which
order they start, drain and stop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

import gateway
from gateway.adapters.access_log import AccessLog
from gateway.adapters.clock import SystemClock
from gateway.adapters.garbage import YoungLooks
from gateway.adapters.give_way import Pauses
from gateway.adapters.live_calls import LiveCalls
from gateway.adapters.measured_peers import MeasuredPeers
from gateway.adapters.prometheus import Metrics
from gateway.adapters.replicas_live import replica_name
from gateway.admin_plane import AdminParts, open_admin_plane
from gateway.alerting import Alerts
from gateway.core.errors import Draining, Overloaded
from gateway.core.ids import exchange_id
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.principal import KeyRecord
from gateway.core.recent import RecentBodies
from gateway.core.redeeming import RedeemingPolicy
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Rules
from gateway.core.worker import Worker
from gateway.descriptors import within_limit
from gateway.gauges import connect_gauges
from gateway.identity import Identity
from gateway.learning import Learning
from gateway.page_books import PageBooks
from gateway.pipeline import Pipeline
from gateway.placing import Flights, Placing
from gateway.planes import listen_data
from gateway.ports import Call, Clock, Reply
from gateway.rules_in_force import RulesInForce
from gateway.settings.build import build_schedules, planner_options
from gateway.settings.gateway import GatewayFile, LogFormat, Policy
from gateway.settings.load import Settings
from gateway.spending import Spending
from gateway.stores import (
    open_adjustments,
    open_alert_log,
    open_budgets,
    open_keys,
    open_ledger,
    open_live,
    open_peers,
    open_shelf,
    open_upstream,
    recording_path,
    shares,
)
from gateway.tasks import TaskSet
from gateway.tracing import Tracing
from gateway.warming import Warming
from gateway.web.dataplane import GOING_AWAY
from gateway.web.malloc import MEMORY_SECONDS, IdleMemory
from gateway.workers.periodic import every

log = logging.getLogger(__name__)

KEYS_SECONDS = 3.0
"""How long a revoked key may go on working on a replica."""
ADJUSTMENTS_SECONDS = 2.0
"""With what reading takes, a change is in force everywhere within three seconds."""
CONFIG_SECONDS = 5.0
LAG_SECONDS = 1.0


class Service:
    """One replica. `start`, then `drain` and `stop`; `reload_soon` at any time between."""

    def __init__(
        self,
        settings: Settings,
        *,
        more_keys: Sequence[KeyRecord] = (),
        quiet: bool = False,
        clock: Clock | None = None,
        worker: Worker | None = None,
    ) -> None:
        """`more_keys`: of this process only. `quiet`: no access log. `worker`: it is one of several."""
        self._settings, self._quiet, self.worker = settings, quiet, worker
        self._clock = clock or SystemClock()
        self._tasks, self._loops = TaskSet(), TaskSet()
        self._identity = Identity(self._clock, random.random)
        self._in_force = RulesInForce(settings, more_keys, self._identity)
        self._announcing = self._refusing = False
        self._estimates, self._idle_memory = LearnedEstimates(), IdleMemory()
        self._replica = f"{random.getrandbits(64):016x}"
        """Another at each start: peers take it for gone when it is."""
        name = replica_name(self._replica, worker)
        self._live = LiveCalls(lambda: list(self.pipeline.open.values()), self._clock, name)
        self.data_url = self.admin_url = ""

    async def start(self) -> None:
        """Listen on both planes. Raises `ConfigError`, or OSError where an address is taken."""
        file = self._settings.gateway
        await self._open_adapters(file)
        flights = Flights()
        self._recent = RecentBodies(file.placement.recent_bodies)
        self._learning = self._make_learning(file, flights)
        self.warming = self._make_warming(file)
        if self._learning is not None:
            await self._learning.start()
        self._books = PageBooks(self._settings, self._in_force, self.warming, self._learning, self._clock)
        self.alerts = Alerts(
            self._in_force,
            entries=open_alert_log(file, self._settings),
            budgets=self.spending.budgets,
            adjustments=self._adjustments,
            book=self._books.rollup,
            clock=self._clock,
            metrics=self.metrics.alerts,
        )
        self.pipeline = self._make_pipeline(file, flights)
        for warning in self._settings.warnings:
            log.warning("%s", warning)
        await self.spending.begin()
        await self._refresh_keys()
        await self._refresh_adjustments()
        await self._identity.start()
        self.metrics.identities.connect(self._identity.issuers, self._identity.federations)
        await self._all_live.start()
        await self._listen(file)
        connect_gauges(
            self.metrics,
            pipeline=self.pipeline,
            ledger=self._ledger,
            access_log=self._access_log,
            learning=self._learning,
            rules_in_force=self._in_force,
            clock=self._clock,
        )
        self._run_loops()
        self._reloaded()

    async def drain(self, *, announce: bool = True) -> None:
        """Go away without losing a call: say so to load balancers and clients while still serving (not
        without `announce`), then take no new work, and wait for what is open as long as settings allow."""
        drain = self._settings.gateway.drain
        self._announcing = True
        self.metrics.draining(True)
        self._listener.announce()
        if announce:
            await self._clock.sleep(drain.announce)
        self._refusing = True
        self._listener.stop_accepting()
        deadline = self._clock.monotonic() + drain.timeout
        self.warming.close()
        while self._unfinished() and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)

    async def stop(self) -> int:
        """Cut what is open, settle everything, write all down; how many entries only the log has got."""
        self._announcing = self._refusing = True
        self.warming.close()
        await self._listener.close()
        await self._admin.close()
        await self._loops.drain(0.0)
        await self._all_live.close()
        await self._tasks.drain(10.0)
        if self._learning is not None:
            await self._learning.close()
        await self._peers.close()
        await self._upstream.close()
        await self._identity.close()
        await asyncio.to_thread(self._ledger.close)
        await asyncio.to_thread(self._access_log.close)
        await self.spending.close()
        for store in (self._keys, self._adjustments, self.alerts, self._tracing):
            await store.close()
        return self._ledger.status().spilled

    def reload_soon(self) -> None:
        """Read the configuration anew at once, changed or not (SIGHUP)."""
        self._in_force.reload_soon()

    @property
    def rules(self) -> Rules:
        """Those in force now."""
        return self._in_force.rules

    def _unfinished(self) -> int:
        return self._listener.unfinished() + self.warming.under_way

    # Wiring

    async def _open_adapters(self, file: GatewayFile) -> None:
        self.metrics = self._make_metrics(file)
        self._all_live = open_live(file, self._settings, self._live, self._clock, self.worker)
        self._keys = open_keys(file, self._settings)
        self._adjustments = open_adjustments(file, self._settings)
        self._ledger = open_ledger(file, self._settings, self._clock, self.worker)
        self._access_log = AccessLog(
            human=True if file.logging.format is LogFormat.TEXT else None,
            worker=self.worker.number if self.worker is not None else None,
        )
        self._tracing = Tracing(self._settings, self._clock, self.metrics)
        self._upstream = self._tracing.upstream(open_upstream(file))
        self.spending = Spending(
            file,
            self._settings,
            await open_budgets(file, self._settings, self._clock),
            clock=self._clock,
            metrics=self.metrics,
            rules=lambda: self.rules,
            upstream=self._upstream,
            tasks=self._tasks,
            observers=[self.metrics, *([] if self._quiet else [self._access_log])],
            written=self._ledger.written,
            replica=self._replica,
            worker=self.worker,
        )
        self._peers = MeasuredPeers(
            open_peers(
                file,
                self._settings,
                self._clock,
                replica=self._replica,
                failed=self.metrics.peer_failed,
                worker=self.worker,
            ),
            news=self.metrics.peer_news,
            claimed=self.metrics.peer_claim,
        )

    def _make_pipeline(self, file: GatewayFile, flights: Flights) -> Pipeline:
        return Pipeline(
            rules=lambda: self.rules,
            admit=self._admit,
            placing=Placing(
                RedeemingPolicy(self.warming.policy),
                self._clock,
                peers=self._peers,
                flights=flights,
                hold_seconds=file.placement.hold,
                recent=self._recent,
                keep=self.warming.prewarmer.keep,
                pauses=Pauses,
            ),
            upstream=self._upstream,
            budgets=self.spending.budgets,
            observers=[
                self.metrics,
                self._ledger,
                self.warming.prewarmer,
                self._live,
                self.alerts,
                *self._tracing.observers,
                YoungLooks(),
                *([] if self._quiet else [self._access_log]),
            ],
            clock=self._clock,
            tasks=self._tasks,
            random=random.random,
            observer_failed=self.metrics.observer_failed,
            written=self._ledger.written,
            estimates=self._estimates,
            batching=self.spending.batching,
        )

    def _make_metrics(self, file: GatewayFile) -> Metrics:
        labels = (("workspace", file.metrics.workspace_label), ("model", file.metrics.model_label))
        return Metrics(
            canonical=lambda model: self.rules.models.canonical(model),  # noqa: PLW0108 - rules change
            version=gateway.__version__,
            drop=frozenset(name for name, wanted in labels if not wanted),
            max_label_sets=file.metrics.max_label_sets,
        )

    def _make_learning(self, file: GatewayFile, flights: Flights) -> Learning | None:
        if file.placement.policy is not Policy.LEARNED:
            return None
        return Learning(
            planner_options(file),
            secret=self.rules.prefix_secret,
            holdout_share=file.placement.holdout_share,
            shared=shares(file, self.worker),
            peers=self._peers,
            shelf=open_shelf(file, self._settings, self.worker),
            recording=recording_path(file, self.worker),
            flights=flights,
            clock=self._clock,
            replica=self._replica,
            estimates=self._estimates,
        )

    def _make_warming(self, file: GatewayFile) -> Warming:
        async def handle(call: Call, reply: Reply) -> None:
            await self.pipeline.handle(call, reply)

        return Warming(
            file.warming,
            build_schedules(self._settings),
            policy=self._learning.policy if self._learning is not None else RulePolicy(),
            handle=handle,
            rules=lambda: self.rules,
            budgets=self.spending.budgets,
            peers=self._peers,
            clock=self._clock,
            metrics=self.metrics,
            new_id=self._new_id,
            busy=lambda: self._announcing,
            replica=self._replica,
        )

    async def _listen(self, file: GatewayFile) -> None:
        file, calls = within_limit(file), self._tracing.around(self.pipeline)
        self._listener, self.data_url = await listen_data(file, calls, self._clock, self._new_id, self.worker)
        self._admin, self.admin_url = await open_admin_plane(
            self._settings,
            AdminParts(
                in_force=self._in_force,
                keys=self._keys,
                adjustments=self._adjustments,
                spending=self.spending,
                warming=self.warming,
                live=self._all_live,
                books=self._books,
                alerts=self.alerts,
                identity=self._identity,
                clock=self._clock,
            ),
            render=self.metrics.render,
            started=lambda: bool(self.admin_url),
            draining=lambda: self._announcing,
            new_id=self._new_id,
            worker=self.worker,
        )

    def _new_id(self) -> str:
        return exchange_id(self._clock.now(), random.getrandbits(64))

    def _admit(self) -> None:
        """The pipeline's first question. Raises `Draining` or `Overloaded`."""
        if self._refusing:
            raise Draining(GOING_AWAY)
        if len(self.pipeline.open) > self._settings.gateway.capacity.exchanges:
            raise Overloaded("This replica of the gateway has as much work as it may take; try again soon.")

    # What it does by itself

    def _run_loops(self) -> None:
        loops = [
            (KEYS_SECONDS, self._refresh_keys, "reading keys", None),
            (ADJUSTMENTS_SECONDS, self._refresh_adjustments, "reading adjustments", None),
            (CONFIG_SECONDS, self._reload_if_changed, "reading the configuration", self._in_force.wake),
            (MEMORY_SECONDS, self._give_back, "giving back memory", None),
        ]
        for seconds, work, name, wake in loops:
            self._loops.spawn(every(seconds, work, name=name, clock=self._clock, wake=wake), name)
        self._loops.spawn(self._watch_lag(), "event loop lag")
        self._identity.run(self._loops)
        self.spending.run(self._loops, self.pipeline.open_reservations)
        self.warming.run(self._loops, self._tasks)
        self._books.run(self._loops)
        self._all_live.run(self._loops)
        self.alerts.run(self._loops)
        learning = self._learning
        if learning is not None:
            learning.run(self._loops)
        heard = learning.heard if learning is not None else _nothing
        gone = learning.gone if learning is not None else _nothing
        self._loops.spawn(self._peers.listen(heard, gone), "listening to other replicas")

    async def _refresh_keys(self) -> None:
        await self._in_force.refresh_keys(self._keys)
        self.metrics.keyring(len(self.rules.keyring))

    async def _refresh_adjustments(self) -> None:
        await self._in_force.refresh_adjustments(self._adjustments, self._clock.now())

    async def _reload_if_changed(self) -> None:
        await self._in_force.reload_if_changed(self._reloaded, self.metrics.config_refused)

    def _reloaded(self) -> None:
        self.metrics.config_reloaded(generation=self._in_force.generation, at=self._clock.now())

    async def _give_back(self) -> None:
        self._recent.expire(self._clock.now())
        await self._idle_memory.look(self._clock.monotonic(), self.pipeline.open_streams())

    async def _watch_lag(self) -> None:
        while True:
            due = self._clock.monotonic() + LAG_SECONDS
            await self._clock.sleep(LAG_SECONDS)
            self.metrics.event_loop_lag(max(0.0, self._clock.monotonic() - due))


def _nothing(*_: object) -> None:
    """What a replica that does not learn makes of news."""
