"""Warm-ups of one replica, put together: who sends them, what keeps entries alive, what fires on schedule,
and what the admin plane says of all that. What each does is in `workers/` and `web/`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from random import random

from gateway.adapters.prometheus import Metrics
from gateway.core.ids import WorkspaceId
from gateway.core.kept import KeptPrompts
from gateway.core.learned import LearnedPolicy
from gateway.core.placement import PlacementPolicy
from gateway.core.prompt_lines import PromptLine, WarmedPrompt
from gateway.core.rules import Rules
from gateway.core.schedule import Schedule
from gateway.core.warming_book import WarmingBook, WatchedPolicy
from gateway.core.warmup import WarmCause, WarmOutcome
from gateway.ports import BudgetStore, Clock, Peers
from gateway.settings.gateway import Warming as WarmingSettings
from gateway.tasks import TaskSet
from gateway.web.admin_api import Operation
from gateway.web.admin_prewarm import prewarm_operations
from gateway.web.admin_warming import WarmingStatus, warming_operations
from gateway.workers.keep_alive import KeepAlive
from gateway.workers.own_call import Handle
from gateway.workers.prewarmer import Prewarmer
from gateway.workers.prompt_warmer import PromptWarmer
from gateway.workers.schedules import Schedules
from gateway.workers.warming_budgets import read_warming_budgets

log = logging.getLogger(__name__)


class Warming:
    """`policy` is watched, so that the book knows which warmed prefixes are read: place by `self.policy`."""

    def __init__(
        self,
        settings: WarmingSettings,
        schedules: Sequence[Schedule],
        *,
        policy: PlacementPolicy,
        handle: Handle,
        rules: Callable[[], Rules],
        budgets: BudgetStore,
        peers: Peers,
        clock: Clock,
        metrics: Metrics,
        new_id: Callable[[], str],
        busy: Callable[[], bool],
        replica: str,
    ) -> None:
        self._rules = rules
        self._budgets = budgets
        self._clock = clock
        self._peers = peers
        self._replica = replica
        self._metrics = metrics
        self._learned = policy if isinstance(policy, LearnedPolicy) and settings.keep_alive else None
        book = WarmingBook(saved=metrics.warming_saved)
        self.policy = WatchedPolicy(policy, book)
        self.prewarmer = Prewarmer(
            handle=handle,
            rules=rules,
            kept=KeptPrompts(settings.memory),
            book=book,
            clock=clock,
            new_id=new_id,
            per_minute=settings.per_minute,
            busy=busy,
            tell=self._count,
        )
        self._warmer = PromptWarmer(self.prewarmer.warm, clock, per_minute=settings.per_minute)
        self._schedules = Schedules(
            schedules,
            self._warmer,
            clock=clock,
            peers=peers,
            replica=replica,
            random=random,
            reads=book.reads_of,
            fired=lambda firing: metrics.schedule_fired(firing.schedule, firing.state.value),
        )

    def run(self, loops: TaskSet, tasks: TaskSet) -> None:
        """Fire schedules and keep entries alive. What is on its way belongs to `tasks`."""
        loops.spawn(self._schedules.run(), "schedules")
        if self._learned is not None:
            keep_alive = KeepAlive(
                self.prewarmer,
                self._learned,
                peers=self._peers,
                clock=self._clock,
                tasks=tasks,
                random=random,
                replica=self._replica,
            )
            loops.spawn(keep_alive.run(), "keep alive")

    def operations(self) -> list[Operation]:
        """What the admin plane offers."""
        return [
            *prewarm_operations(warm=self._warm, workspaces=lambda: self._rules().workspaces),
            *warming_operations(self.status),
        ]

    @property
    def under_way(self) -> int:
        """Warm-ups that were sent and are not booked."""
        return self.prewarmer.under_way

    def close(self) -> None:
        """Send nothing more; what is under way is left to end."""
        self.prewarmer.close()

    def _warm(
        self, workspace: str, name: str, prompts: Sequence[PromptLine]
    ) -> AsyncGenerator[WarmedPrompt, None]:
        return self._warmer.warm(workspace, name, prompts, cause=WarmCause.ASKED)

    async def status(self) -> WarmingStatus:
        """How warming stands. Raises `StoreUnavailable`."""
        return WarmingStatus(
            at=self._clock.now(),
            prefixes=self.prewarmer.report(),
            totals=self.prewarmer.book.totals(),
            schedules=self._schedules.report(),
            budgets=await read_warming_budgets(self._rules(), self._budgets),
        )

    def _count(self, workspace: WorkspaceId, cause: WarmCause, outcome: WarmOutcome) -> None:
        self._metrics.warm_up(workspace, cause.value, outcome.state.value)
