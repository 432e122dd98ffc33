"""What is under way now, and what has just ended: one short value for a call, open or over; and how the lists
of several processes become one. Pure.

Numbers and names only: nothing of it was written by who sent the call but the name of the model. Who keeps
what has ended is `adapters/live_calls.py`; who asks the other processes, `workers_live.py` and
`replicas_live.py` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.savings import cohort_of

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange, ExchangeRecord
    from gateway.core.placement import Placement

MAX_MODEL: Final = 120
"""Clients write it: the longest that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCall:
    """One call. Of an open one tokens and cost are what is expected; of an ended one what was billed."""

    id: str
    received_at: float
    """Epoch seconds."""
    duration_seconds: float
    """So far, of an open one."""
    open: bool
    organisation: str
    workspace: str
    key_id: str
    key_name: str
    endpoint: str
    model: str
    streaming: bool
    state: str
    status: int
    """0 while the client got nothing."""
    error_code: str | None
    prompt_tokens: int | None
    """All input, read and written tokens included; None where it is not known."""
    read_tokens: int
    write_tokens: int
    output_tokens: int | None
    """None while the call is open: upstream says it at the end."""
    response_bytes: int
    """Sent to the client so far."""
    cost_nanousd: int | None
    """None where nothing was billed, or not yet."""
    set_aside_nanousd: int
    """What may be spent at most, of an open one; what was set aside, of an ended one."""
    cohort: str | None
    """Whose breakpoints it went out with, as in `Cohort`; None for what is no Messages call."""
    breakpoints: int
    """That the gateway added."""
    miss: str | None
    """Why something known could not be read, as in `MissCause`."""
    reason: str
    """Why the breakpoints are where they are, or why there are none."""
    replica: str
    """Which one serves it, or did."""

    @property
    def ended_at(self) -> float:
        """Epoch seconds; now, of an open one."""
        return self.received_at + self.duration_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The calls of one process, or of several."""

    calls: Sequence[LiveCall]
    """Those that are open, the longest first; then those that ended, the last first."""
    whole_since: float = 0.0
    """What ended after this instant is all among them; epoch seconds."""
    left_out: int = 0
    """Open calls that are not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The calls of all replicas that could be asked."""

    told: Told
    replicas: Sequence[str]
    """Whose calls they are; the one that was asked first."""
    silent: Sequence[str] = ()
    """Replicas that are there and did not answer: their calls are missing."""
    shared: bool = False
    """Whether there may be other replicas, which are asked as well."""
    trouble: str = ""
    """Why the others could not be asked; a sentence."""


def merged(parts: Sequence[Told]) -> Told:
    """One list in the order of each of them."""
    calls = [call for each in parts for call in each.calls]
    opened = sorted((call for call in calls if call.open), key=lambda call: -call.duration_seconds)
    ended = sorted((call for call in calls if not call.open), key=lambda call: -call.ended_at)
    return Told(
        calls=[*opened, *ended],
        whole_since=max((each.whole_since for each in parts), default=0.0),
        left_out=sum(each.left_out for each in parts),
    )


def bounded(told: Told, at_most: int) -> Told:
    """So many of its calls: the longest of the open ones in half of the room, or in what the others leave."""
    opened = [call for call in told.calls if call.open]
    ended = [call for call in told.calls if not call.open]
    room = max(at_most // 2, at_most - len(ended))
    kept = ended[: at_most - min(room, len(opened))]
    return Told(
        calls=[*opened[:room], *kept],
        whole_since=told.whole_since if len(kept) == len(ended) else ended[len(kept)].ended_at,
        left_out=told.left_out + max(0, len(opened) - room),
    )


def open_call(exchange: Exchange, now: float, replica: str) -> LiveCall:
    """A call that is under way. `now` is a monotonic instant."""
    placement, principal = exchange.placement, exchange.principal
    return LiveCall(
        id=exchange.id,
        received_at=exchange.received_at,
        duration_seconds=max(0.0, now - exchange.started),
        open=True,
        organisation=principal.organisation if principal else "",
        workspace=principal.workspace if principal else "",
        key_id=principal.key_id if principal else "",
        key_name=principal.key_name if principal else "",
        endpoint=exchange.endpoint,
        model=(exchange.model or "")[:MAX_MODEL],
        streaming=exchange.streaming,
        state=exchange.state,
        status=exchange.status,
        error_code=exchange.error_code,
        prompt_tokens=placement.prompt_tokens or None if placement else None,
        read_tokens=placement.read_tokens if placement else 0,
        write_tokens=placement.write_5m_tokens + placement.write_1h_tokens if placement else 0,
        output_tokens=None,
        response_bytes=exchange.response_bytes,
        cost_nanousd=None,
        set_aside_nanousd=exchange.estimated_nanousd,
        cohort=_cohort(exchange),
        breakpoints=_added(placement, applied=exchange.placement_applied),
        miss=placement.miss.cause if placement and placement.miss else None,
        reason=reason_of(placement),
        replica=replica,
    )


def ended_call(record: ExchangeRecord, replica: str) -> LiveCall:
    """A call that is over."""
    placement, principal, usage = record.placement, record.principal, record.usage
    parts = (usage.iterations or (usage,)) if usage is not None else ()
    return LiveCall(
        id=record.id,
        received_at=record.received_at,
        duration_seconds=record.timings.total_seconds,
        open=False,
        organisation=principal.organisation if principal else "",
        workspace=principal.workspace if principal else "",
        key_id=principal.key_id if principal else "",
        key_name=principal.key_name if principal else "",
        endpoint=record.endpoint,
        model=(record.model or "")[:MAX_MODEL],
        streaming=record.streaming,
        state=record.state,
        status=record.status,
        error_code=record.error_code or record.upstream_error_type,
        prompt_tokens=sum(part.prompt_tokens for part in parts) if parts else None,
        read_tokens=sum(part.cache_read_tokens for part in parts),
        write_tokens=sum(part.cache_write_5m_tokens + part.cache_write_1h_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts) if parts else None,
        response_bytes=record.response_bytes,
        cost_nanousd=record.cost.total_nanousd if record.cost is not None else None,
        set_aside_nanousd=record.estimated_nanousd,
        cohort=_cohort(record),
        breakpoints=_added(placement, applied=record.placement_applied),
        miss=record.savings.miss_cause if record.savings is not None else None,
        reason=reason_of(placement),
        replica=replica,
    )


def reason_of(placement: Placement | None) -> str:
    """One sentence for each breakpoint, or why there is none; and one on the request as a whole."""
    if placement is None:
        return ""
    reasons = (*(point.reason for point in placement.breakpoints), placement.reason)
    # Those of the policy by rule are sentences with a full stop.
    return "; ".join(dict.fromkeys(said for each in reasons if (said := each.rstrip("."))))


def _cohort(call: Exchange | ExchangeRecord) -> str | None:
    cohort = cohort_of(call)
    return None if cohort is None else cohort.value


def _added(placement: Placement | None, *, applied: bool) -> int:
    return len(placement.breakpoints) if placement is not None and applied else 0
