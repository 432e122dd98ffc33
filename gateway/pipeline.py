"""One call, top to bottom: identify, read, plan, reserve, forward, relay, settle.

This is the only file that knows the order of the steps. Decisions are pure calls into core; effects go
through ports. Nothing here knows HTTP's framing, Redis or SQLite. What `handle` raises is a `GatewayError`
to be shown to the client, `ClientGone`, or a cancellation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.bucket import Amounts, Reservation
from gateway.core.endpoints import Endpoint
from gateway.core.errors import BadRequest, StoreUnavailable, UpstreamFailure
from gateway.core.estimate import Estimate
from gateway.core.exchange import Closing, Event, Exchange, ExchangeRecord
from gateway.core.headers import (
    repeated,
    request_headers,
    response_headers,
    tags_of,
    value_of,
    with_credential,
)
from gateway.core.ids import ReservationId
from gateway.core.limits import Mode, OnStoreFailure, Unit
from gateway.core.models import ModelFacts
from gateway.core.own_headers import own_headers
from gateway.core.permission import allows, permit_endpoint, permit_model
from gateway.core.plan import Plan, estimate_plan
from gateway.core.principal import Principal, find_credential
from gateway.core.refusal import exhausted
from gateway.core.retry import Failure, RetryBudget, RetryDecision, failure_of, plan_retry
from gateway.core.rewrite import filter_models, point_results_home
from gateway.core.rules import Route, Rules, Workspace
from gateway.core.savings import reckon_savings
from gateway.core.settlement import afterwards, settle_exchange
from gateway.placing import Placing
from gateway.ports import (
    Answer,
    BudgetStore,
    Call,
    Clock,
    Observer,
    Reply,
    Upstream,
    UpstreamRequest,
)
from gateway.relay import relay_rewritten, relay_untouched
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

PLANNED = frozenset({Endpoint.MESSAGES, Endpoint.COUNT_TOKENS})
"""Endpoints whose bodies are read. All others stream through unread."""
REWRITTEN = frozenset({Endpoint.MODELS, Endpoint.BATCHES})
"""Endpoints whose answers are changed so that clients stay inside the gateway."""
FREE = frozenset({Endpoint.COUNT_TOKENS, Endpoint.MODELS})
"""Never charged and never blocked by a budget: clients plan with them. Limits of requests hold all the same,
since upstream counts them too."""
CLOSE_DELAYS_SECONDS = (0.0, 0.2, 0.8, 3.2, 12.8)
"""Before each attempt at closing a reservation."""


@dataclass(slots=True, kw_only=True)
class _Admitted:
    """What a call may do, all decisions taken."""

    rules: Rules
    workspace: Workspace
    route: Route
    facts: ModelFacts | None
    estimate: Estimate | None
    continues_thread: bool
    request: UpstreamRequest | None
    """Let go of once an answer began: a stream lasts for minutes, and its request may be megabytes."""


class Pipeline:
    """Handles calls. Holds no state but the retry budget and the exchanges that are open.

    `admit` raises a `Refusal` when the replica takes no more work; `random` gives numbers in [0, 1).
    """

    def __init__(
        self,
        *,
        rules: Callable[[], Rules],
        admit: Callable[[], None],
        placing: Placing,
        upstream: Upstream,
        budgets: BudgetStore,
        observers: Sequence[Observer],
        clock: Clock,
        tasks: TaskSet,
        random: Callable[[], float],
        observer_failed: Callable[[str], None],
    ) -> None:
        self._rules = rules
        self._may_admit = admit
        self.open: dict[str, Exchange] = {}
        """Exchanges that run, by id."""
        self._closing: dict[str, Exchange] = {}
        """Those that have ended and are not settled yet: a store that is away may keep them for a while."""
        self._placing = placing
        self._upstream = upstream
        self._budgets = budgets
        self._observers = observers
        self._clock = clock
        self._tasks = tasks
        self._random = random
        self._observer_failed = observer_failed
        self._retries = RetryBudget()

    async def handle(self, call: Call, reply: Reply) -> None:
        rules = self._rules()  # one snapshot for the whole call
        exchange = Exchange(
            id=call.id,
            endpoint=call.endpoint,
            method=call.method,
            received_at=call.received_at,
            started=call.started,
        )
        self.open[call.id] = exchange
        admitted: _Admitted | None = None
        try:
            admitted = await self._admit(call, rules, exchange)
            await self._forward(call, admitted, reply, exchange)
        except BaseException as error:
            exchange.interrupted(error)
            raise
        finally:
            self._closing[call.id] = self.open.pop(call.id)
            self._tasks.spawn(self._settle(exchange, rules, admitted, reply), "settle")

    def open_reservations(self) -> list[Reservation]:
        """Those that are not closed yet: their leases are to be renewed."""
        exchanges = (*self.open.values(), *self._closing.values())
        return [exchange.reservation for exchange in exchanges if exchange.reservation is not None]

    def open_streams(self) -> int:
        """How many of them stream."""
        return sum(exchange.streaming for exchange in list(self.open.values()))

    # Admit: nothing has been sent yet; every refusal is free.

    async def _admit(self, call: Call, rules: Rules, exchange: Exchange) -> _Admitted:
        self._may_admit()
        if (twice := repeated(call.headers)) is not None:
            raise BadRequest(f"The request has two {twice.decode()} headers; send one.")
        principal = call.principal or rules.keyring.identify(find_credential(call.headers), call.received_at)
        exchange.principal = principal
        exchange.tags = tags_of(call.headers, rules.tag_headers)
        workspace = rules.workspaces[principal.workspace]
        route = rules.routes[workspace.upstream]
        exchange.route = route.name
        permit_endpoint(call.endpoint, call.method, call.target, workspace)

        plan, estimate = None, None
        pieces: tuple[bytes | memoryview, ...] = ()
        decoded = False
        if call.endpoint in PLANNED:
            body = await call.read_body()
            exchange.body_read_at = self._clock.monotonic()
            exchange.request_bytes = len(body.data)
            decoded = body.decoded
            plan = await self._placing.plan(call, body.data, rules, workspace, exchange.hold)
            permit_model(plan.prompt.model, workspace, rules)
            self._note(exchange, plan)
            pieces = plan.pieces
            if call.endpoint not in FREE:
                estimate = estimate_plan(plan, rules=rules, workspace=workspace, at=call.received_at)
                exchange.estimated_nanousd = estimate.amounts.nanousd
        await self._reserve(call, rules, principal, plan, estimate, exchange)
        metered = call.endpoint in PLANNED or call.endpoint in REWRITTEN
        headers = request_headers(call.headers, decoded=decoded, identity=metered, drop=rules.tag_headers)
        request = UpstreamRequest(
            method=call.method,
            target=call.target,
            headers=with_credential(headers, route.credential()),
            route=route,
            body=pieces,
            body_stream=None if call.endpoint in PLANNED else call.stream_body(),
            on_sent=lambda: self._sent(exchange),
        )
        return _Admitted(
            rules=rules,
            workspace=workspace,
            route=route,
            facts=plan.facts if plan else None,
            estimate=estimate,
            continues_thread=plan is not None and plan.continues_thread,
            request=request,
        )

    @staticmethod
    def _note(exchange: Exchange, plan: Plan) -> None:
        exchange.model = plan.prompt.model
        exchange.streaming = plan.prompt.stream
        exchange.placement, exchange.placement_applied = plan.placement, plan.applied
        exchange.client_marks = plan.prompt.client_marks
        exchange.plan_failed = plan.failure is not None
        if plan.failure is not None:
            log.error("planning failed, the client's own bytes go through: %s", plan.failure)

    async def _reserve(
        self,
        call: Call,
        rules: Rules,
        principal: Principal,
        plan: Plan | None,
        estimate: Estimate | None,
        exchange: Exchange,
    ) -> None:
        model = plan.prompt.model if plan else ""
        limits = rules.limits.binding(principal, rules.models.canonical(model) or model)
        if call.endpoint in FREE:
            limits = tuple(bound for bound in limits if bound.limit.unit is Unit.REQUESTS)
        if not limits:
            return
        amounts = estimate.amounts if estimate else Amounts(requests=1)
        reservation = Reservation(
            id=ReservationId(call.id), limits=limits, amounts=amounts, lease_seconds=rules.lease_seconds
        )
        exchange.reservation = reservation  # known before the store is asked: closing it is always safe
        try:
            decision = await self._budgets.reserve(reservation)
        except StoreUnavailable:
            exchange.store_degraded = True
            if any(
                bound.limit.on_store_failure is OnStoreFailure.REFUSE and bound.limit.mode is Mode.ENFORCE
                for bound in limits
            ):
                raise
            return
        exchange.shadow_refusals = decision.shadow_refusals
        if not decision.allowed:
            exchange.reservation = None  # nothing is held
            refusal = exhausted(decision, reservation, principal)
            exchange.binding_limit = refusal.limit_id
            raise refusal
        exchange.reserved = True

    # Forward: bounded attempts, none after the first byte has been relayed.

    async def _forward(self, call: Call, admitted: _Admitted, reply: Reply, exchange: Exchange) -> None:
        self._retries = self._retries.earned()
        while True:
            assert admitted.request is not None
            exchange.attempts += 1
            try:
                async with self._upstream.open(admitted.request) as answer:
                    await self._relay(call, admitted, answer, reply, exchange)
                return
            except UpstreamFailure as error:
                exchange.maybe_billed |= error.request_sent
                decision = self._again(call, admitted, error, exchange)
                if not decision.again:
                    raise
            await self._clock.sleep(decision.delay_seconds)

    def _sent(self, exchange: Exchange) -> None:
        exchange.sent_at = self._clock.monotonic()
        if exchange.first_sent_at is None:
            exchange.first_sent_at = exchange.sent_at
            exchange.apply(Event.ADMITTED)

    def _again(
        self, call: Call, admitted: _Admitted, error: UpstreamFailure, exchange: Exchange
    ) -> RetryDecision:
        begun = admitted.request is None or admitted.request.body_stream is not None
        decision = plan_retry(
            Failure.BEGUN if begun else failure_of(error),
            attempts=exchange.attempts,
            most_attempts=admitted.rules.attempts,
            client_retry_count=_number(value_of(call.headers, b"x-stainless-retry-count")),
            free=call.method in ("GET", "HEAD"),
            continues_thread=admitted.continues_thread,
            budget=self._retries,
            randomness=self._random(),
        )
        if decision.again:
            self._retries = self._retries.spent()
        return decision

    # Relay: bytes go out untouched; a copy is read for its usage.

    async def _relay(
        self, call: Call, admitted: _Admitted, answer: Answer, reply: Reply, exchange: Exchange
    ) -> None:
        admitted.request = None
        exchange.head_at = self._clock.monotonic()
        exchange.apply(Event.RESPONSE_BEGAN)
        exchange.status = answer.status
        self._placing.answered(call.id, good=not _rejected(answer.status))
        request_id = value_of(answer.headers, b"request-id")
        exchange.upstream_request_id = request_id.decode("latin-1") if request_id else None
        headers = [*response_headers(answer.headers), *own_headers(exchange, admitted.rules)]
        if call.endpoint in REWRITTEN and answer.status < 300:
            await relay_rewritten(answer, reply, exchange, headers, _rewriting(call, admitted))
        else:
            metered = call.endpoint is Endpoint.MESSAGES
            await relay_untouched(answer, reply, exchange, headers, self._clock, metered=metered)
        exchange.apply(Event.UPSTREAM_REJECTED if _rejected(answer.status) else Event.RESPONSE_ENDED)

    # Settle: close the reservation, tell every observer. Runs to its end whatever became of the client.

    async def _settle(
        self, exchange: Exchange, rules: Rules, admitted: _Admitted | None, reply: Reply
    ) -> None:
        try:
            exchange.status = exchange.status or reply.status  # of what was refused, others made the answer
            amounts = self._price(exchange, rules, admitted)
            self._placing.ended(exchange)
            self._tell(exchange.record(self._clock.monotonic()))
            if exchange.reservation is not None:
                await self._close(exchange, exchange.reservation, amounts)
        finally:
            del self._closing[exchange.id]

    @staticmethod
    def _price(exchange: Exchange, rules: Rules, admitted: _Admitted | None) -> Amounts:
        settlement = settle_exchange(
            closing=exchange.closing,
            basis=exchange.basis,
            report=exchange.report,
            estimate=admitted.estimate if admitted else None,
            facts=admitted.facts if admitted else None,
            model=exchange.model,
            prices=rules.prices,
            at=exchange.received_at,
        )
        exchange.usage, exchange.cost, exchange.basis = settlement.usage, settlement.cost, settlement.basis
        exchange.savings = reckon_savings(exchange, rules.prices)
        return settlement.amounts

    def _tell(self, record: ExchangeRecord) -> None:
        for observer in self._observers:
            try:
                observer.observe(record)
            except Exception:
                self._observer_failed(type(observer).__name__)
                log.exception("observer %s failed", type(observer).__name__)

    async def _close(self, exchange: Exchange, reservation: Reservation, amounts: Amounts) -> None:
        """Idempotent by id, so it is simply tried again; if the store stays away, the sweeper closes it at
        what was set aside."""
        for delay in CLOSE_DELAYS_SECONDS:
            await self._clock.sleep(delay)
            try:
                if exchange.closing is Closing.SETTLE and not exchange.store_degraded:
                    await self._budgets.settle(reservation.id, amounts)
                    return
                await self._budgets.release(reservation.id)
                if exchange.closing is Closing.SETTLE:
                    late = afterwards(reservation, amounts)
                    await self._budgets.reserve(late)
                    await self._budgets.settle(late.id, amounts)
                return
            except StoreUnavailable:
                continue
        log.error("reservation %s could not be closed; it will expire", reservation.id)


def _rewriting(call: Call, admitted: _Admitted) -> Callable[[bytes], bytes]:
    if call.endpoint is Endpoint.MODELS:
        return lambda body: filter_models(body, lambda model: allows(admitted.workspace, model))
    return lambda body: point_results_home(body, admitted.route.base_url, call.public_base)


def _rejected(status: int) -> bool:
    """Whether upstream did not do what it was asked, and so bills nothing: a redirect is no answer either."""
    return not 200 <= status < 300


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
