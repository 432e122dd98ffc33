"""What the steps of planning ask of all blocks of a prompt, found once per reading.

A prompt has hundreds of blocks, and most steps ask the same few things of each of them. For those that a
prompt shares with the one that it was read like, the answers are taken over. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.core.planner.values import Kind

if TYPE_CHECKING:
    from gateway.core.prompt import Block


class Measured(msgspec.Struct, frozen=True, gc=False):
    """The tokens up to and including each block, at so many bytes a token."""

    bytes_per_token: float
    sums: Sequence[float]
    ends: tuple[int, ...]
    """The same as whole numbers."""

    def first(self, blocks: int) -> Measured:
        """Of so many blocks only."""
        return Measured(self.bytes_per_token, self.sums[:blocks], self.ends[:blocks])


class Shown(msgspec.Struct, frozen=True, gc=False):
    """Which of the first `blocks` blocks show an image, or have citations switched on, anywhere in them."""

    blocks: int = 0
    images: tuple[int, ...] = ()
    citations: tuple[int, ...] = ()

    def first(self, blocks: int) -> Shown:
        """Of so many blocks only."""
        if blocks >= self.blocks:
            return self
        return Shown(blocks, _below(blocks, self.images), _below(blocks, self.citations))


@dataclass(slots=True)
class Outline:
    """Indexes are those of `Prompt.blocks`."""

    kinds: bytes
    """For each block the planner's `Kind`."""
    tools_end: int
    """Where the tools end and the system prompt begins."""
    head_end: int
    """Where the messages begin."""
    tool_types: frozenset[str]
    typed_tools: int
    """Tools that are given by their type, without a definition of their own."""
    marked: tuple[int, ...]
    """Blocks that carry breakpoints of the client's."""
    unmarkable: frozenset[int]
    """Blocks that no breakpoint can be put on."""
    measured: Measured | None = field(default=None, compare=False, repr=False)
    """Of these blocks, or of the first of them: `typical.py` keeps here what it has counted, and counts on
    from there."""
    shown: Shown = field(default=Shown(), compare=False, repr=False)
    """The same of `warmup.py`."""
    checked: frozenset[int] = field(default=frozenset(), compare=False, repr=False)
    """Blocks of which `check_placement` has seen that a breakpoint may stand on them."""


def outline_of(blocks: Sequence[Block], like: Outline | None = None, shared: int = 0) -> Outline:
    """`shared` is how many blocks are the same as those that `like` was made of; sizes included, but not
    where they stand."""
    if like is None or shared == 0:
        return _outline(blocks)
    if shared == len(blocks) == len(like.kinds):
        return like
    assert shared >= like.head_end, "only messages follow what is shared"
    kinds, marked, unmarkable = _look(blocks, shared)
    measured = like.measured
    return Outline(
        kinds=like.kinds[:shared] + kinds,
        tools_end=like.tools_end,
        head_end=like.head_end,
        tool_types=like.tool_types,
        typed_tools=like.typed_tools,
        marked=(*_below(shared, like.marked), *marked),
        unmarkable=frozenset([*_below(shared, like.unmarkable), *unmarkable]),
        measured=None if measured is None else measured.first(shared),
        shown=like.shown.first(shared),
        checked=frozenset(_below(shared, like.checked)),
    )


def _below(end: int, indexes: Iterable[int]) -> tuple[int, ...]:
    return tuple([at for at in indexes if at < end])


def _outline(blocks: Sequence[Block]) -> Outline:
    kinds, marked, unmarkable = _look(blocks, 0)
    tools_end = kinds.count(Kind.TOOLS)
    types = [block.type for block in blocks[:tools_end]]
    return Outline(
        kinds=kinds,
        tools_end=tools_end,
        head_end=tools_end + kinds.count(Kind.SYSTEM),
        tool_types=frozenset(types),
        typed_tools=tools_end - types.count("custom"),
        marked=tuple(marked),
        unmarkable=frozenset(unmarkable),
    )


def _look(blocks: Sequence[Block], start: int) -> tuple[bytes, list[int], list[int]]:
    kinds = bytearray()
    marked: list[int] = []
    unmarkable: list[int] = []
    for at in range(start, len(blocks)):
        block = blocks[at]
        kind = _HEAD.get(block.level)
        if kind is None:
            kind = _ASSISTANT if block.role == "assistant" else _USER
        kinds.append(kind)
        if block.marks:
            marked.append(at)
        if not (block.may_be_marked and block.in_prefix):
            unmarkable.append(at)
    return bytes(kinds), marked, unmarkable


_HEAD = {"tools": int(Kind.TOOLS), "system": int(Kind.SYSTEM)}
_USER, _ASSISTANT = int(Kind.USER), int(Kind.ASSISTANT)
