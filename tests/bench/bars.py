"""What the gateway is to cost at most, everything on, in one process: bars that a run is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.rows import A_STREAM, AGENT, EVENT, LARGE, LARGE_NEW, MORE_LATER, OWN_STALL, P99_ADDED, STALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    what: str
    row: str
    most: float
    scale: float = 1.0
    """From the row's unit to the bar's."""
    beside: str = ""
    """The target of which it is a multiple."""


BARS = (
    Bar(what="agent's request, ms CPU", row=AGENT, most=1.0, scale=1e-3),
    Bar(what="streamed event, × nginx", row=EVENT, most=1.5, beside="nginx"),
    Bar(what="body of 2 MB, ms CPU", row=LARGE, most=12.0, scale=1e-3),
    Bar(what="..., new, ms CPU", row=LARGE_NEW, most=12.0, scale=1e-3),
    Bar(what="longest stall by a body of 2 MB, ms", row=STALL, most=5.0, scale=1e-3),
    Bar(what="..., of which it computed, ms", row=OWN_STALL, most=5.0, scale=1e-3),
    Bar(what="memory a stream, kB", row=A_STREAM, most=24.0),
    Bar(what="memory a stream, kB more a minute on", row=MORE_LATER, most=1.0),
    Bar(what="added to p99 at half load, ms", row=P99_ADDED, most=4.0, scale=1e-3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    bar: str
    most: float
    target: str
    found: float

    @property
    def met(self) -> bool:
        return self.found <= self.most


def hold(results: Mapping[str, Mapping[str, float]], targets: Sequence[str]) -> list[Outcome]:
    """Each bar against each of the targets, where both it and what it is a multiple of were measured."""
    return [
        Outcome(bar=bar.what, most=bar.most, target=target, found=found * bar.scale)
        for bar in BARS
        for target in targets
        if (found := _found(results.get(bar.row, {}), target, bar.beside)) is not None
    ]


def _found(row: Mapping[str, float], target: str, beside: str) -> float | None:
    if target not in row or (beside and row.get(beside, 0.0) <= 0):
        return None
    return row[target] / row[beside] if beside else row[target]
