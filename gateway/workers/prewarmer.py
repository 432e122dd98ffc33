"""Sends warm-ups: pays from the workspace's warming budget, says what came of it, keeps the book.

What can be warmed is `core/warmup.py`'s, the bytes are `core/warm_body.py`'s; which entries are kept alive,
and when, is `keep_alive.py`'s. A warm-up runs through the pipeline as any call does, so that limits, ledger,
metrics and settlement are those of any call.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.claims import is_subject
from gateway.core.exchange import ExchangeRecord
from gateway.core.ids import WorkspaceId
from gateway.core.kept import KeptPrompt, KeptPrompts
from gateway.core.placement import Breakpoint
from gateway.core.plan import Plan
from gateway.core.principal import Principal, is_warming, warming_principal
from gateway.core.rules import PlacementMode, Rules, Workspace
from gateway.core.warming_book import UNREAD_RUNS, WarmedPrefix, WarmingBook
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState
from gateway.ports import Call, Clock
from gateway.workers.own_call import Handle, OwnCalls
from gateway.workers.warm_pace import CROWDED_SECONDS, LONGEST_SECONDS, Pace, Pauses
from gateway.workers.warm_results import Warmed, book_entry, result_of
from gateway.workers.warm_shapes import Shaped, shape_asked, shape_kept

log = logging.getLogger(__name__)

OFFLOAD_BYTES = 1 << 20
"""Bodies above this are read and cut in a thread."""
OVER_BUDGET_SECONDS = 600.0
"""For so long no entry of the workspace is kept alive; who asks for a warm-up is told each time."""
_CROWDED = (429, 529)


def _nobody(workspace: WorkspaceId, cause: WarmCause, outcome: WarmOutcome) -> None:
    return


class Prewarmer:
    """`handle` is the pipeline's, of which this is an observer; `busy` says that this replica is going away;
    `tell` is told of each warm-up that was asked for, sent or not."""

    def __init__(
        self,
        *,
        handle: Handle,
        rules: Callable[[], Rules],
        kept: KeptPrompts,
        book: WarmingBook,
        clock: Clock,
        new_id: Callable[[], str],
        per_minute: int,
        busy: Callable[[], bool],
        tell: Callable[[WorkspaceId, WarmCause, WarmOutcome], None] = _nobody,
    ) -> None:
        self.kept = kept
        self.book = book
        self.pace = Pace(per_minute, clock)
        self._rules = rules
        self._clock = clock
        self._busy = busy
        self._tell = tell
        self._calls = OwnCalls(handle, clock, new_id)
        self._pauses = Pauses(clock)
        self._closed = False

    def keep(self, call: Call, plan: Plan, caller: Principal) -> None:
        """Keep the prompt of a call that may have to be warmed: what `Placing` is given. Raises nothing."""
        upto, workspace = plan.placement.keep_upto, self._rules().workspaces.get(caller.workspace)
        if (
            upto is None
            or call.principal is not None
            or workspace is None
            or _why_never(workspace) is not None
        ):
            return
        try:
            self.kept.keep(
                call.id,
                plan.prompt,
                upto=upto,
                caller=caller,
                target=call.target,
                headers=call.headers,
                now=self._clock.now(),
            )
        except Exception:  # no call may fail for what is kept of it
            log.exception("a prompt could not be kept")

    async def warm(self, request: WarmRequest) -> WarmOutcome:
        """Warm one prompt now. Raises a cancellation only."""
        shape = functools.partial(shape_asked, request, self._rules())
        warmed = await self._warmed(request.workspace, request.cause, shape, len(request.body))
        return warmed.outcome

    async def renew(
        self, kept: KeptPrompt, *, upto: int, marks: Sequence[Breakpoint], lives_seconds: float
    ) -> Warmed:
        """Send a kept prompt again, whose entry lives for so long without it. Raises a cancellation only."""
        shape = functools.partial(
            shape_kept, kept, self._rules(), upto=upto, marks=marks, lives_seconds=lives_seconds
        )
        return await self._warmed(kept.workspace, WarmCause.KEEP_ALIVE, shape, len(kept.body))

    def may_renew(self, caller: Principal) -> bool:
        """Whether an entry that this caller's call wrote is to be kept alive now."""
        rules = self._rules()
        found = rules.workspaces.get(caller.workspace)
        if found is None or self._pauses.left(_budget_of(caller.workspace)) > 0:
            return False
        record = rules.keyring.record(caller.key_id)
        # Whether a token's subject would still get one nobody can tell; a freeze holds for them, too.
        good = is_subject(caller.key_id) or (record is not None and record.is_active(self._clock.now()))
        if not good or rules.freezes.of(caller) is not None:
            return False
        return self._why_not_now(found) is None

    def observe(self, record: ExchangeRecord) -> None:
        """As `ports.Observer`: where upstream tells a real call to slow down, warm-ups stop for a while."""
        self._calls.observe(record)
        by_upstream = record.status in _CROWDED and record.error_code is None
        own = record.principal is not None and is_warming(record.principal)
        if by_upstream and not own and record.route is not None:
            self._pauses.pause(record.route, CROWDED_SECONDS)

    def report(self) -> tuple[WarmedPrefix, ...]:
        """Profit and loss by prefix, those that cost most first."""
        return self.book.report()

    @property
    def under_way(self) -> int:
        """Warm-ups that were sent and are not booked."""
        return self._calls.under_way

    def close(self) -> None:
        """Send nothing from here on; what is on its way is left to end."""
        self._closed = True
        self.kept.clear()

    def _why_not_now(self, workspace: Workspace) -> WarmOutcome | None:
        """What a warm-up for this workspace would come to without being sent; None where it would be."""
        if self._closed or self._busy():
            return _skipped("This replica of the gateway is going away.")
        if (never := _why_never(workspace)) is not None:
            return never
        left = self._pauses.left(workspace.upstream)
        if left > 0:
            skipped = _skipped("Upstream asked to be left alone, or its spend cap is reached.")
            return replace(skipped, retry_after_seconds=left)
        return None

    async def _warmed(
        self,
        workspace: WorkspaceId,
        cause: WarmCause,
        shape: Callable[[], Shaped | WarmOutcome],
        size: int,
    ) -> Warmed:
        shaped = await asyncio.to_thread(shape) if size > OFFLOAD_BYTES else shape()
        warmed = Warmed(outcome=shaped) if isinstance(shaped, WarmOutcome) else await self._send(shaped)
        self._tell(workspace, cause, warmed.outcome)
        return warmed

    async def _send(self, shaped: Shaped) -> Warmed:
        workspace = shaped.workspace
        if (not_now := self._why_not_now(workspace)) is not None:
            return Warmed(outcome=replace(not_now, model=shaped.prompt.model))
        if shaped.cause is not WarmCause.KEEP_ALIVE:  # which has been counted
            self.pace.count()
        principal = warming_principal(workspace.id, workspace.organisation, workspace.team)
        done = await self._calls.send(principal, shaped.body, shaped.headers, target=shaped.target)
        warmed = result_of(shaped, done)
        outcome = warmed.outcome
        if (pause := outcome.retry_after_seconds) is not None:
            self._pauses.pause(workspace.upstream, pause)
            if pause == LONGEST_SECONDS:
                log.error("route %s: upstream's spend cap is reached; warm-ups pause", workspace.upstream)
        if outcome.state is WarmState.OVER_BUDGET:
            self._pauses.pause(_budget_of(workspace.id), OVER_BUDGET_SECONDS)
        if warmed.usage is None:
            self.book.spent(shaped.cause, outcome.cost_nanousd)
            return warmed
        prefix = self.book.warmed(book_entry(shaped, warmed, self._rules()))
        if not prefix.is_unread:
            return warmed
        unread = f" Nobody read it after the last {UNREAD_RUNS} warm-ups: see whether apps send it just so."
        return replace(warmed, outcome=replace(outcome, reason=outcome.reason + unread))


def _why_never(workspace: Workspace) -> WarmOutcome | None:
    if workspace.placement is not PlacementMode.ON:
        return _skipped(f"Placement is not on for workspace {workspace.id}, so nobody would read it.")
    if workspace.warming_nanousd_per_day <= 0:
        reason = f"Workspace {workspace.id} has no budget for warm-ups (warming_per_day)."
        return WarmOutcome(state=WarmState.OVER_BUDGET, reason=reason)
    return None


def _budget_of(workspace: WorkspaceId) -> str:
    return f"budget of {workspace}"


def _skipped(reason: str) -> WarmOutcome:
    return WarmOutcome(state=WarmState.SKIPPED, reason=reason)
