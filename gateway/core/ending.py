"""Whether a refusal is only due to calls that are over already: a call keeps its place, and what was set
aside for it, until the ledger has its entry, some milliseconds after the client has the answer's last byte.
A client that sends one call after the other must not be refused for that. Pure; who waits is `reserving.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.limits import Mode, Unit


def in_the_way(decision: Decision, needed: Amounts, ended: Iterable[Reservation]) -> tuple[Reservation, ...]:
    """Those of `ended` to wait for: calls that are over and not settled yet, where what was refused would fit
    if they gave back all that they hold. Empty where that could not help, as ever with limits of requests.
    How much they do give back is not known before they are settled: the answer may be no once more."""
    refusing = [v for v in decision.verdicts if not v.allowed and v.bound.limit.mode is Mode.ENFORCE]
    if decision.allowed or not refusing:
        return ()
    found: dict[str, Reservation] = {}
    for verdict in refusing:
        limit = verdict.bound.limit
        if limit.unit is Unit.REQUESTS:
            return ()
        held = [each for each in ended if _holds(each, verdict)]
        if _left(verdict) + sum(each.amounts.of(limit.unit) for each in held) < needed.of(limit.unit):
            return ()
        found.update((each.id, each) for each in held)
    return tuple(found.values())


def _holds(reservation: Reservation, verdict: Verdict) -> bool:
    return any(bound.bucket_id == verdict.bound.bucket_id for bound in reservation.limits)


def _left(verdict: Verdict) -> int:
    """Below zero after an overrun; a refilled bucket's verdict does not show how far."""
    limit = verdict.bound.limit
    if limit.period.is_rate:
        return verdict.remaining
    return limit.capacity - verdict.spent - verdict.set_aside
