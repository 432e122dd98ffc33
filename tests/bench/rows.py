"""The rows of the bench: what each measures of one target, and taking turns over targets and rounds.

What was measured is kept as it comes, and said as it comes. A cell that fails is noted and the others go on:
half an hour of figures is not lost for one of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.bench.loads import Bench, Target
from tests.bench.steady import Pace

Results = dict[str, dict[str, float]]
"""By row, then by target."""

P99_ADDED = "at half load, µs added to p99"
EVENT = "event, µs CPU"
LARGE = "large, µs CPU a request"
LARGE_NEW = "large, nothing shared, µs CPU a request"
AGENT = "agent, µs CPU a request"
STALL = "stall by 2 MB bodies, one at a time, µs max"
OWN_STALL = "..., of which the target computed, µs max"
A_STREAM = "memory a stream, kB"
MORE_LATER = "memory a stream, kB more a minute on"

PLAIN = ("nginx", "transport")
"""Targets that only pass on: of these no memory over time."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    take: Callable[[Target], Mapping[str, float]]
    """The figures of this target, by the row of the table that they stand in."""
    once: bool = False
    """Not to be measured again where the core was slow: memory does not care."""


@dataclass(slots=True)
class Book:
    """All that was measured. `say` prints, without a line end of its own."""

    say: Callable[[str], None]
    pace: Pace
    began: float = field(default_factory=time.monotonic)
    values: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """By row and target: figures, each with what the fixed piece of Python took beside it, milliseconds."""
    failed: list[str] = field(default_factory=list)

    def turn(
        self, rows: Sequence[Row], targets: Sequence[Target], title: str, noted: Callable[[], None]
    ) -> None:
        """Each row, of each target in turn: a noisy minute spoils none alone. `noted` after each row."""
        for row in rows:
            self.say(f"[{time.monotonic() - self.began:5.0f} s] {title} {row.name}:")
            for target in targets:
                self._take(row, target)
            self.say("\n")
            noted()

    def medians(self) -> Results:
        return {
            metric: {name: statistics.median(self.pace.worth_counting(cells)) for name, cells in row.items()}
            for metric, row in self.values.items()
        }

    def spreads(self) -> Results:
        """Half of what lies between the least and the greatest, as a share of the median."""
        return {
            metric: {
                name: (max(values) - min(values)) / 2 / abs(statistics.median(values))
                for name, cells in row.items()
                if len(values := self.pace.worth_counting(cells)) > 1 and statistics.median(values)
            }
            for metric, row in self.values.items()
        }

    def slow(self) -> list[str]:
        """The cells for which the core was never quick."""
        return [
            f"{metric}, {name}"
            for metric, row in self.values.items()
            for name, cells in row.items()
            if all(self.pace.slow(piece_ms) for _, piece_ms in cells)
        ]

    def _take(self, row: Row, target: Target) -> None:
        began = time.monotonic()
        try:
            cells = self.pace.cells(lambda: row.take(target), once=row.once)
        except RuntimeError as error:
            self.failed.append(f"{row.name}, {target.name}: {error}")
            self.say(f"  {target.name} FAILED: {str(error)[:700]}\n   ")
            return
        said = []
        for cell in cells:
            for metric, value in cell.figures.items():
                kept = self.values.setdefault(metric, {}).setdefault(target.name, [])
                kept.append((value, cell.piece_ms))
            slow = " while slow" if self.pace.slow(cell.piece_ms) else ""
            said.append(" / ".join(figure(value) for value in cell.figures.values()) + slow)
        self.say(f"  {target.name} {', again '.join(said)} ({time.monotonic() - began:.1f} s)")


def figure(value: float) -> str:
    """With three digits or so."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def warming(bench: Bench) -> Row:
    """No figure: what runs for the first time costs more."""

    def warm(target: Target) -> dict[str, float]:
        count = bench.sizes.agent // 4
        for load in bench.sizes.workloads[:4]:
            bench.run(target, replace(load, requests=count))
        return {}

    return Row("warming up", warm, once=True)


def memory_rows(bench: Bench) -> tuple[Row, ...]:
    """Once, first: later rounds only keep what these leave."""
    sizes = bench.sizes
    fewer = sizes.streams // 4

    def filled(target: Target) -> dict[str, float]:
        return {"memory, bodies kept, MB": bench.fill(target) / 1e6}

    def of_streams(target: Target) -> dict[str, float]:
        plain = target.name in PLAIN
        small = bench.held(target, fewer, 0.5)
        large = bench.held(
            target, sizes.streams, min(5.0, sizes.flat_seconds) if plain else sizes.flat_seconds
        )
        each = (large.first_bytes - small.first_bytes) / (sizes.streams - fewer) / 1e3
        found = {A_STREAM: each}
        if not plain:
            found[MORE_LATER] = large.grown_bytes / sizes.streams / 1e3
        found["event of many streams, µs CPU"] = large.event_us
        found["event of many streams, µs lag p99"] = large.lag_us
        return found

    return Row("memory", filled, once=True), Row("many streams", of_streams, once=True)


def cost_rows(bench: Bench, names: Sequence[str] = ()) -> tuple[Row, ...]:
    """CPU of a request, for the workloads of these names; for all where there are none."""

    def row(index: int) -> Row:
        load = bench.sizes.workloads[index]

        def cost(target: Target) -> dict[str, float]:
            times = 3 if target.name in PLAIN else 1  # so cheap that a short run says little
            asked = replace(load, requests=times * load.requests)
            return {f"{load.name}, {load.unit}": bench.request_cost(target, asked)}

        return Row(load.name, cost)

    return tuple(
        row(index) for index, load in enumerate(bench.sizes.workloads) if not names or load.name in names
    )


def event_row(bench: Bench) -> Row:
    def cost(target: Target) -> dict[str, float]:
        cost, lag = bench.event_cost(target)
        return {EVENT: cost, "event, µs lag p99": lag}

    return Row("event", cost)


def latency_rows(bench: Bench, direct: Target) -> tuple[Row, ...]:
    """`direct` is the mock, without a proxy."""
    seconds = bench.sizes.steady_seconds

    def alone(target: Target) -> dict[str, float]:
        added = bench.latency_alone(target) - bench.latency_alone(direct)
        return {"agent, µs added to p50": added}

    def half(target: Target) -> dict[str, float]:
        rate = bench.half_of_full(target)
        with_it = bench.latency_at(target, rate, seconds)
        return {
            P99_ADDED: with_it - bench.latency_at(direct, rate, seconds / 2),
            "half of what it carries, requests/s": rate,
        }

    def stall(target: Target) -> dict[str, float]:
        found = bench.stall(target, 1)
        p99 = "stall by 2 MB bodies, one at a time, µs p99"
        return {STALL: found.longest_us, OWN_STALL: found.own_us, p99: found.p99_us}

    def stall_by_many(target: Target) -> dict[str, float]:
        found = bench.stall(target, 8)
        longest, own = "stall by 2 MB bodies, 8 at a time, µs max", "..., 8 at a time, own, µs max"
        return {longest: found.longest_us, own: found.own_us, "..., 8 at a time, µs p99": found.p99_us}

    return (
        Row("agent, added to p50", alone),
        Row("half load", half),
        Row("stall, one at a time", stall),
        Row("stall, 8 at a time", stall_by_many),
    )
