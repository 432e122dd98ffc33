"""What a call sets aside before it is sent, and how that is closed: which limits bind it, what becomes of it
while the store is away, which thresholds its cost led past.

Whether there is room is `core/bucket.py`'s to decide, where that is kept the stores'. Nothing here knows
upstream or what an answer says.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.core.batch import LEASE_SECONDS, binding_limits
from gateway.core.bucket import Amounts, Decision, Payer, Reservation
from gateway.core.endpoints import Endpoint
from gateway.core.entry import MAX_TEXT
from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import Estimate
from gateway.core.exchange import Basis, Closing, Exchange
from gateway.core.ids import ReservationId
from gateway.core.limit_headers import limit_headers
from gateway.core.limits import BoundLimit, Mode, Scope, Unit
from gateway.core.principal import Principal
from gateway.core.refusal import exhausted, unbounded
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
COUNTABLE = frozenset({Unit.NANOUSD, Unit.INPUT_TOKENS, Unit.PROMPT_TOKENS})
"""Units of which less may be needed once the prompt was counted."""
_ONE_REQUEST = Amounts(requests=1, concurrent=1)


class Reserving:
    """Reserves and closes for exchanges. What it remembers is for thresholds only."""

    def __init__(self, budgets: BudgetStore, clock: Clock) -> None:
        self._budgets = budgets
        self._clock = clock
        self._thresholds = Thresholds()

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
        if estimate is not None and estimate.unbounded_by and workspace.unbounded is Unbounded.REFUSE:
            refused = unbounded(estimate.unbounded_by, limits, principal)
            if refused is not None:
                raise refused
        reservation = Reservation(
            id=ReservationId(call.id),
            limits=limits,
            amounts=estimate.amounts if estimate else _ONE_REQUEST,
            lease_seconds=rules.lease_seconds if exchange.batch is None else LEASE_SECONDS,
            payer=_payer(principal, exchange),
        )
        exchange.reservation = reservation  # known before the store is asked: closing it is always safe
        try:
            decision = await self._budgets.reserve(reservation)
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

    async def close(self, exchange: Exchange, amounts: Amounts) -> None:
        """Settle at `amounts` or release, as the exchange ended. Idempotent by id, so it is simply tried
        again; if the store stays away, the sweeper closes it at what was set aside. What was set aside for a
        batch stays so until the batch has ended."""
        reservation, pending = exchange.reservation, exchange.basis is Basis.PENDING
        if reservation is None or pending:
            return
        for delay in CLOSE_DELAYS_SECONDS:
            await self._clock.sleep(delay)
            try:
                if exchange.closing is Closing.SETTLE:
                    await self._budgets.settle(reservation.id, amounts)
                else:
                    await self._budgets.release(reservation.id)
                return
            except StoreUnavailable:
                continue
        log.error("reservation %s could not be closed yet; it is when the store is back", reservation.id)


def _binding(call: Call, rules: Rules, principal: Principal, exchange: Exchange) -> tuple[BoundLimit, ...]:
    if exchange.batch is not None:
        return binding_limits(rules, principal, exchange.batch, exchange.tags)
    model = exchange.model or ""
    limits = rules.limits.binding(principal, rules.models.canonical(model) or model, exchange.tags)
    if call.endpoint in FREE:
        return tuple(bound for bound in limits if bound.limit.unit in COUNTED_OF_FREE)
    return limits


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


def _counted(reservation: Reservation, closer: Estimate) -> Reservation:
    """By another id: who asks twice by one gets the first answer again."""
    return replace(reservation, id=ReservationId(f"{reservation.id}-counted"), amounts=closer.amounts)


def _half_would_fit(decision: Decision, amounts: Amounts) -> bool:
    refusing = [v for v in decision.verdicts if not v.allowed and v.bound.limit.mode is Mode.ENFORCE]
    return not decision.allowed and all(
        v.bound.limit.unit in COUNTABLE and 2 * v.remaining >= amounts.of(v.bound.limit.unit)
        for v in refusing
    )
