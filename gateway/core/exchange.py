"""The life of one exchange: a table of states and events, and the record that observers read.

The table decides what becomes of the reservation; the pipeline only reports events. ARCHITECTURE.md's
diagram is generated from it. Nothing here knows HTTP, stores or clocks: instants come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.core.errors import ClientGone, GatewayError, Refusal, UpstreamFailure

if TYPE_CHECKING:
    from gateway.core.batch import BatchPlan
    from gateway.core.bucket import Reservation, Verdict
    from gateway.core.placement import Placement
    from gateway.core.pricing import Cost
    from gateway.core.principal import Principal
    from gateway.core.savings import Savings
    from gateway.core.thresholds import Crossing
    from gateway.core.usage import Report, Usage


DRAINING = "draining"
"""The message of a cancellation by which the replica, and not the client, ends an exchange."""


class State(StrEnum):
    RECEIVED = "received"
    ADMITTED = "admitted"
    RELAYING = "relaying"
    REFUSED = "refused"
    ANSWERED = "answered"
    FAILED = "failed"
    CUT_BY_CLIENT = "cut_by_client"
    CUT_BY_UPSTREAM = "cut_by_upstream"
    CUT_BY_GATEWAY = "cut_by_gateway"
    """The replica went away before the answer had ended."""
    LOST = "lost"
    """Its replica died, or could not close it; nobody knows how it ended. Not of the table below: such an
    entry is the store's word, or that of the replica's next process (`core/presumed.py`)."""


class Event(StrEnum):
    REFUSED = "refused"
    ADMITTED = "admitted"
    CLIENT_GONE = "client_gone"
    UPSTREAM_REJECTED = "upstream_rejected"
    NEVER_REACHED = "never_reached"
    NO_ANSWER = "no_answer"
    RESPONSE_BEGAN = "response_began"
    RESPONSE_ENDED = "response_ended"
    UPSTREAM_GONE = "upstream_gone"
    DRAINED = "drained"


class Closing(StrEnum):
    """What becomes of the reservation."""

    NONE = "none"
    OPEN = "open"
    RELEASE = "release"
    COUNT = "count"
    """Upstream was asked and did nothing: it costs nothing, but limits of requests count it, or a loop on an
    error would never end."""
    SETTLE = "settle"

    @property
    def counts(self) -> bool:
        """Whether limits of requests count the call."""
        return self in (Closing.COUNT, Closing.SETTLE)


class Basis(StrEnum):
    """How the usage of a ledger entry is known. Guessed numbers stay recognisable for ever."""

    REPORTED = "reported"
    PARTIAL = "partial"
    ESTIMATED = "estimated"
    PRESUMED = "presumed"
    """What had been set aside, since nobody could tell; below zero where it turned out later."""
    UNMETERED = "unmetered"
    """Counted by request: what it cost upstream, if anything, is not in these books."""
    PENDING = "pending"
    """A batch was created: what it costs is booked when it has ended, in entries of its own."""
    NONE = "none"
    """Nothing was billed: refused here, rejected by upstream, never sent, or free."""


@dataclass(frozen=True, slots=True)
class Step:
    next: State
    closing: Closing
    basis: Basis


TRANSITIONS: dict[tuple[State, Event], Step] = {
    (State.RECEIVED, Event.REFUSED): Step(State.REFUSED, Closing.RELEASE, Basis.NONE),
    (State.RECEIVED, Event.CLIENT_GONE): Step(State.CUT_BY_CLIENT, Closing.RELEASE, Basis.NONE),
    (State.RECEIVED, Event.NEVER_REACHED): Step(State.FAILED, Closing.RELEASE, Basis.NONE),
    (State.RECEIVED, Event.ADMITTED): Step(State.ADMITTED, Closing.OPEN, Basis.NONE),
    (State.ADMITTED, Event.REFUSED): Step(State.REFUSED, Closing.RELEASE, Basis.NONE),
    (State.ADMITTED, Event.UPSTREAM_REJECTED): Step(State.ANSWERED, Closing.COUNT, Basis.NONE),
    (State.ADMITTED, Event.NEVER_REACHED): Step(State.FAILED, Closing.RELEASE, Basis.NONE),
    (State.ADMITTED, Event.NO_ANSWER): Step(State.FAILED, Closing.SETTLE, Basis.ESTIMATED),
    (State.ADMITTED, Event.CLIENT_GONE): Step(State.CUT_BY_CLIENT, Closing.SETTLE, Basis.ESTIMATED),
    (State.ADMITTED, Event.RESPONSE_BEGAN): Step(State.RELAYING, Closing.OPEN, Basis.NONE),
    (State.RELAYING, Event.RESPONSE_ENDED): Step(State.ANSWERED, Closing.SETTLE, Basis.REPORTED),
    (State.RELAYING, Event.UPSTREAM_REJECTED): Step(State.ANSWERED, Closing.COUNT, Basis.NONE),
    (State.RELAYING, Event.CLIENT_GONE): Step(State.CUT_BY_CLIENT, Closing.SETTLE, Basis.PARTIAL),
    (State.RELAYING, Event.UPSTREAM_GONE): Step(State.CUT_BY_UPSTREAM, Closing.SETTLE, Basis.PARTIAL),
    (State.RECEIVED, Event.DRAINED): Step(State.CUT_BY_GATEWAY, Closing.RELEASE, Basis.NONE),
    (State.ADMITTED, Event.DRAINED): Step(State.CUT_BY_GATEWAY, Closing.SETTLE, Basis.ESTIMATED),
    (State.RELAYING, Event.DRAINED): Step(State.CUT_BY_GATEWAY, Closing.SETTLE, Basis.PARTIAL),
}


@dataclass(slots=True)
class Hold:
    """What a call waited for another that was writing the same prefix."""

    seconds: float = 0.0
    tokens: int = 0
    """What did not have to be written again, if the wait was worth it."""


# msgspec.Structs, since they are made for each call: a frozen dataclass takes ten times as long to make.
class Timings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Seconds. Upstream's time and ours apart; None where the exchange did not get that far."""

    total_seconds: float
    body_read_seconds: float = 0.0
    """Waiting for the client to send its request; nobody's overhead."""
    overhead_seconds: float = 0.0
    """Spent in the gateway between the request's last byte and sending it upstream, but for the hold."""
    held_seconds: float = 0.0
    """Held for another call that was writing the same prefix."""
    upstream_first_byte_seconds: float | None = None
    """From sending upstream to the response's head."""
    first_token_seconds: float | None = None
    """From the request's arrival to the first body byte relayed."""


class ExchangeRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that became of one call; frozen, holds no content, no credential. What observers are told.

    `endpoint` is a route's name from a closed set (`messages`, `count_tokens`, `models`, `batches`,
    `files`, `other`, ...), never a raw path. `model` is what upstream named, else what the client asked.
    """

    id: str
    """The gateway's own id of the exchange."""
    upstream_request_id: str | None
    received_at: float
    """Epoch seconds."""
    endpoint: str
    method: str
    streaming: bool
    principal: Principal | None
    route: str | None
    model: str | None
    state: State
    basis: Basis
    status: int
    """What the client got; 0 where it got nothing."""
    error_code: str | None
    """The gateway's own code, where it refused or failed."""
    upstream_error_type: str | None
    attempts: int
    usage: Usage | None
    cost: Cost | None
    savings: Savings | None
    """What caching did to the cost; None where nothing was billed."""
    placement: Placement | None
    placement_applied: bool
    """False in shadow mode: decided and not sent."""
    plan_failed: bool
    client_marks: int
    held_tokens: int
    """What did not have to be written again, because the call was held."""
    estimated_nanousd: int
    overrun_nanousd: int
    """Real cost above what was reserved; 0 in a good life."""
    reservation: Reservation | None
    binding_limit: str | None
    shadow_refusals: tuple[str, ...]
    store_degraded: bool
    request_bytes: int
    response_bytes: int
    report: Report | None
    timings: Timings
    tags: tuple[tuple[str, str], ...] = ()
    crossed: tuple[Crossing, ...] = ()
    """Soft thresholds that its cost led past, as far as this replica knows: each once in a window."""


class Exchange(msgspec.Struct, kw_only=True):
    """A call and what became of it so far. The pipeline fills it in; `record` freezes it at the end."""

    id: str
    endpoint: str
    method: str
    received_at: float
    started: float
    """Monotonic instant of arrival; all other instants here are monotonic too."""
    state: State = State.RECEIVED
    closing: Closing = Closing.NONE
    basis: Basis = Basis.NONE
    status: int = 0
    principal: Principal | None = None
    route: str | None = None
    model: str | None = None
    other_models: tuple[str, ...] = ()
    """What it may come to besides: fallbacks and advisors that it names."""
    streaming: bool = False
    placement: Placement | None = None
    placement_applied: bool = True
    plan_failed: bool = False
    client_marks: int = 0
    hold: Hold = msgspec.field(default_factory=Hold)
    reservation: Reservation | None = None
    maybe_billed: bool = False
    """Whether some attempt may have reached upstream."""
    reserved: bool = False
    """Whether the store said yes; a named reservation may be open even where this is False."""
    estimated_nanousd: int = 0
    binding_limit: str | None = None
    shadow_refusals: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    """How its limits stood when the store decided."""
    crossed: tuple[Crossing, ...] = ()
    store_degraded: bool = False
    attempts: int = 0
    error_code: str | None = None
    upstream_request_id: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    report: Report | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    savings: Savings | None = None
    tags: tuple[tuple[str, str], ...] = ()
    batch: BatchPlan | None = None
    """Of a call that creates a batch, once its body was read."""
    body_read_at: float | None = None
    sent_at: float | None = None
    """When the last attempt was sent."""
    first_sent_at: float | None = None
    head_at: float | None = None
    first_byte_at: float | None = None

    def apply(self, event: Event) -> None:
        """Follow the table. An event that cannot happen in this state is a broken invariant."""
        step = TRANSITIONS[self.state, event]
        self.state, self.closing, self.basis = step.next, step.closing, step.basis

    def interrupted(self, error: BaseException) -> None:
        """Report to the table what ended the exchange early. A cancellation (no `Exception`) is the client
        leaving, unless its message says that the replica does; a bug counts as an answer that never came,
        so that what may have been billed is booked."""
        if self.over:
            return
        if isinstance(error, GatewayError):
            self.error_code = error.code
        elif isinstance(error, Exception) and not isinstance(error, ClientGone):
            self.error_code = GatewayError.code
        self.apply(self._event_of(error))

    def _event_of(self, error: BaseException) -> Event:
        if self.state is State.RELAYING and not 200 <= self.status < 300:
            return Event.UPSTREAM_REJECTED  # nothing was billed, however its relay ended
        if not isinstance(error, Exception) and DRAINING in error.args:
            return Event.DRAINED
        if isinstance(error, ClientGone) or not isinstance(error, Exception):
            return Event.CLIENT_GONE
        if self.state is State.RELAYING:
            return Event.UPSTREAM_GONE
        if self.state is State.RECEIVED:
            return Event.NEVER_REACHED if isinstance(error, UpstreamFailure) else Event.REFUSED
        if isinstance(error, UpstreamFailure) and not self.maybe_billed:
            return Event.NEVER_REACHED
        if isinstance(error, Refusal) and not self.maybe_billed:
            return Event.REFUSED
        return Event.NO_ANSWER

    @property
    def over(self) -> bool:
        return self.state not in (State.RECEIVED, State.ADMITTED, State.RELAYING)

    def record(self, ended: float) -> ExchangeRecord:
        """What observers read. `ended` is a monotonic instant."""
        # Set aside, or to be set aside: what a policy admitted while the store was away is booked later.
        counted = self.reserved or self.store_degraded
        reserved = self.reservation.amounts.nanousd if self.reservation and counted else 0
        total = self.cost.total_nanousd if self.cost else 0
        return ExchangeRecord(
            id=self.id,
            upstream_request_id=self.upstream_request_id,
            received_at=self.received_at,
            endpoint=self.endpoint,
            method=self.method,
            streaming=self.streaming,
            principal=self.principal,
            route=self.route,
            model=(self.report.model if self.report else None) or self.model,
            state=self.state,
            basis=self.basis,
            status=self.status,
            error_code=self.error_code,
            upstream_error_type=self.report.error_type if self.report else None,
            attempts=self.attempts,
            usage=self.usage,
            cost=self.cost,
            savings=self.savings,
            placement=self.placement,
            placement_applied=self.placement_applied,
            plan_failed=self.plan_failed,
            client_marks=self.client_marks,
            held_tokens=self.hold.tokens,
            estimated_nanousd=self.estimated_nanousd,
            overrun_nanousd=max(0, total - reserved) if self.reservation and counted else 0,
            reservation=self.reservation,
            binding_limit=self.binding_limit,
            shadow_refusals=self.shadow_refusals,
            store_degraded=self.store_degraded,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            report=self.report,
            timings=self._timings(ended),
            tags=self.tags,
            crossed=self.crossed,
        )

    def _timings(self, ended: float) -> Timings:
        ready = self.body_read_at if self.body_read_at is not None else self.started
        return Timings(
            total_seconds=ended - self.started,
            body_read_seconds=ready - self.started,
            overhead_seconds=max(0.0, (self.first_sent_at or ended) - ready - self.hold.seconds),
            held_seconds=self.hold.seconds,
            upstream_first_byte_seconds=_between(self.sent_at, self.head_at),
            first_token_seconds=_between(self.started, self.first_byte_at),
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
