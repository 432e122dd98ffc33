"""How much a gateway holds over time, and whether that grows. No IO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """At `at` seconds after the start."""

    at: float
    resident_bytes: float
    descriptors: float
    threads: float
    tasks: float
    exchanges: float
    reservations: float
    cpu_seconds: float
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How much a figure may grow over the measured part of a run, as a line fitted to it says: the larger of
    `least` and `share` of its mean."""

    figure: str
    least: float
    share: float

    def allows(self, samples: Sequence[Sample]) -> float:
        values = [getattr(sample, self.figure) for sample in samples]
        return max(self.least, self.share * float(sum(values)) / len(values))


BOUNDS = (
    Bound(figure="resident_bytes", least=8 * MIB, share=0.05),
    Bound(figure="descriptors", least=10, share=0.10),
    Bound(figure="threads", least=2, share=0.0),
    Bound(figure="tasks", least=10, share=0.10),
    Bound(figure="exchanges", least=6, share=0.20),
    Bound(figure="reservations", least=6, share=0.20),
)
"""A leak of one thing in a thousand calls exceeds them after ten thousand calls. What is held for each client
that is connected goes up and down with chance by about what they allow."""


def growth(samples: Sequence[Sample], figure: str) -> float:
    """What a line fitted by least squares says that the figure grew by, from the first sample to the last."""
    count = len(samples)
    mean_at = sum(sample.at for sample in samples) / count
    mean = sum(getattr(sample, figure) for sample in samples) / count
    square = sum((sample.at - mean_at) ** 2 for sample in samples)
    if not square:
        return 0.0
    product = sum((sample.at - mean_at) * (getattr(sample, figure) - mean) for sample in samples)
    return float(product / square * (samples[-1].at - samples[0].at))


def measured(samples: Sequence[Sample], warm_up_seconds: float) -> list[Sample]:
    """Those after the warm-up."""
    return [sample for sample in samples if sample.at >= warm_up_seconds]
