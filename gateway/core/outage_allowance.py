"""What one replica may admit by itself while the store is away: a bounded amount per limit. Pure.

Counted per bucket and window: what is held for exchanges that run, and what those that ended have cost. What
is held stays counted until its exchange ends, even when the outage is over and another one begins. So in one
outage N replicas together admit no more than N times the allowance, by estimates; what exchanges cost beyond
their estimate comes on top, as it does with the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.core.bucket import Amounts, standing_windows
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Mode, OnStoreFailure


@dataclass(slots=True)
class _Used:
    held: int = 0
    spent: int = 0


class OutageAllowance:
    """The allowances of one replica. Nothing here knows whether the store is away: it is asked when it is."""

    def __init__(self) -> None:
        self._used: dict[str, _Used] = {}
        self._held: dict[ReservationId, tuple[tuple[str, BoundLimit, int], ...]] = {}

    def take(
        self, reservation_id: ReservationId, limits: Iterable[BoundLimit], amounts: Amounts, now_ms: int
    ) -> BoundLimit | None:
        """Set aside on all limits with an allowance, or on none; the first that has not enough, or None."""
        wanted = [
            (_bucket(bound, now_ms), bound, amounts.of(bound.limit.unit))
            for bound in limits
            if has_allowance(bound)
        ]
        for bucket, bound, amount in wanted:
            used = self._used.get(bucket, _Used())
            if amount and used.held + used.spent + amount > bound.limit.allowance:
                return bound
        for bucket, _, amount in wanted:
            self._used.setdefault(bucket, _Used()).held += amount
        if wanted:
            self._held[reservation_id] = (*self._held.get(reservation_id, ()), *wanted)
        return None

    def close(self, reservation_id: ReservationId, actual: Amounts) -> None:
        """Put the actual cost in place of what is held; at `Amounts()` it is all given back."""
        for bucket, bound, amount in self._held.pop(reservation_id, ()):
            used = self._used.setdefault(bucket, _Used())  # an outage that is over forgets who holds 0 of it
            used.held -= amount
            used.spent += actual.of(bound.limit.unit)

    def over(self) -> None:
        """The store is back and knows what was spent: the next outage begins anew."""
        for bucket, used in list(self._used.items()):
            used.spent = 0
            if not used.held:
                del self._used[bucket]

    def used(self) -> dict[str, int]:
        """What is held and spent now, by limit id."""
        by_limit: dict[str, int] = {}
        for bucket, used in self._used.items():
            limit = bucket.partition(" ")[0]
            by_limit[limit] = by_limit.get(limit, 0) + used.held + used.spent
        return by_limit


def has_allowance(bound: BoundLimit) -> bool:
    """Whether an outage is to be measured against the limit."""
    limit = bound.limit
    return limit.on_store_failure is OnStoreFailure.ALLOWANCE and limit.mode is Mode.ENFORCE


def _bucket(bound: BoundLimit, now_ms: int) -> str:
    windows = standing_windows(bound.limit, now_ms)
    return f"{bound.limit.id} {bound.bucket_id}/{windows[1].label if windows else ''}"
