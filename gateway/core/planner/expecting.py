"""What is expected at a prompt's boundaries, and in which contexts what then happens is learned.

Two kinds of boundary are watched: the end of the prompt, which the next turn of the same session reads, and
those that other prompts are expected at: the ends of tools and system, and where prompts were seen to go on
differently.

In the order of calling: `boundaries`, `access`, `expect`, and `watch` once the prompt is sent. The first and
the third change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

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

GOES_ON = 4
"""So many times what it adds, a turn must read to count as one that only goes on."""
MAX_BRANCHES = 3
"""Boundaries of one prompt, besides the ends of tools and system, that are watched as shared."""


class Boundaries(msgspec.Struct, gc=False):
    """Where something is expected, and the contexts that it is learned in."""

    tail: Contexts
    shared: dict[int, Contexts]
    """By block; the end of the prompt may be among them."""
    accesses: dict[int, int]
    """By block, of those that are known: accesses, this one included."""
    later: bool
    """Whether the prompt has an answer in it."""
    system_end: int
    """Block that ends the system prompt, as far as it may be marked, or -1."""

    def contexts_at(self, block: int) -> Contexts:
        return self.shared.get(block, self.tail)

    def only_goes_on(self, question: Question, read_at: int) -> bool:
        """Whether the prompt is the next turn of a conversation that is cached, and adds little to it. Beyond
        what it reads nobody is expected but the same request, sent to two replicas at once: that is not
        worth a question to all replicas before each turn."""
        if not self.later or read_at < 0 or max(self.shared, default=-1) > read_at:
            return False
        return GOES_ON * (question.ends[-1] - question.ends[read_at]) < question.ends[read_at]


class Expected(msgspec.Struct, gc=False):
    """By boundary: the chances of its next access."""

    tail: Chances
    shared: dict[int, Chances]

    def at(self, block: int) -> Chances:
        """What to expect of the prefix up to this block."""
        return self.shared.get(block, self.tail)


def boundaries(
    table: PrefixTable, question: Question, slots: Sequence[int], shape: Shape, now: float
) -> Boundaries:
    """Where this prompt may be read from later. `slots` end with the deepest known prefix."""
    known = len(slots) - 1
    pause = now - table.last[slots[known]] if known >= 0 else 0.0
    shared: dict[int, Contexts] = {}
    accesses: dict[int, int] = {}
    for block, kind in _places(table, question, slots, shape).items():
        slot = slots[block] if block <= known else -1
        if slot >= 0:
            accesses[block] = min(255, table.accesses[slot] + 1)
        shared[block] = shared_contexts(question, kind, block, accesses.get(block, 0))
    tail = tail_contexts(question, shape, known, pause)
    return Boundaries(tail, shared, accesses, shape.answers > 0, _markable(question, shape.system_end))


def access(
    table: PrefixTable, reuse: Reuse, question: Question, slots: Sequence[int], found: Boundaries, now: float
) -> None:
    """Learn that these prefixes are accessed now, and where prompts part."""
    keys, looked_at = question.keys, question.known_at
    reuse.accessed([keys[block] for block in looked_at] if looked_at else keys[: len(slots)], now)
    if slots and _parts(table, question, slots):
        table.flags[slots[-1]] |= BRANCH
    for block, accesses in found.accesses.items():
        table.accesses[slots[block]] = accesses
        table.last[slots[block]] = now


def expect(reuse: Reuse, found: Boundaries) -> Expected:
    """Look up the chances."""
    tail = reuse.chances(found.tail, LATER_TURN_PRIOR if found.later else FIRST_TURN_PRIOR)
    shared = {block: reuse.chances(contexts, SHARED_PRIOR) for block, contexts in found.shared.items()}
    return Expected(tail, shared)


def watch(reuse: Reuse, keys: Sequence[int], found: Boundaries, now: float) -> None:
    """Begin to observe what becomes of these boundaries."""
    for block, contexts in found.shared.items():
        reuse.watch(keys[block], contexts, now)
    if len(keys) - 1 not in found.shared:
        reuse.watch(keys[-1], found.tail, now, sampled=True)


def _parts(table: PrefixTable, question: Question, slots: Sequence[int]) -> bool:
    """Whether this prompt parts from another one where the known prefix ends."""
    return len(slots) == len(question.keys) or bool(table.flags[slots[-1]] & HAS_CHILD)


def _places(table: PrefixTable, question: Question, slots: Sequence[int], shape: Shape) -> dict[int, Place]:
    flags, known = table.flags, len(slots) - 1
    places: dict[int, Place] = {}
    looked_at = question.known_at or range(known + 1)
    branches = [block for block in looked_at if (slot := slots[block]) >= 0 and flags[slot] & BRANCH]
    if known >= 0 and _parts(table, question, slots) and branches[-1:] != [known]:
        branches.append(known)
    for block in reversed(branches):
        at = _markable(question, block)
        if at >= 0:
            places[at] = Place.BRANCH
        if len(places) == MAX_BRANCHES:
            break
    for end, place in ((shape.tools_end, Place.TOOLS_END), (shape.system_end, Place.SYSTEM_END)):
        at = _markable(question, end)
        if at >= 0:
            places[at] = place
    return places


def _markable(question: Question, block: int) -> int:
    """The block, or the nearest one before it on which a breakpoint may or does stand; -1 where none is."""
    if block in question.unmarkable:
        fixed = [at for at, _ in question.fixed or ()]
        while block in question.unmarkable and block not in fixed:
            block -= 1
    return block
