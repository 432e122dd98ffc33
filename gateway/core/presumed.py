"""What the ledger is told of an exchange whose replica died, and how a replica that is back finds what it had
not settled. Pure.

The store closes a reservation whose lease ended at what it had set aside, and takes that back if a
settlement comes late. Both are entries of their own (`<id>:presumed`, `<id>:corrected`), beside the
exchange's, if there is one: so ledger and counters come to the same sum, and no entry is ever changed.

A replica that is started again books what it had under way as the exchange's own entry, which is settled
like any other: the store may have forgotten it, may hold it still, or may have presumed it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.bucket import Amounts, Payer, Presumed, Reservation
from gateway.core.exchange import Basis, ExchangeRecord, State, Timings
from gateway.core.ids import KeyId, ReservationId, WorkspaceId, exchange_of
from gateway.core.limits import BoundLimit
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """An exchange that has ended and whose reservation may still be open. `amounts` are what it cost; where
    its process died, what was set aside for it."""

    reservation_id: ReservationId
    amounts: Amounts
    payer: Payer
    ended_at: float
    """Epoch seconds."""
    degraded: bool
    """Whether it was admitted while the store was away."""

    def reservation(self, limits: tuple[BoundLimit, ...]) -> Reservation:
        """What it cost, as a reservation on the limits that bind its payer."""
        return Reservation(
            id=self.reservation_id, limits=limits, amounts=self.amounts, lease_seconds=0.0, payer=self.payer
        )


def presumed_record(presumed: Presumed) -> ExchangeRecord:
    """The record of one change that the store made by itself. Its tokens are unknown; the money stands with
    the output, which is most of an estimate."""
    return _record(
        presumed.id, presumed.reservation_id, presumed.payer, presumed.nanousd, basis=Basis.PRESUMED
    )


def lost_record(lost: Unsettled) -> ExchangeRecord:
    """The record of an exchange whose process died: what had been set aside, as for any call that was
    admitted and got no answer. Its tokens are those that limits count."""
    amounts = lost.amounts
    record = _record(
        exchange_of(lost.reservation_id),
        lost.reservation_id,
        lost.payer,
        amounts.nanousd,
        basis=Basis.ESTIMATED,
    )
    return replace(
        record,
        usage=Usage(
            uncached_input_tokens=amounts.input_tokens,
            cache_read_tokens=max(amounts.prompt_tokens - amounts.input_tokens, 0),
            output_tokens=amounts.output_tokens,
        ),
        store_degraded=lost.degraded,
        timings=Timings(total_seconds=max(lost.ended_at - record.received_at, 0.0)),
    )


def _record(
    record_id: str, reservation_id: ReservationId, payer: Payer, nanousd: int, *, basis: Basis
) -> ExchangeRecord:
    return ExchangeRecord(
        id=record_id,
        upstream_request_id=None,
        received_at=payer.received_at_ms / 1000,
        endpoint=payer.endpoint,
        method="POST",
        streaming=False,
        principal=Principal(
            workspace=WorkspaceId(payer.workspace),
            key_id=KeyId(payer.key_id),
            key_name="",
            organisation=payer.organisation,
        ),
        route=payer.route or None,
        model=payer.model or None,
        state=State.LOST,
        basis=basis,
        status=0,
        error_code=None,
        upstream_error_type=None,
        attempts=0,
        usage=None,
        cost=Cost(output_nanousd=nanousd, counterfactual_nanousd=nanousd),
        savings=None,
        placement=None,
        placement_applied=False,
        plan_failed=False,
        client_marks=0,
        held_tokens=0,
        estimated_nanousd=nanousd,
        overrun_nanousd=0,
        reservation=Reservation(
            id=reservation_id, limits=(), amounts=Amounts(), lease_seconds=0.0, payer=payer
        ),
        binding_limit=None,
        shadow_refusals=(),
        store_degraded=False,
        request_bytes=0,
        response_bytes=0,
        report=None,
        timings=Timings(total_seconds=0.0),
        tags=payer.tags,
    )
