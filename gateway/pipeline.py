"""One call, top to bottom: identify, read, plan, reserve, forward, relay, settle.

This is the only file that knows the order of the steps. Decisions are pure calls into core; effects go
through ports. Nothing here knows HTTP's framing, Redis or SQLite. What `handle` raises is a `GatewayError`
to be shown to the client, `ClientGone`, or a cancellation.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from gateway.batching import Batching, Creation
from gateway.core.batch import settle_batch_call
from gateway.core.bucket import Amounts, Reservation
from gateway.core.endpoints import Endpoint, creates_batch, deleted_batch
from gateway.core.errors import BadRequest, CredentialUnavailable, UpstreamFailure
from gateway.core.estimate import Estimate
from gateway.core.exchange import Basis, Closing, Event, Exchange, ExchangeRecord
from gateway.core.headers import (
    Headers,
    repeated,
    request_headers,
    tags_of,
    value_of,
    with_credential,
)
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.models import ModelFacts
from gateway.core.own_headers import answer_headers
from gateway.core.permission import allows, permit_endpoint, permit_models
from gateway.core.plan import Plan, estimate_plan
from gateway.core.principal import find_credential
from gateway.core.retry import Failure, RetryBudget, RetryDecision, failure_of, has_retried, plan_retry
from gateway.core.rewrite import models_page, point_results_home, whole_list
from gateway.core.rules import Route, Rules, Workspace
from gateway.core.savings import reckon_savings
from gateway.core.settlement import settle_exchange
from gateway.counting import Counting
from gateway.placing import Placing
from gateway.ports import (
    Answer,
    BodyStream,
    BudgetStore,
    Call,
    Clock,
    Observer,
    Reply,
    Upstream,
    UpstreamRequest,
)
from gateway.relay import relay_rewritten, relay_untouched
from gateway.reserving import FREE, Reserving
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

PLANNED = frozenset({Endpoint.MESSAGES, Endpoint.COUNT_TOKENS})
"""Endpoints whose bodies are read. All others stream through unread."""
REWRITTEN = frozenset({Endpoint.MODELS, Endpoint.BATCHES})
"""Endpoints whose answers are changed so that clients stay inside the gateway."""


@dataclass(slots=True, kw_only=True)
class _Admitted:
    """What a call may do, all decisions taken."""

    rules: Rules
    workspace: Workspace
    route: Route
    facts: ModelFacts | None
    estimate: Estimate | None
    continues_thread: bool
    creation: Creation | None
    request: UpstreamRequest | None
    """Let go of once an answer began: a stream lasts for minutes, and its request may be megabytes."""
    renewed: bool = False
    """Whether it was sent again with another credential."""


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
        batching: Batching | None = None,
        estimates: LearnedEstimates | None = None,
        written: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`written` returns once the books have all that observers were told; a reservation is not closed
        before, so that no replica can die between the two and leave counters that no entry explains."""
        self._rules = rules
        self._may_admit = admit
        self.open: dict[str, Exchange] = {}
        """Exchanges that run, by id."""
        self._closing: dict[str, Exchange] = {}
        """Those that have ended and are not settled yet: a store that is away may keep them for a while."""
        self._placing = placing
        self._upstream = upstream
        self._reserving = Reserving(budgets, clock)
        self._observers = observers
        self._clock = clock
        self._tasks = tasks
        self._random = random
        self._observer_failed = observer_failed
        self._batching = batching
        self._estimates = LearnedEstimates() if estimates is None else estimates
        self._counting = Counting(upstream, self._estimates)
        self._retries = RetryBudget()
        self._written = written

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
            self._reserving.ended(exchange)
            self._tasks.spawn(self._settle(exchange, rules, admitted, reply), "settle")

    def open_reservations(self) -> list[Reservation]:
        """Those that are not closed yet: their leases are to be renewed."""
        exchanges = (*self.open.values(), *self._closing.values())
        return [exchange.reservation for exchange in exchanges if exchange.reservation is not None]

    def open_streams(self) -> int:
        """How many of them stream."""
        return sum(exchange.streaming for exchange in list(self.open.values()))

    # Admit: nothing has been sent yet; every refusal is free.

    def _permit(self, call: Call, rules: Rules, exchange: Exchange) -> Workspace:
        """The workspace of who calls, where it may have the endpoint."""
        self._may_admit()
        if (twice := repeated(call.headers)) is not None:
            raise BadRequest(f"The request has two {twice.decode()} headers; send one.")
        principal = call.principal or rules.keyring.identify(find_credential(call.headers), call.received_at)
        exchange.principal = principal
        rules.freezes.permit(principal)
        exchange.tags = tags_of(call.headers, rules.tag_headers, principal.tags)
        workspace = rules.workspaces[principal.workspace]
        exchange.route = workspace.upstream
        reads_batches = self._batching is not None
        permit_endpoint(call.endpoint, call.method, call.target, workspace, reads_batches=reads_batches)
        return workspace

    async def _admit(self, call: Call, rules: Rules, exchange: Exchange) -> _Admitted:
        workspace = self._permit(call, rules, exchange)
        route = rules.routes[workspace.upstream]
        batching, asked = self._batching, (call.endpoint, call.method, call.target)
        plan, estimate, creation = None, None, None
        pieces: tuple[bytes | memoryview, ...] = ()
        stream: BodyStream | None = None
        decoded = False
        if call.endpoint in PLANNED:
            body = await call.read_body()
            exchange.body_read_at = self._clock.monotonic()
            exchange.request_bytes = len(body.data)
            decoded = body.decoded
            caller = exchange.principal
            plan = await self._placing.plan(call, body.data, rules, workspace, exchange.hold, caller)
            exchange.other_models = permit_models(plan.prompt, workspace, rules)
            self._note(exchange, plan)
            pieces = plan.pieces
            if call.endpoint not in FREE:
                estimate = estimate_plan(
                    plan, rules=rules, workspace=workspace, at=call.received_at, learned=self._estimates
                )
                exchange.estimated_nanousd = estimate.amounts.nanousd
        elif batching is not None and creates_batch(*asked):
            creation = await batching.read(call, rules, workspace, exchange)
            estimate, stream, decoded = creation.plan.estimate, creation.body, creation.decoded
        else:
            stream = call.stream_body()
        recount = self._counting.closer(call, plan, rules, workspace, route) if plan else None
        estimate = await self._reserving.reserve(call, rules, workspace, estimate, exchange, recount)
        if batching is not None and (batch_id := deleted_batch(*asked)) is not None:
            await batching.before_deletion(batch_id)
        metered = call.endpoint in PLANNED or call.endpoint in REWRITTEN
        headers = request_headers(call.headers, decoded=decoded, identity=metered, drop=rules.tag_headers)
        request = UpstreamRequest(
            method=call.method,
            target=whole_list(call.target) if workspace.models else call.target,
            headers=with_credential(headers, await _credential(route)),
            route=route,
            body=pieces,
            body_stream=stream,
            on_sent=lambda: self._sent(exchange),
        )
        return _Admitted(
            rules=rules,
            workspace=workspace,
            route=route,
            facts=plan.facts if plan else None,
            estimate=estimate,
            continues_thread=plan is not None and plan.continues_thread,
            creation=creation,
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

    # Forward: bounded attempts, none after the first byte has been relayed.

    async def _forward(self, call: Call, admitted: _Admitted, reply: Reply, exchange: Exchange) -> None:
        self._retries = self._retries.earned()
        while True:
            assert admitted.request is not None
            exchange.attempts += 1
            try:
                async with self._upstream.open(admitted.request) as answer:
                    decision = await self._renewed(call, admitted, answer, exchange)
                    if not decision.again:
                        await self._relay(call, admitted, answer, reply, exchange)
                        return
            except UpstreamFailure as error:
                exchange.maybe_billed |= error.request_sent
                decision = self._again(call, admitted, failure_of(error), exchange)
                if not decision.again:
                    raise
            await self._clock.sleep(decision.delay_seconds)

    def _sent(self, exchange: Exchange) -> None:
        exchange.sent_at = self._clock.monotonic()
        if exchange.first_sent_at is None:
            exchange.first_sent_at = exchange.sent_at
            exchange.apply(Event.ADMITTED)

    async def _renewed(
        self, call: Call, admitted: _Admitted, answer: Answer, exchange: Exchange
    ) -> RetryDecision:
        """Again, once, where upstream refused a credential that was got for a time, and there is another."""
        request, renew = admitted.request, admitted.route.renew
        if answer.status != 401 or renew is None or request is None or admitted.renewed:
            return RetryDecision(again=False)
        if not await renew(request.headers):
            return RetryDecision(again=False, reason="there is no other credential")
        decision = self._again(call, admitted, Failure.CREDENTIAL_REFUSED, exchange)
        if decision.again:
            headers = with_credential(list(request.headers), admitted.route.credential())
            admitted.request, admitted.renewed = replace(request, headers=headers), True
        return decision

    def _again(self, call: Call, admitted: _Admitted, failure: Failure, exchange: Exchange) -> RetryDecision:
        begun = admitted.request is None or admitted.request.body_stream is not None
        decision = plan_retry(
            Failure.BEGUN if begun else failure,
            attempts=exchange.attempts,
            most_attempts=admitted.rules.attempts,
            client_retries=has_retried(value_of(call.headers, b"x-stainless-retry-count")),
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
        head = partial(answer_headers, exchange, admitted.rules)
        has_body = call.method != "HEAD" and answer.status != 204
        if call.endpoint in REWRITTEN and answer.status < 300 and has_body:
            rewrite = partial(self._rewritten, call, admitted, exchange)
            await relay_rewritten(answer, reply, exchange, head, rewrite)
        else:
            metered = call.endpoint is Endpoint.MESSAGES
            await relay_untouched(answer, reply, exchange, head, self._clock, metered=metered)
        exchange.apply(Event.UPSTREAM_REJECTED if _rejected(answer.status) else Event.RESPONSE_ENDED)

    async def _rewritten(self, call: Call, admitted: _Admitted, exchange: Exchange, body: bytes) -> bytes:
        if call.endpoint is Endpoint.MODELS:
            workspace = admitted.workspace
            may_use = partial(allows, workspace)
            return models_page(body, call.target, may_use) if workspace.models else body
        if self._batching is not None and admitted.creation is not None:
            await self._batching.created(admitted.creation, exchange, call.headers, body)
        return point_results_home(body, call.public_base)

    # Settle: close the reservation, tell every observer. Runs to its end whatever became of the client.

    async def _settle(
        self, exchange: Exchange, rules: Rules, admitted: _Admitted | None, reply: Reply
    ) -> None:
        try:
            exchange.status = exchange.status or reply.status  # of what was refused, others made the answer
            amounts = await self._price(exchange, rules, admitted)
            self._learn(exchange, admitted)
            self._placing.ended(exchange)
            self._reserving.note_crossings(exchange, amounts)
            self._tell(exchange.record(self._clock.monotonic()))
            spent = exchange.reservation is not None and exchange.closing is Closing.SETTLE
            if spent and self._written is not None:
                await self._written()
            await self._reserving.close(exchange, amounts)
        finally:
            del self._closing[exchange.id]
            self._reserving.closed(exchange)
            if self._batching is not None:
                await self._batching.over(exchange.id, admitted.creation if admitted else None)

    async def _price(self, exchange: Exchange, rules: Rules, admitted: _Admitted | None) -> Amounts:
        settlement = settle_exchange(
            closing=exchange.closing,
            basis=exchange.basis,
            report=exchange.report,
            estimate=admitted.estimate if admitted else None,
            facts=admitted.facts if admitted else None,
            model=exchange.model,
            prices=rules.prices,
            at=exchange.received_at,
            seconds=self._clock.monotonic() - (exchange.sent_at or exchange.started),
        )
        if self._batching is not None and exchange.endpoint == Endpoint.BATCHES:
            kept = await self._batching.is_kept(admitted.creation if admitted else None)
            settlement = settle_batch_call(exchange.closing, exchange.batch, kept=kept)
        exchange.usage, exchange.cost, exchange.basis = settlement.usage, settlement.cost, settlement.basis
        exchange.savings = reckon_savings(exchange, rules.prices)
        return settlement.amounts

    def _learn(self, exchange: Exchange, admitted: _Admitted | None) -> None:
        guess = admitted.estimate.guess if admitted and admitted.estimate else None
        if guess is not None and exchange.usage is not None and exchange.basis is Basis.REPORTED:
            self._estimates.billed(guess, exchange.usage)

    def _tell(self, record: ExchangeRecord) -> None:
        for observer in self._observers:
            try:
                observer.observe(record)
            except Exception:
                self._observer_failed(type(observer).__name__)
                log.exception("observer %s failed", type(observer).__name__)


async def _credential(route: Route) -> Headers:
    """The route's own header lines. One that is got for a time is waited for where there is none."""
    try:
        return route.credential()
    except CredentialUnavailable:
        if route.renew is None or not await route.renew(()):
            raise
        return route.credential()


def _rejected(status: int) -> bool:
    """Whether upstream did not do what it was asked, and so bills nothing: a redirect is no answer either."""
    return not 200 <= status < 300
