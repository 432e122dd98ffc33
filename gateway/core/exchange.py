"""The life of one exchange: a table of states and events, and the record that observers read.

The table decides what becomes of the reservation; the pipeline only reports events. ARCHITECTURE.md's
diagram is generated from it. Nothing here knows HTTP, stores or clocks: instants come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.bucket import Reservation
    from gateway.core.placement import Placement
    from gateway.core.pricing import Cost
    from gateway.core.principal import Principal
    from gateway.core.usage import Report, Usage


class State(StrEnum):
    RECEIVED = "received"
    ADMITTED = "admitted"
    RELAYING = "relaying"
    REFUSED = "refused"
    ANSWERED = "answered"
    FAILED = "failed"
    CUT_BY_CLIENT = "cut_by_client"
    CUT_BY_UPSTREAM = "cut_by_upstream"


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


class Closing(StrEnum):
    """What becomes of the reservation."""

    NONE = "none"
    OPEN = "open"
    RELEASE = "release"
    SETTLE = "settle"


class Basis(StrEnum):
    """How the usage of a ledger entry is known. Guessed numbers stay recognisable for ever."""

    REPORTED = "reported"
    PARTIAL = "partial"
    ESTIMATED = "estimated"
    NONE = "none"
    """Nothing was billed: refused here, rejected by upstream, never sent."""


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
    (State.ADMITTED, Event.UPSTREAM_REJECTED): Step(State.ANSWERED, Closing.RELEASE, Basis.NONE),
    (State.ADMITTED, Event.NEVER_REACHED): Step(State.FAILED, Closing.RELEASE, Basis.NONE),
    (State.ADMITTED, Event.NO_ANSWER): Step(State.FAILED, Closing.SETTLE, Basis.ESTIMATED),
    (State.ADMITTED, Event.CLIENT_GONE): Step(State.CUT_BY_CLIENT, Closing.SETTLE, Basis.ESTIMATED),
    (State.ADMITTED, Event.RESPONSE_BEGAN): Step(State.RELAYING, Closing.OPEN, Basis.NONE),
    (State.RELAYING, Event.RESPONSE_ENDED): Step(State.ANSWERED, Closing.SETTLE, Basis.REPORTED),
    (State.RELAYING, Event.UPSTREAM_REJECTED): Step(State.ANSWERED, Closing.RELEASE, Basis.NONE),
    (State.RELAYING, Event.CLIENT_GONE): Step(State.CUT_BY_CLIENT, Closing.SETTLE, Basis.PARTIAL),
    (State.RELAYING, Event.UPSTREAM_GONE): Step(State.CUT_BY_UPSTREAM, Closing.SETTLE, Basis.PARTIAL),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds. Upstream's time and ours apart; None where the exchange did not get that far."""

    total_seconds: float
    body_read_seconds: float = 0.0
    """Waiting for the client to send its request; nobody's overhead."""
    overhead_seconds: float = 0.0
    """Spent in the gateway between the request's last byte and sending it upstream."""
    upstream_first_byte_seconds: float | None = None
    """From sending upstream to the response's head."""
    first_token_seconds: float | None = None
    """From the request's arrival to the first body byte relayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
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
    placement: Placement | None
    plan_failed: bool
    client_marks: int
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
    tags: tuple[tuple[str, str], ...] = field(default=())
