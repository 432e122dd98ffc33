"""What is expected at a prompt's boundaries, and in which contexts what then happens is learned.

Two kinds of boundary are watched: the end of the prompt, which the next turn of the same session reads, and
those that other prompts are expected at: the ends of tools and system, and where prompts were seen to go on
differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.planner.features import (
    FIRST_TURN_PRIOR,
    LATER_TURN_PRIOR,
    SHARED_PRIOR,
    Place,
    Shape,
    shared_contexts,
    tail_contexts,
)
from gateway.core.planner.index import BRANCH, HAS_CHILD, PrefixTable
from gateway.core.planner.reuse import Chances, Contexts, Reuse
from gateway.core.planner.values import Question

MAX_BRANCHES = 3
"""Boundaries of one prompt, besides the ends of tools and system, that are watched as shared."""


@dataclass(slots=True)
class Expected:
    """By boundary: what to expect, and the contexts that it came from and will teach."""

    tail: Chances
    tail_contexts: Contexts
    shared: dict[int, Chances]
    shared_contexts: dict[int, Contexts]
    system_end: int
    """Block that ends the system prompt, or -1."""

    def at(self, block: int) -> Chances:
        """What to expect of the prefix up to this block."""
        return self.shared.get(block, self.tail)

    def contexts_at(self, block: int) -> Contexts:
        return self.shared_contexts.get(block, self.tail_contexts)


def expect(
    table: PrefixTable, reuse: Reuse, question: Question, slots: Sequence[int], shape: Shape, now: float
) -> Expected:
    """Learn that these prefixes were accessed now, and look up what to expect of them."""
    keys = question.keys
    known, last = len(slots) - 1, len(keys) - 1
    reuse.accessed(keys[: known + 1], now)
    pause = now - table.last[slots[known]] if known >= 0 else 0.0
    if known >= 0 and (known == last or table.flags[slots[known]] & HAS_CHILD):
        table.flags[slots[known]] |= BRANCH
    contexts = tail_contexts(question, shape, known, pause)
    tail = reuse.chances(contexts, LATER_TURN_PRIOR if shape.answers else FIRST_TURN_PRIOR)
    shared: dict[int, Chances] = {}
    shared_in: dict[int, Contexts] = {}
    for block, kind in _places(table, slots, shape).items():
        slot = slots[block] if block <= known else -1
        accesses = 0
        if slot >= 0:
            accesses = table.accesses[slot] = min(255, table.accesses[slot] + 1)
            table.last[slot] = now
        shared_in[block] = shared_contexts(question, kind, block, accesses)
        shared[block] = reuse.chances(shared_in[block], SHARED_PRIOR)
    return Expected(tail, contexts, shared, shared_in, shape.system_end)


def watch(reuse: Reuse, keys: Sequence[int], expected: Expected, now: float) -> None:
    """Begin to observe what becomes of these boundaries."""
    for block, contexts in expected.shared_contexts.items():
        reuse.watch(keys[block], contexts, now)
    if len(keys) - 1 not in expected.shared_contexts:
        reuse.watch(keys[-1], expected.tail_contexts, now, sampled=True)


def _places(table: PrefixTable, slots: Sequence[int], shape: Shape) -> dict[int, Place]:
    flags = table.flags
    places: dict[int, Place] = {}
    for block in range(len(slots) - 1, -1, -1):
        if slots[block] >= 0 and flags[slots[block]] & BRANCH:
            places[block] = Place.BRANCH
            if len(places) == MAX_BRANCHES:
                break
    if shape.tools_end >= 0:
        places[shape.tools_end] = Place.TOOLS_END
    if shape.system_end >= 0:
        places[shape.system_end] = Place.SYSTEM_END
    return places
