"""What a finished exchange used and cost, and on what basis that is known. Pure.

Reported usage where there is any; else what a cut answer had reported, with a floor for its output; else
what was estimated, and no less than it may have come to since. A rejected or refused call costs nothing.
"""

from __future__ import annotations

import dataclasses

import msgspec
from msgspec.structs import replace

from gateway.core.bucket import Amounts, Reservation
from gateway.core.estimate import Estimate, presumed_usage
from gateway.core.exchange import Basis, Closing
from gateway.core.ids import ReservationId
from gateway.core.limits import Mode
from gateway.core.models import ModelFacts
from gateway.core.pricing import Cost, PriceTable
from gateway.core.usage import Report, Usage

ONE_REQUEST = Amounts(requests=1)


# A msgspec.Struct, since it is made for each call: a frozen dataclass takes ten times as long to make.
class Settlement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    usage: Usage | None
    cost: Cost | None
    amounts: Amounts
    basis: Basis


def settle_exchange(
    *,
    closing: Closing,
    basis: Basis,
    report: Report | None,
    estimate: Estimate | None,
    facts: ModelFacts | None,
    model: str | None,
    prices: PriceTable,
    at: float,
    seconds: float,
) -> Settlement:
    """`estimate` and `facts` are None for calls that are counted by request only; `seconds` have passed since
    the call was sent."""
    if closing is not Closing.SETTLE or (report is not None and _failed_at_once(report)):
        amounts = ONE_REQUEST if closing.counts else Amounts()
        return Settlement(usage=None, cost=None, amounts=amounts, basis=Basis.NONE)
    if estimate is None or facts is None or model is None:
        return Settlement(usage=None, cost=None, amounts=ONE_REQUEST, basis=Basis.UNMETERED)
    if report is None or report.usage is None or report.message_id is None:
        basis = Basis.ESTIMATED  # also where only the end of a stream could be read: its input is unknown
    elif basis is Basis.REPORTED and (not report.complete or report.parse_errors):
        basis = Basis.PARTIAL
    usage = (
        report.usage
        if basis is Basis.REPORTED and report is not None
        else presumed_usage(report if basis is Basis.PARTIAL else None, estimate, facts, seconds)
    )
    assert usage is not None
    cost = prices.cost(usage, model=model, at=at, report=report)
    billed = usage.iterations or (usage,)
    amounts = Amounts(
        requests=1,
        input_tokens=sum(part.prompt_tokens - part.cache_read_tokens for part in billed),
        prompt_tokens=sum(part.prompt_tokens for part in billed),
        output_tokens=sum(part.output_tokens for part in billed),
        nanousd=cost.total_nanousd,
    )
    return Settlement(usage=usage, cost=cost, amounts=amounts, basis=basis)


def _failed_at_once(report: Report) -> bool:
    """Whether an error is all that the answer was, with a status of 200: an overloaded upstream says so in a
    stream's first event, too. Nothing was reported, so that it counts like an error with its own status."""
    said = report.usage or report.message_id or report.has_content or report.parse_errors
    return report.error_type is not None and not said


_LATE = "-late"


def late_id(reservation_id: ReservationId) -> ReservationId:
    """The id under which is booked afterwards what could not be booked under this one."""
    return ReservationId(f"{reservation_id.removesuffix(_LATE)}{_LATE}")


def is_late(reservation_id: ReservationId) -> bool:
    """Whether something was booked afterwards under this id."""
    return reservation_id.endswith(_LATE)


def afterwards(reservation: Reservation, actual: Amounts) -> Reservation:
    """The reservation of a call that went on although the store could not be asked, to be made once it can:
    the money is spent, so no limit may refuse it, and all of them must count it.

    Under an id of its own: the store may have answered the first one, and only its answer was lost. A
    refusal would then be given again, and nothing counted. It counts in the windows of its call's arrival."""
    limits = tuple(
        dataclasses.replace(bound, limit=dataclasses.replace(bound.limit, mode=Mode.SHADOW))
        for bound in reservation.limits
    )
    return replace(
        reservation,
        id=late_id(reservation.id),
        limits=limits,
        amounts=actual,
        at_ms=reservation.payer.received_at_ms,
    )
