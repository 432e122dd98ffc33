"""What is said of a request when its chances are looked up: its contexts, from general to special.

Only keys, lengths, kinds and pauses are used. The application is known by the first block of its prompts
once that has been seen before; until then it is nobody in particular.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from gateway.core.planner.reuse import Contexts, context
from gateway.core.planner.values import Kind, Question

FIRST_TURN_PRIOR = (0.08, 0.07, 0.07, 0.06, 0.03, 0.02, 0.02, 0.01, 0.02)
LATER_TURN_PRIOR = (0.25, 0.20, 0.20, 0.15, 0.06, 0.04, 0.03, 0.02, 0.04)
SHARED_PRIOR = (0.15, 0.15, 0.20, 0.25, 0.10, 0.08, 0.06, 0.05, 0.10)
"""Hazards per age (`reuse.AGES_SECONDS`) before anything was seen: of a prompt without and with an answer in
it, and of a boundary that several prompts share."""
NOTHING_SEEN = (0.0,) * len(SHARED_PRIOR)
"""Where only what was seen may count."""

_TAIL, _SHARED = 1, 2
_ANSWER_BEGINS = tuple(bytes((kind, Kind.ASSISTANT)) for kind in (Kind.TOOLS, Kind.SYSTEM, Kind.USER))


class Place(IntEnum):
    """What makes one expect several prompts to share a boundary."""

    TOOLS_END = 0
    SYSTEM_END = 1
    BRANCH = 2


class Shape(msgspec.Struct, gc=False):
    """A request's structure."""

    answers: int
    """Assistant turns in the prompt."""
    tools_end: int
    """Index of the last tool, or -1."""
    system_end: int
    """Index of the last system block, or of the last tool where there is none; or -1."""


def shape_of(kinds: bytes) -> Shape:
    tools_end = kinds.rfind(Kind.TOOLS)
    answers = sum(map(kinds.count, _ANSWER_BEGINS)) + (kinds[:1] == bytes((Kind.ASSISTANT,)))
    return Shape(answers, tools_end, max(tools_end, kinds.rfind(Kind.SYSTEM)))


def tail_contexts(question: Question, shape: Shape, known: int, pause: float) -> Contexts:
    """Contexts of the end of a prompt. `known` is the index of the deepest prefix seen before, or -1; `pause`
    the seconds since that one was accessed."""
    later = shape.answers > 0
    turn = min(shape.answers, 3) + (shape.answers >= 4) + (shape.answers >= 9)
    rhythm = (1 + (pause > 15) + (pause > 60) + (pause > 300) + (pause > 3600)) if later and known >= 0 else 0
    size = (question.ends[-1] >> 10).bit_length()
    scope = question.scope
    general = (
        context(_TAIL, later),
        context(_TAIL, scope, later, known >= 0),
        context(_TAIL, scope, turn, rhythm),
    )
    if known < 0:
        return general
    app = question.keys[0]
    special = (context(_TAIL, scope, app, later), context(_TAIL, scope, app, turn, size))
    if shape.system_end < 0:
        return general + special
    system = question.keys[shape.system_end]
    return (*general, *special, context(_TAIL, scope, system, later, rhythm))


def shared_contexts(question: Question, place: Place, block: int, accesses: int) -> Contexts:
    """Contexts of a boundary that several prompts share, accessed `accesses` times before."""
    often = min(accesses, 2) + (accesses >= 3) + (accesses >= 8)
    scope = question.scope
    general = (context(_SHARED, place, often), context(_SHARED, scope, place, often))
    if not accesses:
        return general
    return (*general, context(_SHARED, scope, question.keys[block]))
