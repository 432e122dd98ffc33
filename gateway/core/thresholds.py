"""Soft thresholds: which shares of a limit its spend has passed. Pure but for what one replica remembers.

Spend is what was settled, not what is set aside, so a warning never comes for an estimate. Only calendar
windows have thresholds: a rate passes its half all the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from gateway.core.bucket import Amounts, Verdict
from gateway.core.limits import Limit

MAX_REMEMBERED: Final = 10_000
"""Buckets whose spend a replica remembers; values of tags come from clients."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """One threshold that was passed."""

    limit: str
    subject: str
    """Whose bucket it is, as in `BoundLimit`."""
    threshold: float


def crossed(limit: Limit, before: int, after: int) -> tuple[float, ...]:
    """The shares of the limit that lie above `before` and not above `after`."""
    return tuple(
        share for share in limit.warn_at if before < ceil(Fraction(str(share)) * limit.amount) <= after
    )


class Thresholds:
    """What one replica knows to be spent in each window: the most that it saw, and what it settled since.

    So each threshold is crossed once per window and replica, also where another replica, a late settlement or
    an overrun led past it. A window that was never seen begins with what a verdict says is spent: a restart
    warns of nothing again.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int]] = {}

    def settled(self, verdicts: Iterable[Verdict], actual: Amounts) -> tuple[Crossing, ...]:
        """The thresholds that an exchange leads past which found `verdicts` and in the end took `actual`."""
        crossings: list[Crossing] = []
        for verdict in verdicts:
            limit = verdict.bound.limit
            if not limit.warn_at or verdict.reset_at is None:
                continue
            window, before = self._known.pop(verdict.bound.bucket_id, (verdict.reset_at, verdict.spent))
            if window < verdict.reset_at:  # a new window
                window, before = verdict.reset_at, verdict.spent
            after = before
            if window == verdict.reset_at:
                after = max(before, verdict.spent) + actual.of(limit.unit)
            if len(self._known) >= MAX_REMEMBERED:
                del self._known[next(iter(self._known))]  # the one settled longest ago
            self._known[verdict.bound.bucket_id] = (window, after)
            crossings += (
                Crossing(limit.id, verdict.bound.subject, share) for share in crossed(limit, before, after)
            )
        return tuple(crossings)
