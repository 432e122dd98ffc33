"""What the books are told of a batch that has ended: one record per share of it. Pure.

Its creation has a record of its own, which cost nothing. A share's record belongs to the day on which the
batch was created, as its reservation does, and lasts until the batch ended, so that a reconciliation knows
that upstream may have billed it on a later day.
"""

from __future__ import annotations

from gateway.core.batch import KeptBatch, Settled
from gateway.core.batch_shares import Share
from gateway.core.bucket import Reservation
from gateway.core.endpoints import Endpoint
from gateway.core.exchange import ExchangeRecord, State, Timings
from gateway.core.ids import ReservationId

ITEMS_TAG = "batch_items"
"""A tag of each entry: how many items it is for."""


def batch_records(batch: KeptBatch, settled: Settled) -> tuple[ExchangeRecord, ...]:
    """One per share, under ids that are always the same. `upstream_request_id` is the batch's id."""
    presumed = sum(share.cost.total_nanousd for share in batch.presumed)
    cost = sum(share.cost.total_nanousd for share in settled.shares)
    return tuple(
        _record(
            batch,
            settled,
            share,
            number,
            # Of the batch as a whole: said once.
            presumed_nanousd=0 if number else presumed,
            overrun_nanousd=0 if number or batch.reservation_id is None else max(0, cost - presumed),
        )
        for number, share in enumerate(settled.shares)
    )


def _record(
    batch: KeptBatch,
    settled: Settled,
    share: Share,
    number: int,
    *,
    presumed_nanousd: int,
    overrun_nanousd: int,
) -> ExchangeRecord:
    reservation = None
    if batch.reservation_id is not None and not number:
        reservation = Reservation(
            id=ReservationId(batch.reservation_id),
            limits=(),
            amounts=batch.presumed_amounts,
            lease_seconds=0.0,
        )
    return ExchangeRecord(
        id=f"{batch.exchange_id}-{number}",
        upstream_request_id=batch.id,
        received_at=batch.created_at,
        endpoint=Endpoint.BATCHES,
        method="POST",
        streaming=False,
        principal=batch.principal,
        route=batch.route,
        model=share.model,
        state=State.ANSWERED,
        basis=settled.basis,
        status=200,
        error_code=None,
        upstream_error_type=None,
        attempts=0,
        usage=share.usage,
        cost=share.cost,
        savings=None,
        placement=None,
        placement_applied=False,
        plan_failed=False,
        client_marks=0,
        held_tokens=0,
        estimated_nanousd=presumed_nanousd,
        overrun_nanousd=overrun_nanousd,
        reservation=reservation,
        binding_limit=None,
        shadow_refusals=(),
        store_degraded=False,
        request_bytes=0,
        response_bytes=0,
        report=None,
        timings=Timings(total_seconds=max(0.0, settled.ended_at - batch.created_at)),
        tags=((ITEMS_TAG, str(share.items)), *batch.tags),
    )
