"""How quick a core is just now, so that figures can be taken from when it was.

A core of a virtual machine is often half of one: what another guest does beside it makes the same Python
cost nearly twice the CPU time, for seconds or minutes, while nginx, which waits for the kernel more than it
computes, hardly notices. So a fixed piece of Python runs on the target's core before and after each cell; a
cell that began or ended in a slow while is measured again, and slow ones count only where there is no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from tests.bench.processes import on_cores

AS_QUICK = 1.25
"""Times the least that the piece took: more is a slow while. Between quick and slow lies a factor of 1.6."""


@dataclass(frozen=True, slots=True)
class Cell:
    figures: Mapping[str, float]
    piece_ms: float
    """What the piece took, the worse of before and after."""


class Pace:
    """Of the cores that targets run on; None: of wherever this process runs. `patience_seconds` is what may
    go, all in all, into measuring again."""

    def __init__(
        self,
        cores: frozenset[int] | None,
        patience_seconds: float,
        *,
        tries: int = 4,
        wait_seconds: float = 1.0,
        piece_ms: Callable[[], float] | None = None,
    ) -> None:
        self._cores = cores
        self._patience_seconds = patience_seconds
        self._tries = tries
        self._wait_seconds = wait_seconds
        self._piece_ms = piece_ms or python_ms
        self.least_ms = inf
        self._now_ms()

    def slow(self, piece_ms: float) -> bool:
        return piece_ms > AS_QUICK * self.least_ms

    def cells(self, take: Callable[[], Mapping[str, float]], *, once: bool = False) -> list[Cell]:
        """What `take` returned each time: until the core was quick, or patience or tries are at an end.
        Passes on what it raises."""
        taken: list[Cell] = []
        while len(taken) < self._tries and (not taken or self._patience_seconds > 0):
            began = time.monotonic()
            if taken:
                time.sleep(self._wait_seconds)
            before = self._now_ms()
            figures = take()
            cell = Cell(figures, max(before, self._now_ms()))
            if taken:
                self._patience_seconds -= time.monotonic() - began
            taken.append(cell)
            if once or not self.slow(cell.piece_ms):
                break
        return taken

    def worth_counting(self, values: Sequence[tuple[float, float]]) -> list[float]:
        """Of figures and what the piece took beside each: those of quick whiles, or all where there are
        none."""
        return [value for value, piece_ms in values if not self.slow(piece_ms)] or [
            value for value, _ in values
        ]

    def _now_ms(self) -> float:
        with on_cores(self._cores):
            now = self._piece_ms()
        self.least_ms = min(self.least_ms, now)
        return now


def python_ms() -> float:
    """CPU of a fixed piece of Python that computes nothing of use, at best of five. One version differs by a
    quarter or more between builds: what profiles and link time have optimised, as distributions and the
    official images do, and what `./configure && make` gives."""
    return min(_once_ms() for _ in range(5))


def _once_ms() -> float:
    began = time.process_time()
    total = 0
    for number in range(50_000):
        kept = {"next": [number + 1]}
        total += _doubled(kept["next"][-1]) - int(number > total)
    return (time.process_time() - began) * 1000


def _doubled(number: int) -> int:
    return number + number
