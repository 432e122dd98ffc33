"""Hourly sums of a ledger: what they are split by, which of them are asked for, and how they stand. Pure.

They say the same as the ledger does (`ledger.Total`, `ledger.Loss`), of whole hours, without tags and single
exchanges, and so in a moment where the ledger takes seconds. Keeping them is `adapters/ledger_rollup.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.ledger import Dimension, Loss, Total

HOUR_MS = 3_600_000

KEPT = (
    Dimension.ORGANISATION,
    Dimension.WORKSPACE,
    Dimension.KEY,
    Dimension.MODEL,
    Dimension.ENDPOINT,
    Dimension.COHORT,
)
"""What is kept apart. A team is that of its workspace; days and months follow from the hour."""

Only = Mapping[Dimension, str]
"""Sums of these values alone, by dimensions of `KEPT`; "-" for what has none. Empty: of all."""

EVERYTHING: Only = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupState:
    """How far the sums are along."""

    as_of: float | None = None
    """Epoch seconds: all that was in the ledger then is in the sums. None before they were first complete."""
    entries: int = 0
    """In the sums."""
    waiting: int = 0
    """In the ledger and not in the sums, as far as was seen last."""
    pruned_months: frozenset[str] = field(default_factory=frozenset)
    """Such as "2025-11": months of which the ledger has fewer entries than the sums have, because they were
    pruned there. What they summed to is kept."""
    trouble: str = ""
    """Why the sums could not be brought up to date; empty where they could."""

    @property
    def complete(self) -> bool:
        return self.as_of is not None


class SpendBook(Protocol):
    """Answers from the sums. Spans are epoch milliseconds of whole hours, the end exclusive; rows come
    dearest first. Blocks for some milliseconds to some tenths of a second, and belongs in a thread; safe for
    several threads. Raises `ConfigError` where the sums cannot be read."""

    def totals(
        self, by: Sequence[Dimension], start_ms: int, end_ms: int, only: Only = EVERYTHING
    ) -> tuple[Total, ...]: ...

    def losses(
        self, by: Sequence[Dimension], start_ms: int, end_ms: int, only: Only = EVERYTHING
    ) -> tuple[Loss, ...]: ...

    def state(self) -> RollupState: ...
