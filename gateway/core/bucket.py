"""Arithmetic of one bucket: refill, reserve, settle, release. Pure integers; the stores keep the state."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """So much of each unit."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanousd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What is set aside for one exchange. Its id is ours and known before the store is asked, so that it
    can be closed whatever became of the asking."""

    id: ReservationId
    limits: tuple[BoundLimit, ...]
    amounts: Amounts
    lease_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one limit answered."""

    bound: BoundLimit
    allowed: bool
    remaining: int
    """What is left for others after this reservation, never below zero in display."""
    retry_after_seconds: float | None
    """Shortest wait after which the same request could pass; None where waiting cannot help."""
    reset_at: float | None
    """When the bucket is full again, or its window ends; epoch seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for all limits of a reservation at once. Nothing is held where `allowed` is False.

    `binding` is the strictest verdict: of a refusal, the one that bound. `shadow_refusals` names limits in
    shadow mode that would have refused."""

    allowed: bool
    binding: Verdict | None
    verdicts: tuple[Verdict, ...] = ()
    shadow_refusals: tuple[str, ...] = ()
    degraded: bool = False
    """True where a policy decided because the store could not."""
