"""What a call sets aside before it is sent, and how that is closed: which limits bind it, what becomes of it
while the store is away, which thresholds its cost led past.

Whether there is room is `core/bucket.py`'s to decide, where that is kept the stores'. Nothing here knows
upstream or what an answer says.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile

from msgspec.structs import replace

from gateway.core.batch import LEASE_SECONDS, binding_limits
from gateway.core.bucket import Amounts, Decision, Payer, Reservation
from gateway.core.ending import in_the_way
from gateway.core.endpoints import Endpoint, runs_models
from gateway.core.entry import MAX_TEXT
from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import Estimate
from gateway.core.exchange import Basis, Exchange
from gateway.core.ids import ReservationId
from gateway.core.limit_headers import limit_headers
from gateway.core.limits import BoundLimit, Mode, Scope, Unit
from gateway.core.permission import SHOWN_CHARACTERS
from gateway.core.principal import Principal
from gateway.core.refusal import exhausted, unbounded, unpriced
from gateway.core.rules import LimitHeaders, Rules, Unbounded, Workspace
from gateway.core.thresholds import Thresholds
from gateway.ports import BudgetStore, Call, Clock

log = logging.getLogger(__name__)

FREE = frozenset({Endpoint.COUNT_TOKENS, Endpoint.MODELS})
"""Never charged and never blocked by a budget: clients plan with them. Limits of requests hold all the same,
since upstream counts them too."""
COUNTED_OF_FREE = frozenset({Unit.REQUESTS, Unit.CONCURRENT})
CLOSE_DELAYS_SECONDS = (0.0, 0.2, 0.8, 3.2, 12.8)
"""Before each attempt at closing a reservation."""
SETTLED_SECONDS = 0.1
"""The longest that a call waits for others that are over to be settled, before it asks again."""
ASKED_AGAIN = 3
"""So often at most: others may have taken the place meanwhile, and be over themselves."""
CLOSED_KEPT = 1024
COUNTABLE = frozenset({Unit.NANOUSD, Unit.INPUT_TOKENS, Unit.PROMPT_TOKENS})
"""Units of which less may be needed once the prompt was counted."""
_ONE_REQUEST = Amounts(requests=1, concurrent=1)


class Reserving:
    """Reserves and closes for exchanges. What it remembers: thresholds, and which exchanges of this replica
    are over and not closed yet."""

    def __init__(self, budgets: BudgetStore, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock
        self._thresholds = Thresholds()
        self._ended: dict[ReservationId, tuple[Reservation, asyncio.Future[None]]] = {}
        self._closings = 0
        self._closed: deque[tuple[int, Reservation]] = deque(maxlen=CLOSED_KEPT)
        """The last ones that were closed, each with the number of its closing."""

    async def reserve(
        self,
        call: Call,
        rules: Rules,
        workspace: Workspace,
        estimate: Estimate | None,
        exchange: Exchange,
        recount: Callable[[], Awaitable[Estimate | None]] | None = None,
    ) -> Estimate | None:
        """Set aside on all limits that bind the call, which `exchange` then knows. Returns what was set
        aside: `estimate`, or, where that did not fit and half of it would, what `recount` came to. Raises
        `BudgetExhausted`, `Unbounded`, and `StoreUnavailable` where a limit does not allow to go on without
        the store."""
        principal = exchange.principal
        assert principal is not None
        limits = _binding(call, rules, principal, exchange)
        if not limits:
            return estimate
        if workspace.unbounded is Unbounded.REFUSE:
            _refuse_unbounded(call, estimate, limits, principal)
        reservation = Reservation(
            id=ReservationId(call.id),
            limits=limits,
            amounts=estimate.amounts if estimate else _ONE_REQUEST,
            lease_seconds=rules.lease_seconds if exchange.batch is None else LEASE_SECONDS,
            payer=_payer(principal, exchange),
        )
        exchange.reservation = reservation  # known before the store is asked: closing it is always safe
        try:
            decision, reservation = await self._ask(call, reservation, exchange)
            if recount and _half_would_fit(decision, reservation.amounts) and (closer := await recount()):
                estimate, reservation = closer, _counted(reservation, closer)
                exchange.reservation, exchange.estimated_nanousd = reservation, closer.nanousd
                decision = await self._budgets.reserve(reservation)
        except StoreUnavailable as error:
            exchange.store_degraded = True
            if error.outcome_known:  # nothing is held
                exchange.reservation = None
            raise
        if decision.degraded:
            exchange.store_degraded = True
            return estimate
        exchange.shadow_refusals, exchange.verdicts = decision.shadow_refusals, decision.verdicts
        if not decision.allowed:
            exchange.reservation = None  # nothing is held
            if decision.binding is None:
                raise StoreUnavailable("The budgets had closed this call before it was reserved.")
            told = limit_headers(decision.verdicts) if rules.limit_headers is LimitHeaders.OWN else ()
            refusal = exhausted(decision, reservation, principal, told)
            exchange.binding_limit = refusal.limit_id
            raise refusal
        exchange.reserved = True
        return estimate

    def note_crossings(self, exchange: Exchange, amounts: Amounts) -> None:
        """Tell `exchange`, and the log, which thresholds it led past by taking `amounts` in the end."""
        exchange.crossed = self._thresholds.settled(exchange.verdicts, amounts)
        for crossing in exchange.crossed:
            # Values of tags come from clients, and may name people.
            named = {v.bound.limit.id for v in exchange.verdicts if v.bound.limit.scope is not Scope.TAG}
            whose = f" for {crossing.subject}" if crossing.subject and crossing.limit in named else ""
            log.warning("limit %s%s is spent to %g%%", crossing.limit, whose, crossing.threshold * 100)

    def ended(self, exchange: Exchange) -> None:
        """It is over, and is going to be closed; `closed` has to follow. What a batch holds it keeps."""
        reservation = exchange.reservation
        if reservation is not None and exchange.batch is None:
            closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._ended[reservation.id] = reservation, closing

    def closed(self, exchange: Exchange) -> None:
        """Nothing more is done to close it."""
        if exchange.reservation is not None:
            known = self._ended.pop(exchange.reservation.id, None)
            if known is not None:
                self._closings += 1
                self._closed.append((self._closings, known[0]))
                if not known[1].done():
                    known[1].set_result(None)

    async def close(self, exchange: Exchange, amounts: Amounts) -> None:
        """Settle at `amounts` or release, as the exchange ended. Idempotent by id, so it is simply tried
        again; if the store stays away, the sweeper closes it at what was set aside. What was set aside for a
        batch stays so until the batch has ended."""
        reservation, pending = exchange.reservation, exchange.basis is Basis.PENDING
        if reservation is None or pending:
            return
        for delay in CLOSE_DELAYS_SECONDS:
            if delay:
                await self._clock.sleep(delay)
            try:
                if exchange.closing.counts:
                    await self._budgets.settle(reservation.id, amounts)
                else:
                    await self._budgets.release(reservation.id)
                return
            except StoreUnavailable:
                continue
        log.error("reservation %s could not be closed yet; it is when the store is back", reservation.id)

    async def _ask(
        self, call: Call, reservation: Reservation, exchange: Exchange
    ) -> tuple[Decision, Reservation]:
        """The store's answer, and what it is about: asked again by another id while what refuses is over."""
        asked_at = self._closings
        decision = await self._budgets.reserve(reservation)
        for number in range(1, ASKED_AGAIN + 1):
            if not await self._settled(decision, reservation, asked_at):
                break
            asked_at = self._closings
            reservation = exchange.reservation = _asked_again(call, reservation, number)
            decision = await self._budgets.reserve(reservation)
        return decision, reservation

    async def _settled(self, decision: Decision, reservation: Reservation, asked_at: int) -> bool:
        """Wait for calls of this replica that are over and stood in the way when the store was asked; whether
        there were any. Those that were closed since may have been so after the store's answer."""
        if decision.allowed:
            return False
        over = [each for each, _ in self._ended.values()]
        over += [each for number, each in takewhile(lambda one: one[0] > asked_at, reversed(self._closed))]
        waited_for = in_the_way(decision, reservation.amounts, over)
        pending = [self._ended[each.id][1] for each in waited_for if each.id in self._ended]
        if pending:
            await asyncio.wait(pending, timeout=SETTLED_SECONDS)
        return bool(waited_for)


def _binding(call: Call, rules: Rules, principal: Principal, exchange: Exchange) -> tuple[BoundLimit, ...]:
    if exchange.batch is not None:
        return binding_limits(rules, principal, exchange.batch, exchange.tags)
    models = [rules.models.canonical(each) or each for each in (exchange.model or "", *exchange.other_models)]
    if len(models) == 1:
        limits = rules.limits.binding(principal, models[0], exchange.tags)
    else:  # a limit for some models counts the whole of a call that may come to one
        limits = rules.limits.binding_any(principal, models, exchange.tags)
    if call.endpoint in FREE:
        return tuple(bound for bound in limits if bound.limit.unit in COUNTED_OF_FREE)
    return limits


def _refuse_unbounded(
    call: Call, estimate: Estimate | None, limits: Sequence[BoundLimit], principal: Principal
) -> None:
    """Raises `Unbounded` where a limit of dollars cannot hold what the call may cost."""
    refused = None
    if estimate is not None and estimate.unbounded_by:
        refused = unbounded(estimate.unbounded_by, limits, principal)
    elif estimate is None and runs_models(call.method, call.target):
        refused = unpriced(call.target.partition("?")[0][:SHOWN_CHARACTERS], limits, principal)
    if refused is not None:
        raise refused


def _payer(principal: Principal, exchange: Exchange) -> Payer:
    return Payer(
        received_at_ms=round(exchange.received_at * 1000),
        organisation=principal.organisation,
        workspace=principal.workspace,
        key_id=principal.key_id,
        route=exchange.route or "",
        model=(exchange.model or "")[:MAX_TEXT],
        endpoint=exchange.endpoint,
        tags=exchange.tags,
    )


def _asked_again(call: Call, reservation: Reservation, number: int) -> Reservation:
    """By another id: who asks twice by one gets the first answer again."""
    return replace(reservation, id=ReservationId(f"{call.id}-again-{number}"))


def _counted(reservation: Reservation, closer: Estimate) -> Reservation:
    """By another id, as above."""
    return replace(reservation, id=ReservationId(f"{reservation.id}-counted"), amounts=closer.amounts)


def _half_would_fit(decision: Decision, amounts: Amounts) -> bool:
    refusing = [v for v in decision.verdicts if not v.allowed and v.bound.limit.mode is Mode.ENFORCE]
    return bool(refusing) and all(
        v.bound.limit.unit in COUNTABLE and 2 * v.remaining >= amounts.of(v.bound.limit.unit)
        for v in refusing
    )
