"""How likely a prefix is to be read again, and after what pause: learned from pauses seen, nothing else.

Every watched access is an observation that ends with the next access of the same prefix, or goes on without
one. Each context that the observation belongs to (everyone, this workspace, this application, ...) counts
per age how many observations reached it and how many ended there, which is a hazard; those still open count
as far as they came, so that nothing has to end before it teaches. A chance is the hazard of the most special
context, drawn towards that of the next more general one as long as it has seen little.

Contexts are hashed into a table of fixed size. Two that collide teach each other nonsense, which costs money
and nothing else.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

AGES_SECONDS = (15.0, 45.0, 120.0, 300.0, 900.0, 3600.0, 7200.0)
"""Upper ends of the ages at which hazards are counted."""
AGES = len(AGES_SECONDS)
WITHIN_5M = 4
WITHIN_1H = 6
CONTEXTS = 1 << 14
BYTES = CONTEXTS * AGES * 4 * 2
MAX_OPEN = 1 << 16
"""Observations open at once; beyond half of it only every eighth prefix is watched."""
MAX_WEIGHT = 400.0
"""A context that has counted this many observations forgets half of them."""
DRAW = 6.0
"""Observations that the more general context weighs."""

Contexts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chances:
    """Of the next access: within 5 min, between 5 min and 1 h, between 1 h and 2 h."""

    five: float
    hour: float
    later: float

    @property
    def within_hour(self) -> float:
        return self.five + self.hour


class Reuse:
    __slots__ = ("_ended", "_open", "_queues", "_reached")

    def __init__(self) -> None:
        self._ended = array("f", bytes(4 * CONTEXTS * AGES))
        self._reached = array("f", bytes(4 * CONTEXTS * AGES))
        self._open: dict[int, tuple[float, Contexts]] = {}
        self._queues: tuple[deque[tuple[float, int, Contexts]], ...] = tuple(deque() for _ in range(AGES))

    def watch(self, key: int, contexts: Contexts, now: float) -> None:
        """Begin an observation of `key`; an open one of the same key must have been ended."""
        if len(self._open) >= MAX_OPEN // 2 and (key & 7 or len(self._open) >= MAX_OPEN):
            return
        self._open[key] = (now, contexts)
        self._queues[0].append((now, key, contexts))

    def accessed(self, key: int, now: float) -> None:
        """`key` was accessed: its observation, where there is one, ends."""
        found = self._open.pop(key, None)
        if found is None:
            return
        began, contexts = found
        age = now - began
        for index, upper in enumerate(AGES_SECONDS):
            if age <= upper:
                self._count(contexts, index, 1.0)
                return

    def advance(self, now: float) -> None:
        """Let open observations grow older. To be called before anything else happens at `now`."""
        opened = self._open
        for index, queue in enumerate(self._queues):
            before = now - AGES_SECONDS[index]
            while queue and queue[0][0] < before:
                began, key, contexts = queue.popleft()
                found = opened.get(key)
                if found is None or found[0] != began or found[1] is not contexts:
                    continue
                self._count(contexts, index, 0.0)
                if index + 1 < AGES:
                    self._queues[index + 1].append((began, key, contexts))
                else:
                    del opened[key]

    def chances(self, contexts: Contexts, prior: Sequence[float], idle: float = 0.0) -> Chances:
        """What to expect of a prefix last accessed `idle` seconds ago. `prior` are hazards per age."""
        reached, ended = self._reached, self._ended
        alive, ends = 1.0, [0.0, 0.0, 0.0]
        for index in range(AGES):
            if AGES_SECONDS[index] <= idle:
                continue
            hazard = prior[index]
            for context in contexts:
                at = context * AGES + index
                hazard = (ended[at] + DRAW * hazard) / (reached[at] + DRAW)
            ends[0 if index < WITHIN_5M else 1 if index < WITHIN_1H else 2] += alive * hazard
            alive *= 1.0 - hazard
        return Chances(*ends)

    def weight(self, context: int) -> float:
        """How many observations a context has counted, decayed."""
        return self._reached[context * AGES]

    def _count(self, contexts: Contexts, index: int, ended: float) -> None:
        for context in contexts:
            at = context * AGES + index
            self._reached[at] += 1.0
            self._ended[at] += ended
            if self._reached[at] > MAX_WEIGHT:
                self._reached[at] *= 0.5
                self._ended[at] *= 0.5


def context(*parts: int) -> int:
    """The table's place for a context named by integers."""
    value = 0x2545F4914F6CDD1D
    for part in parts:
        value = ((value ^ part) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 29
    return value % CONTEXTS
