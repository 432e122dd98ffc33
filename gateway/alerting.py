"""Alerts to people, put together: what is looked at, what is written down, where it is sent. What each does
is in `workers/alerting.py`, `workers/alert_watch.py`, `workers/spend_watch.py` and `adapters/webhooks.py`.

The section `alerts` of gateway.yaml is read anew at each turn, so that a reload holds at once. Where it names
no targets, nothing is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from random import random
from typing import Final, Protocol

from gateway.adapters.prometheus_alerts import Alerts as AlertMetrics
from gateway.adapters.webhooks import Webhooks
from gateway.core.alerts import Target
from gateway.core.budget_alerts import Standing
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.exchange import ExchangeRecord
from gateway.core.ids import KeyId
from gateway.core.limits import Limits, Scope, Unit
from gateway.core.principal import Principal
from gateway.core.rollup import RollupState, SpendBook
from gateway.core.rules import Rules
from gateway.ports import AdjustmentStore, AlertLog, BudgetStore, Clock
from gateway.settings.alerts import Alerts as AlertSettings
from gateway.settings.alerts_checks import build_targets
from gateway.settings.load import Settings
from gateway.tasks import TaskSet
from gateway.web.admin_alerts import alert_operations
from gateway.web.admin_api import Operation
from gateway.web.budget_view import bound_to
from gateway.workers.alert_watch import BudgetWatch, FreezeWatch, Watched, WatchedBudgets
from gateway.workers.alerting import Alerting
from gateway.workers.periodic import every
from gateway.workers.spend_watch import Sensitivity, spend_alerts, top_cause

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 15.0
DELIVER_SECONDS: Final = 5.0
SPEND_SECONDS: Final = 300.0
STEP_PAUSE_SECONDS: Final = 0.05
"""Between two steps of a first sum of the ledger."""
MOST_CROSSED: Final = 1_000
"""Limits of keys and tags whose thresholds were passed here and that wait to be looked at."""


LOOKS: Final = 4
"""At each of those: what a call cost may be settled after it is first looked at."""


class InForce(Protocol):
    """What holds on this replica."""

    @property
    def settings(self) -> Settings: ...
    @property
    def rules(self) -> Rules: ...


class Sums(SpendBook, Protocol):
    """The hourly sums, which who asks brings up to date."""

    def refresh(self) -> RollupState: ...


class Alerts:
    """One replica's. An observer too: limits of keys and tags are looked at when a call led past a `warn_at`
    of theirs, as there may be very many of them."""

    def __init__(
        self,
        in_force: InForce,
        *,
        entries: AlertLog,
        budgets: BudgetStore,
        adjustments: AdjustmentStore,
        book: Sums,
        clock: Clock,
        metrics: AlertMetrics,
    ) -> None:
        self._in_force = in_force
        self._book = book
        self._clock = clock
        self._built: tuple[Settings, tuple[Target, ...]] | None = None
        self._bound: tuple[Limits, tuple[Watched, ...]] | None = None
        """Found once for each set of limits: with a thousand workspaces that takes a while."""
        self._crossed: dict[str, tuple[int, Watched]] = {}
        """By bucket: how often it is still to be looked at."""
        self.alerting = Alerting(
            entries, targets=self._targets, send=Webhooks(clock.now).send, clock=clock, random=random
        )
        self._budgets = BudgetWatch(
            self.alerting, watched=self._watched, budgets=budgets, cause=self._cause, clock=clock
        )
        self._freezes = FreezeWatch(self.alerting, adjustments=adjustments, clock=clock)
        alerting = self.alerting
        metrics.connect(lambda: dict(alerting.counts), lambda: alerting.dropped, lambda: alerting.waiting)

    def run(self, loops: TaskSet) -> None:
        """Look, and send."""
        works: list[tuple[float, Callable[[], Awaitable[object]], str]] = [
            (WATCH_SECONDS, self.look, "watching budgets"),
            (DELIVER_SECONDS, self.deliver, "sending alerts"),
            (SPEND_SECONDS, self.look_at_spend, "watching spend"),
        ]
        for seconds, work, name in works:
            loops.spawn(every(seconds, work, name=name, clock=self._clock), name)

    def operations(self, new_id: Callable[[], str]) -> list[Operation]:
        """What the admin plane offers. `new_id` gives ids that were never there."""
        return alert_operations(self.alerting, clock=self._clock, new_id=new_id)

    async def look(self) -> None:
        """At budgets and freezes; what deserves it is written down. Raises nothing that a store does."""
        if not self.alerting.active:
            return
        try:
            looked_at = list(self._crossed)
            await self._budgets.turn()
            for bucket_id in looked_at:
                looks, watched = self._crossed.pop(bucket_id)
                if looks > 1:
                    self._crossed[bucket_id] = (looks - 1, watched)
            if self._alerts.freezes:
                await self._freezes.turn()
        except StoreUnavailable as error:
            log.warning("budgets could not be looked at for alerts: %s", error.message)

    async def look_at_spend(self) -> None:
        """At what the books say. Raises nothing that ledger or store do."""
        if not self.alerting.active:
            return
        try:
            while (state := await asyncio.to_thread(self._book.refresh)).waiting and not state.trouble:
                await self._clock.sleep(STEP_PAUSE_SECONDS)
            if not state.complete:
                return
            wanted, teams, at = self._sensitivity(), self._team_of(), self._clock.now()
            found = await asyncio.to_thread(lambda: list(spend_alerts(self._book, at, wanted, teams)))
            for alert in found:
                if self.alerting.is_news(alert.id):
                    await self.alerting.begin(alert)
        except (StoreUnavailable, ConfigError) as error:
            log.warning("spend could not be looked at for alerts: %s", error)

    async def deliver(self) -> None:
        """Send what is due. Raises nothing that a store or a receiver does."""
        if not self.alerting.active:
            return
        try:
            await self.alerting.deliver()
        except StoreUnavailable as error:
            log.warning("alerts could not be sent: %s", error.message)

    def observe(self, record: ExchangeRecord) -> None:
        if not record.crossed or record.reservation is None or record.principal is None:
            return
        passed = {(crossing.limit, crossing.subject) for crossing in record.crossed}
        for bound in record.reservation.limits:
            limit = bound.limit
            if limit.scope not in (Scope.KEY, Scope.TAG) or (limit.id, bound.subject) not in passed:
                continue
            if len(self._crossed) < MOST_CROSSED:
                caller = record.principal
                of_one = limit.scope is Scope.KEY
                watched = Watched(
                    bound=bound,
                    organisation=caller.organisation,
                    team=caller.team if of_one else "",
                    workspace=caller.workspace if of_one else "",
                    named=caller.key_name,
                )
                self._crossed[bound.bucket_id] = (LOOKS, watched)

    async def close(self) -> None:
        """What is not sent yet stays in the log."""
        await self.alerting.close()

    @property
    def _alerts(self) -> AlertSettings:
        return self._in_force.settings.gateway.alerts

    def _targets(self) -> tuple[Target, ...]:
        settings = self._in_force.settings
        if self._built is None or self._built[0] is not settings:
            self._built = settings, build_targets(settings.gateway.alerts, settings.environ)
        return self._built[1]

    def _watched(self) -> WatchedBudgets:
        alerts = self._alerts
        usual = bool(alerts.thresholds) or alerts.forecast
        crossed = [watched for _, watched in self._crossed.values()]
        budgets = [
            each
            for each in (*self._bound_now(), *crossed)
            if each.bound.limit.period.is_calendar
            and (each.bound.limit.warn_at or (usual and each.bound.limit.unit is Unit.NANOUSD))
        ]
        return WatchedBudgets(budgets=budgets, thresholds=alerts.thresholds, forecast=alerts.forecast)

    def _bound_now(self) -> tuple[Watched, ...]:
        rules = self._in_force.rules
        if self._bound is None or self._bound[0] is not rules.limits:
            self._bound = rules.limits, tuple(_of_workspaces(rules))
        return self._bound[1]

    async def _cause(self, standing: Standing) -> str:
        at, teams = self._clock.now(), self._team_of()
        try:
            state = await asyncio.to_thread(self._book.refresh)
            if not state.complete:
                return ""
            return await asyncio.to_thread(top_cause, self._book, standing, at, teams)
        except ConfigError as error:
            log.warning("what costs the most could not be looked up: %s", error)
            return ""

    def _sensitivity(self) -> Sensitivity:
        anomalies, cache = self._alerts.anomalies, self._alerts.cache
        return Sensitivity(
            deviations=anomalies.deviations if anomalies.enabled else None,
            floor_nanousd=anomalies.floor,
            fall=cache.fall if cache.enabled else None,
            fall_floor_nanousd=cache.floor,
        )

    def _team_of(self) -> Mapping[str, str]:
        return {str(name): each.team for name, each in self._in_force.rules.workspaces.items() if each.team}


def _of_workspaces(rules: Rules) -> Iterator[Watched]:
    """Limits of organisations, teams, workspaces and pools, each once."""
    principals = [
        Principal(
            workspace=each.id,
            key_id=KeyId(""),
            key_name="",
            organisation=each.organisation,
            team=each.team,
        )
        for each in rules.workspaces.values()
    ]
    team_of = {str(each.id): each.team for each in rules.workspaces.values()}
    for bound in bound_to(rules, principals):
        limit, subject = bound.limit.limit, bound.limit.subject
        if limit.scope in (Scope.KEY, Scope.TAG) and not limit.shared:
            continue
        workspace = subject if limit.scope is Scope.WORKSPACE else ""
        yield Watched(
            bound=bound.limit,
            organisation="" if limit.shared else bound.organisation,
            team=subject if limit.scope is Scope.TEAM else team_of.get(workspace, ""),
            workspace=workspace,
        )
