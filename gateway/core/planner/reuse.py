"""How likely a prefix is to be read again, and after what pause: learned from pauses seen, nothing else.

Every watched access is an observation that ends with the next access of the same prefix, or goes on without
one. Each context that the observation belongs to (everyone, this workspace, this application, ...) counts
per age how many observations came to it and how many ended in it, which is a hazard; those still open count
as far as they came, so that nothing has to end before it teaches. A hazard is that of the most special
context, drawn towards that of the next more general one as long as it has seen little.

Contexts are hashed into a table of fixed size. Two that collide teach each other nonsense, which costs money
and nothing else.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import floor, inf

import msgspec

AGES_SECONDS = (15.0, 45.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0)
"""Upper ends of the ages at which hazards are counted."""
AGES = len(AGES_SECONDS)
_PARTS = (1, 2, 3, 6, 4, 2, 2, 2, 1)
"""In how many parts an age is come to, which keeps those that are in the middle of a long one from counting
as if they had survived it: that would understate what is read, for the first minutes of all traffic."""
WITHIN_5M = 4
"""Ages that end within 5 min."""
WITHIN_1H = 8
"""Ages that end within an hour."""
CONTEXTS = 1 << 14
BYTES = CONTEXTS * AGES * 4 * 2
"""Of all counts together."""
MAX_OPEN = 1 << 15
"""Observations open at once, about 0.3 kB each. Beyond half of it only every eighth end of a prompt is
watched, so that there is room for what is shared."""
MAX_WEIGHT = 400.0
"""A context that has counted this many observations forgets half of them."""
TURNS_A_SECOND = 32
"""Observations grow older in turns, each up to its own instant: so it is all the same how often that is asked
for, and a replay that asks at each call comes to what a gateway did that asked while nobody called, too."""
DRAW = 6.0
"""How many observations the more general context weighs."""


def _steps() -> list[tuple[float, int, float, float]]:
    """Of each part of an age: its upper end, the age, its share of it, and the share of those after it."""
    steps, began = [], 0.0
    for age, (ends, parts) in enumerate(zip(AGES_SECONDS, _PARTS, strict=True)):
        for part in range(1, parts + 1):
            upper = began + (ends - began) * part / parts
            steps.append((upper, age, 1.0 / parts, (parts - part) / parts))
        began = ends
    return steps


_STEPS = _steps()
_UPPERS = tuple(upper for upper, _, _, _ in _STEPS)

Contexts = tuple[int, ...]

MAX_CONTEXTS = 6
_NONE = 0xFFFF
_OBSERVATION = struct.Struct(f"<QdB{MAX_CONTEXTS}H")


class _Observation(msgspec.Struct, frozen=True, gc=False):
    """One object from its beginning to its end."""

    began: float
    key: int
    contexts: Contexts


class Chances(msgspec.Struct, gc=False):
    """Of the next access: within 5 min; later than that, within an hour; and the hazards behind them."""

    five: float
    hour: float
    hazards: tuple[float, ...]

    @property
    def within_hour(self) -> float:
        return self.five + self.hour

    def in_lifetime(self, hour: bool, lifetimes: int) -> float:
        """Chance of an access in one more TTL, after the first and so many more went by without one."""
        if hour:
            return self.hazards[WITHIN_1H] if lifetimes == 0 else 0.0
        begins = 300.0 * (lifetimes + 1)
        for index in range(WITHIN_5M, WITHIN_1H):
            if begins < AGES_SECONDS[index]:
                return self.hazards[index] * 300.0 / (AGES_SECONDS[index] - AGES_SECONDS[index - 1])
        return 0.0


class Reuse:
    """Instants must not go back."""

    __slots__ = ("_due", "_ended", "_open", "_queues", "_reached")

    def __init__(self) -> None:
        self._ended = array("f", bytes(4 * CONTEXTS * AGES))
        self._reached = array("f", bytes(4 * CONTEXTS * AGES))
        self._open: dict[int, _Observation] = {}
        self._queues: tuple[deque[_Observation], ...] = tuple(deque() for _ in _STEPS)
        self._due = inf
        """When the first of them comes to its next part of an age."""

    def watch(self, key: int, contexts: Contexts, now: float, *, sampled: bool = False) -> None:
        """Begin an observation of `key`, whose last one must have been ended. `sampled`: one of many such."""
        crowd = len(self._open)
        if crowd >= MAX_OPEN or (sampled and key & 7 and crowd >= MAX_OPEN // 2):
            return
        self._open[key] = observation = _Observation(now, key, contexts)
        self._queues[0].append(observation)
        self._due = min(self._due, now + _UPPERS[0])
        self._reach(contexts, 0, _STEPS[0][2])

    def accessed(self, keys: Iterable[int], now: float) -> None:
        """These prefixes were accessed: their observations, where there are any, end."""
        opened = self._open
        for key in [*filter(opened.__contains__, keys)]:
            if key in opened:  # else it is there twice
                ended = opened.pop(key)
                age = now - ended.began
                for upper, index, _, left in _STEPS:
                    if age <= upper:
                        for context in ended.contexts:
                            self._ended[context * AGES + index] += 1.0
                        if left:
                            self._reach(ended.contexts, index, left)
                        break

    def advance(self, now: float) -> None:
        """Let open observations grow older. To be called before anything else happens at `now`; and while
        nothing does, so that who comes after a pause need not wait for all that came before it."""
        last_turn = floor(now * TURNS_A_SECOND) / TURNS_A_SECOND
        while self._due < last_turn:
            self._due = self._grow((floor(self._due * TURNS_A_SECOND) + 1) / TURNS_A_SECOND)

    def _grow(self, until: float) -> float:
        """When the first is due after that."""
        opened, due = self._open, inf
        for index, (upper, queue) in enumerate(zip(_UPPERS, self._queues, strict=True)):
            while queue and queue[0].began + upper < until:
                observation = queue.popleft()
                if opened.get(observation.key) is not observation:
                    continue
                if index + 1 < len(_STEPS):
                    _, age, share, _ = _STEPS[index + 1]
                    self._reach(observation.contexts, age, share)
                    self._queues[index + 1].append(observation)
                else:
                    del opened[observation.key]
            if queue:
                due = min(due, queue[0].began + upper)
        return due

    def chances(self, contexts: Contexts, prior: Sequence[float], *, doubt: float = 0.0) -> Chances:
        """What to expect of a prefix that is being accessed. `prior` are hazards per age; `doubt` is how many
        accesses of each context and age are put down to luck."""
        hazards = self.hazards(contexts, prior, doubt)
        alive = 1.0
        for hazard in hazards[:WITHIN_5M]:
            alive *= 1.0 - hazard
        five = 1.0 - alive
        for hazard in hazards[WITHIN_5M:WITHIN_1H]:
            alive *= 1.0 - hazard
        hour = 1.0 - alive - five
        return Chances(five, hour, tuple(hazards))

    def hazards(self, contexts: Contexts, prior: Sequence[float], doubt: float = 0.0) -> list[float]:
        """Per age, the chance of an access in it, given that none came before."""
        reached, ended = self._reached, self._ended
        hazards = list(prior)
        for context in contexts:
            at = context * AGES
            if reached[at] == 0.0:
                continue
            counts: Sequence[float] = reached[at : at + AGES]
            ends: Sequence[float] = ended[at : at + AGES]
            if doubt:
                ends = [max(0.0, seen - doubt) for seen in ends]
            hazards = [
                (seen + DRAW * hazard) / (count + DRAW) if count else hazard
                for hazard, count, seen in zip(hazards, counts, ends, strict=True)
            ]
        return hazards

    def watched(self, key: int) -> tuple[float, Contexts] | None:
        """Since when the next access of a prefix is waited for, and in which contexts; None: it is not."""
        found = self._open.get(key)
        return None if found is None else (found.began, found.contexts)

    def proven(self, contexts: Contexts) -> float:
        """The chance of an access within 5 min that what was seen supports by itself: each count less its
        own uncertainty, nothing for ages that nobody has come to. The best of these contexts."""
        best = 0.0
        for context in contexts:
            alive = 1.0
            for at in range(context * AGES, context * AGES + WITHIN_5M):
                ended = self._ended[at]
                if ended > 1.0:
                    alive *= 1.0 - (ended - ended**0.5) / (self._reached[at] + DRAW)
            best = max(best, 1.0 - alive)
        return best

    def _reach(self, contexts: Contexts, age: int, share: float) -> None:
        reached = self._reached
        for context in contexts:
            at = context * AGES + age
            reached[at] += share
            if reached[at] > MAX_WEIGHT:
                reached[at] *= 0.5
                self._ended[at] *= 0.5

    def export(self) -> tuple[memoryview, memoryview, Callable[[], bytes]]:
        """All counts and all open observations, as they are to be given to `restore` in bytes. For another
        thread, as packing takes its time: counts as they are by then, observations as they are now, but for
        those that end meanwhile."""
        queues = [tuple(queue) for queue in self._queues]
        return (
            memoryview(self._reached).cast("B"),
            memoryview(self._ended).cast("B"),
            partial(self._pack, queues),
        )

    def _pack(self, queues: Sequence[Sequence[_Observation]]) -> bytes:
        rows = bytearray()
        for index, queue in enumerate(queues):
            for observation in queue:
                if self._open.get(observation.key) is observation:
                    contexts = observation.contexts
                    padded = (*contexts, *(_NONE,) * (MAX_CONTEXTS - len(contexts)))
                    rows += _OBSERVATION.pack(observation.key, observation.began, index, *padded)
        return bytes(rows)

    def restore(self, exported: tuple[bytes, bytes, bytes]) -> None:
        """Take over what was exported; `ValueError`, and nothing is changed, where it is of another size."""
        reached, ended, rows = exported
        if len(reached) != BYTES // 2 or len(ended) != BYTES // 2 or len(rows) % _OBSERVATION.size:
            raise ValueError("counts of another size")
        self._reached, self._ended = array("f", reached), array("f", ended)
        self._due = 0.0  # not known: the next turn finds it
        self._open.clear()
        for queue in self._queues:
            queue.clear()
        for key, began, index, *padded in _OBSERVATION.iter_unpack(rows):
            contexts = tuple(_PLACES[context] for context in padded if context < CONTEXTS)
            self._open[key] = observation = _Observation(began, key, contexts)
            self._queues[min(index, len(_STEPS) - 1)].append(observation)


def context(*parts: int) -> int:
    """The table's place for a context named by integers. Python's hash of a tuple of integers is the same in
    every process of one version; `snapshot.py` checks that counts were made by the same one."""
    return _PLACES[hash(parts) & (CONTEXTS - 1)]


_PLACES = tuple(range(CONTEXTS))
"""One object for each: open observations name some five of them."""
