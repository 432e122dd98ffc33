"""`GET /v1/warming`: what warming has cost and brought, which schedules there are, what may still be spent.

It is told by one callable and changes nothing. Amounts are exact; no text of a prompt is among it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from gateway.core.budget_reading import BudgetReading
from gateway.core.errors import StoreUnavailable
from gateway.core.schedule import Firing, FiringState, ScheduleStatus
from gateway.core.warming_book import WarmedPrefix, WarmingTotals
from gateway.core.warmup import WarmCause
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.openapi import Answer, Description, Money


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmingStatus:
    """How warming stands on this replica."""

    at: float
    prefixes: Sequence[WarmedPrefix]
    totals: Mapping[WarmCause, WarmingTotals]
    schedules: Sequence[ScheduleStatus]
    budgets: Sequence[BudgetReading]
    """Of each workspace, its warming budget."""


class WorkspaceAnswer(Answer):
    """What warm-ups may still cost a workspace today."""

    workspace: str
    budget: Money
    used: Money
    """Spent and set aside together."""
    left: Money
    """Below zero after an overrun."""
    resets_at: str | None


class FiringAnswer(Answer):
    """What became of a schedule when it was due."""

    due_at: str
    state: FiringState
    reason: str
    """A sentence, for people."""
    prompts: int
    warm: int
    read_tokens: int
    written_tokens: int
    cost: Money


class ScheduleAnswer(Answer):
    """A schedule, as this replica sees it."""

    name: str
    workspace: str
    cron: str
    timezone: str
    prompts: str
    """The file."""
    next_at: str | None
    last: FiringAnswer | None
    """The last time that it was due while this replica ran; state `elsewhere` where another one fired."""


class PrefixAnswer(Answer):
    """Profit and loss of one prefix that was warmed."""

    prefix: str
    """Keyed digest, as `gateway explain` shows it; the only trace of the prompt."""
    name: str
    """Of the schedule or the request that warmed it last."""
    cause: WarmCause
    workspace: str
    model: str
    tokens: int
    warm_ups: int
    reads: int
    """By real calls, while it was warm."""
    bridged: int
    """Of these, how many only a warm-up made possible: they are what it earned."""
    cost: Money
    saved: Money
    profit: Money
    last_read_at: str | None
    warm_until: str
    unread: bool
    """Nobody read what the last warm-ups had warmed: it is not what apps send, or they send nothing."""


class TotalAnswer(Answer):
    """All warm-ups of one cause."""

    cause: WarmCause
    warm_ups: int
    reads: int
    bridged: int
    cost: Money
    saved: Money
    profit: Money


class WarmingAnswer(Answer):
    """How warming stands on this replica, since its start."""

    at: str
    workspaces: list[WorkspaceAnswer]
    totals: list[TotalAnswer]
    schedules: list[ScheduleAnswer]
    prefixes: list[PrefixAnswer]
    """Those that cost most first."""


def warming_operations(read: Callable[[], Awaitable[WarmingStatus]]) -> list[Operation]:
    """`read` may raise `StoreUnavailable`."""

    async def warming(request: web.Request) -> web.Response:
        try:
            status = await read()
        except StoreUnavailable as error:
            raise AdminError(503, f"The budgets cannot be read: {error.message}") from None
        return answer_json(_answer_of(status))

    return [Operation(method="GET", path="/v1/warming", respond=warming, description=_DESCRIPTION)]


_DESCRIPTION = Description(
    id="warming",
    summary="What warming has cost and brought, schedules, and what may still be spent.",
    text="Prefixes and schedules are as this replica has seen them; budgets are of all replicas.",
    answer=WarmingAnswer,
    errors={503: "The store of budgets does not answer."},
)


def _answer_of(status: WarmingStatus) -> WarmingAnswer:
    return WarmingAnswer(
        at=_instant(status.at),
        workspaces=[_budget_of(reading) for reading in status.budgets],
        totals=[_total_of(cause, total) for cause, total in status.totals.items()],
        schedules=[_schedule_of(schedule) for schedule in status.schedules],
        prefixes=[_prefix_of(prefix) for prefix in status.prefixes],
    )


def _budget_of(reading: BudgetReading) -> WorkspaceAnswer:
    return WorkspaceAnswer(
        workspace=reading.workspace,
        budget=Money.of(reading.amount),
        used=Money.of(reading.used),
        left=Money.of(reading.amount - reading.used),
        resets_at=None if reading.reset_at is None else _instant(reading.reset_at),
    )


def _schedule_of(status: ScheduleStatus) -> ScheduleAnswer:
    schedule = status.schedule
    return ScheduleAnswer(
        name=schedule.name,
        workspace=schedule.workspace,
        cron=schedule.cron,
        timezone=schedule.timezone,
        prompts=schedule.prompts,
        next_at=None if status.next_at is None else _instant(status.next_at),
        last=None if status.last is None else _firing_of(status.last),
    )


def _firing_of(firing: Firing) -> FiringAnswer:
    return FiringAnswer(
        due_at=_instant(firing.due_at),
        state=firing.state,
        reason=firing.reason,
        prompts=firing.prompts,
        warm=firing.warm,
        read_tokens=firing.read_tokens,
        written_tokens=firing.written_tokens,
        cost=Money.of(firing.cost_nanousd),
    )


def _total_of(cause: WarmCause, total: WarmingTotals) -> TotalAnswer:
    return TotalAnswer(
        cause=cause,
        warm_ups=total.warm_ups,
        reads=total.reads,
        bridged=total.bridged,
        cost=Money.of(total.cost_nanousd),
        saved=Money.of(total.saved_nanousd),
        profit=Money.of(total.profit_nanousd),
    )


def _prefix_of(prefix: WarmedPrefix) -> PrefixAnswer:
    return PrefixAnswer(
        prefix=prefix.key.hex(),
        name=prefix.name,
        cause=prefix.cause,
        workspace=prefix.workspace,
        model=prefix.model,
        tokens=prefix.tokens,
        warm_ups=prefix.warm_ups,
        reads=prefix.reads,
        bridged=prefix.bridged,
        cost=Money.of(prefix.cost_nanousd),
        saved=Money.of(prefix.saved_nanousd),
        profit=Money.of(prefix.profit_nanousd),
        last_read_at=None if prefix.last_read_at is None else _instant(prefix.last_read_at),
        warm_until=_instant(prefix.warm_until),
        unread=prefix.is_unread,
    )


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
