"""What deserves an alert of what the stores say: budgets that pass a threshold or will not last, and who was
frozen. Looked at again and again, since stores say how things stand and not what happened; the alert log
sees to it that each thing is told once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.core.adjustments import Freeze, FreezeScope, LogEntry
from gateway.core.alerts import Alert, AlertKind
from gateway.core.budget_alerts import (
    Notice,
    Standing,
    budget_alert,
    forecast_notice,
    threshold_notice,
)
from gateway.core.limits import BoundLimit
from gateway.ports import AdjustmentStore, BudgetStore, Clock

PEEKED_AT_ONCE: Final = 100
"""Limits that the store is asked for in one go: it serves calls meanwhile."""
FRESH_SECONDS: Final = 3_600.0
"""Freezes before that are not told of: whoever switches alerts on knows them."""
LOOKED_BACK: Final = 50
"""Entries of the log of adjustments that one turn looks at."""


class Telling(Protocol):
    """What is asked of `Alerting`."""

    def is_news(self, alert_id: str) -> bool: ...

    async def begin(self, alert: Alert) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A limit that is to be looked at, and whose it is."""

    bound: BoundLimit
    organisation: str = ""
    team: str = ""
    workspace: str = ""
    named: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedBudgets:
    """What is to be looked at, and for what."""

    budgets: Sequence[Watched]
    thresholds: tuple[float, ...]
    """Of limits of dollars that have none of their own."""
    forecast: bool


class BudgetWatch:
    """`cause` says what costs the most of a budget, in words; empty where that is not known."""

    def __init__(
        self,
        telling: Telling,
        *,
        watched: Callable[[], WatchedBudgets],
        budgets: BudgetStore,
        cause: Callable[[Standing], Awaitable[str]],
        clock: Clock,
    ) -> None:
        self._telling = telling
        self._watched = watched
        self._budgets = budgets
        self._cause = cause
        self._clock = clock

    async def turn(self) -> None:
        """Look at all of them. Raises `StoreUnavailable`."""
        watched = self._watched()
        for start in range(0, len(watched.budgets), PEEKED_AT_ONCE):
            some = watched.budgets[start : start + PEEKED_AT_ONCE]
            verdicts = await self._budgets.peek([each.bound for each in some])
            for each, verdict in zip(some, verdicts, strict=True):
                standing = Standing(
                    verdict=verdict,
                    organisation=each.organisation,
                    team=each.team,
                    workspace=each.workspace,
                    named=each.named,
                )
                for notice in self._notices(standing, watched):
                    await self._tell(notice)

    def _notices(self, standing: Standing, watched: WatchedBudgets) -> Iterator[Notice]:
        passed = threshold_notice(standing, watched.thresholds)
        if passed is not None:
            yield passed
        if watched.forecast:
            will_not_last = forecast_notice(standing, self._clock.now())
            if will_not_last is not None:
                yield will_not_last

    async def _tell(self, notice: Notice) -> None:
        if self._telling.is_news(notice.id):
            cause = await self._cause(notice.standing)
            await self._telling.begin(budget_alert(notice, self._clock.now(), cause))


class FreezeWatch:
    """Who was frozen and unfrozen."""

    def __init__(self, telling: Telling, *, adjustments: AdjustmentStore, clock: Clock) -> None:
        self._telling = telling
        self._adjustments = adjustments
        self._clock = clock

    async def turn(self) -> None:
        """Look at the last adjustments. Raises `StoreUnavailable`."""
        since = self._clock.now() - FRESH_SECONDS
        entries = await self._adjustments.history(before=None, at_most=LOOKED_BACK)
        for entry in reversed(entries):
            alert = freeze_alert(entry)
            if alert is not None and alert.at >= since and self._telling.is_news(alert.id):
                await self._telling.begin(alert)


def freeze_alert(entry: LogEntry) -> Alert | None:
    """What people are told of an entry of the log; None where it is not about a freeze."""
    freeze, taken = entry.adjustment, entry.taken_back
    if not isinstance(freeze, Freeze):
        return None
    who = f"{freeze.scope.value.capitalize()} {freeze.subject}"
    facts = [("by", (taken or freeze).by.name), ("reason", (taken or freeze).reason)]
    if taken is not None:
        facts.append(("frozen for", f"{(taken.at - freeze.at) / 60:,.0f} minutes, for: {freeze.reason}"))
    kind = AlertKind.FREEZE if taken is None else AlertKind.UNFREEZE
    undo = f"gateway budget unfreeze {freeze.id} -r 'why'"
    scope, subject = freeze.scope, freeze.subject
    return Alert(
        id=f"{kind}/{freeze.id}",
        kind=kind,
        at=(taken or freeze).at,
        headline=f"{who} is frozen: no new call is taken"
        if taken is None
        else f"{who} is not frozen any more",
        facts=tuple(facts),
        command=undo if taken is None else "",
        organisation=subject if scope is FreezeScope.ORGANISATION else "",
        team=subject if scope is FreezeScope.TEAM else "",
        workspace=subject if scope is FreezeScope.WORKSPACE else "",
    )
