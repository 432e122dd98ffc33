"""The screens about money, put together: the sums of the ledger and who keeps them up to date, budgets and
names as they are in force, warming and the prefixes of this replica. What they look like is in `web/page/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping

from gateway.adapters.ledger_queries import read_charges
from gateway.adapters.ledger_rollup import LedgerRollup
from gateway.core.focus import Charge
from gateway.core.ledger import Dimension
from gateway.core.planner import compact_key
from gateway.core.planner.listing import Order
from gateway.core.statement import month_budgets
from gateway.learning import Learning
from gateway.ports import Clock
from gateway.rules_in_force import RulesInForce
from gateway.settings.gateway import StoreKind
from gateway.settings.ledger import LedgerKind
from gateway.settings.load import Settings
from gateway.stores import ledger_source
from gateway.tasks import TaskSet
from gateway.warming import Warming
from gateway.web.page.asking import Books
from gateway.web.page.caching import caching_screens
from gateway.web.page.prefixes import Prefixes, prefixes_screens
from gateway.web.page.rendering import Screen
from gateway.web.page.spend import spend_screens

ROLLUP_FILE = "ledger-sums.sqlite3"
UPDATE_SECONDS = 30.0
"""How far behind the sums are at most while nobody looks; who looks brings them up to date."""
STEP_PAUSE_SECONDS = 0.05
"""Between two steps of a first sum, which has a million entries to read and others' calls beside it."""


class PageBooks:
    """One replica's."""

    def __init__(
        self,
        settings: Settings,
        in_force: RulesInForce,
        warming: Warming,
        learning: Learning | None,
        clock: Clock,
    ) -> None:
        file = settings.gateway
        self._wanted = file.page.enabled
        self._source = ledger_source(file, settings)
        self._alone = file.store.kind is StoreKind.REDIS and file.ledger.kind is LedgerKind.SQLITE
        self.rollup = LedgerRollup(self._source, file.state_path(ROLLUP_FILE), clock.now)
        self._in_force = in_force
        self._warming = warming
        self._learning = learning
        self._clock = clock

    def run(self, loops: TaskSet) -> None:
        """Sum what the ledger has, and go on with what comes."""
        if self._wanted:
            loops.spawn(self._keep_up(), "summing the ledger")

    def screens(self) -> list[Screen]:
        """In the order of the navigation."""
        books = Books(
            book=self.rollup,
            refresh=self.rollup.refresh,
            budgets=self._budgets,
            team_of=lambda: {
                str(name): workspace.team
                for name, workspace in self._in_force.rules.workspaces.items()
                if workspace.team
            },
            key_names=lambda: {record.id: record.name for record in self._in_force.rules.keyring.records()},
            charges=self._charges,
            now=self._clock.now,
            alone=self._alone,
        )
        return [
            *spend_screens(books),
            *caching_screens(books, self._warming.status),
            *prefixes_screens(self._prefixes),
        ]

    async def _keep_up(self) -> None:
        while True:
            state = await asyncio.to_thread(self.rollup.refresh)
            behind = state.waiting and not state.trouble
            await self._clock.sleep(STEP_PAUSE_SECONDS if behind else UPDATE_SECONDS)

    def _budgets(self, by: Dimension, names: Collection[str]) -> Mapping[str, int]:
        rules = self._in_force.rules
        organisations = {str(name): each.organisation for name, each in rules.workspaces.items()}
        return month_budgets(rules.limits, by, names, organisations)

    def _charges(self, start_ms: int, end_ms: int) -> Iterator[Charge]:
        return read_charges([self._source], start_ms=start_ms, end_ms=end_ms)

    def _prefixes(self, count: int, order: Order) -> Prefixes | None:
        if self._learning is None:
            return None
        listing = self._learning.listing
        return Prefixes(
            at=self._clock.now(),
            listed=listing.top(count, order),
            known=len(listing),
            remembered=round(self._learning.known_prefixes()),
            warmed={compact_key(prefix.key): prefix for prefix in self._warming.prewarmer.report()},
        )
