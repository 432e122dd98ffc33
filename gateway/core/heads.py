"""Tools and system that came lately, by sketches; and what became of one where a new one looks like it.

A change replaces the sketch it was found by: it is the same application's, as it is now. What the API does
not share between scopes is told by the same content under another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.core.allowance import Allowance
from gateway.core.difference import Difference, find_difference, judge_spread, where_is
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.misses import VOLATILE, Miss, MissCause
from gateway.core.prefix import MESSAGES_PARTS, scope_parts
from gateway.core.prompt import Block, Prompt
from gateway.core.sketch import MAX_BYTES, Keyed, Sketch, Spread, size_of

RECENT_SECONDS = 3600.0
"""What was seen longer ago explains nothing: no entry of it would live."""
MAX_HEADS = 24
"""Kept for one workspace."""
MAX_KNOWN = 4096
"""Keys of tools and system that are recognised at once."""
KNOWN_BYTES = 160
_HEAD_BYTES = 900
"""Of the objects and entries that one head takes, beyond its sketch."""
_CANDIDATES = 3
"""Sketches that a new one is compared with."""
_SAME_TOKENS = 16
"""By how much heads of one application may differ in length and be taken for the same at a glance."""
_MODEL = 0
_Key = TypeVar("_Key")

Parts = tuple[int, ...]
"""What parts the caches, by digests, in the order of `prefix.scope_parts`."""


@dataclass(slots=True)
class Asked:
    """One prompt while it is looked at, and what was found out about it once."""

    prompt: Prompt
    keys: Sequence[PrefixKey]
    ends: Sequence[int]
    workspace: WorkspaceId
    headers: Iterable[tuple[bytes, bytes]]
    known_to: int
    first: int
    """The first block of messages."""
    now: float
    parts: Parts = ()

    def parts_by(self, digest: Keyed) -> Parts:
        if not self.parts:
            values = scope_parts(self.prompt, self.headers).values()
            self.parts = tuple([digest.number(value) for value in values])
        return self.parts

    def under_another_scope(self, reach: int, workspace: WorkspaceId, theirs: Parts) -> Miss | None:
        """The miss of a prompt that is known up to block `reach`, but not as it is asked now."""
        tokens = self.ends[reach]
        if workspace != self.workspace:
            return Miss(reach, MissCause.OTHER_WORKSPACE, tokens)
        if theirs[_MODEL] != self.parts[_MODEL]:
            return Miss(reach, MissCause.OTHER_MODEL, tokens)
        names = scope_parts(self.prompt)
        for name, one, other in zip(names, theirs, self.parts, strict=False):
            if one != other:
                return Miss(reach, MissCause.OTHER_PARAMETER, tokens, looks_like=name)
        return None


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of an application's latest prompt, and how its like is known at a glance."""

    difference: Difference
    block: int
    known_to: int
    blocks: int
    tokens: int


@dataclass(slots=True)
class _Sight:
    """When an application was seen last; outlives what was kept of it."""

    at: float


@dataclass(slots=True, eq=False)
class _Head:
    """Tools and system of one application under one cache scope, as last looked at."""

    workspace: WorkspaceId
    sketch: Sketch
    parts: Parts
    """Without those of messages."""
    sight: _Sight
    found: _Found | None = None

    @property
    def size_bytes(self) -> int:
        return _HEAD_BYTES + self.sketch.size_bytes


class Heads:
    """Bounded by memory: what was longest not seen is forgotten first."""

    def __init__(self, capacity_bytes: int, digest: Keyed, allowance: Allowance) -> None:
        self._known: dict[PrefixKey, _Sight] = {}
        self._max_known = min(MAX_KNOWN, capacity_bytes // 4 // KNOWN_BYTES)
        self._capacity_bytes = capacity_bytes - self._max_known * KNOWN_BYTES
        self._by_workspace: dict[WorkspaceId, list[_Head]] = {}
        self._by_content: dict[int, list[_Head]] = {}
        self._digest = digest
        self._allowance = allowance
        self._used_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._used_bytes + len(self._known) * KNOWN_BYTES

    def seen(self, key: PrefixKey, now: float) -> bool:
        """Whether the tools and system that end with this key were looked at before."""
        sight = self._known.get(key)
        if sight is None:
            return False
        sight.at = now
        return True

    def look(self, asked: Asked) -> Miss | None:
        """Look closer at tools and system that were not, and remember them. A miss's tokens count from the
        prompt's first block."""
        blocks = asked.prompt.blocks[: asked.first]
        mine = [block for block in blocks if block.in_prefix]
        if not mine:
            return None
        is_known = asked.known_to >= asked.first - 1
        if not self._allowance.take(asked.workspace, min(MAX_BYTES, sum(map(size_of, mine))), asked.now):
            return None if is_known else self._at_a_glance(asked)
        head = _Head(
            workspace=asked.workspace,
            sketch=Sketch(asked.prompt, mine, self._digest),
            parts=asked.parts_by(self._digest)[:-MESSAGES_PARTS],
            sight=_Sight(asked.now),
        )
        miss: Miss | None = None
        if not is_known:
            miss = self._explained(asked, head, mine)
        self._remember(asked, head)
        return miss

    def _explained(self, asked: Asked, head: _Head, mine: Sequence[Block]) -> Miss | None:
        """By the same content in the workspace, by a change of its own, and only then by what another
        workspace has sent: what its members are told must not depend on that."""
        twins = [
            other
            for other in self._by_content.get(head.sketch.content, ())
            if other.sight.at >= head.sight.at - RECENT_SECONDS
        ]
        own = [twin for twin in twins if twin.workspace == head.workspace and twin.parts != head.parts]
        others = [twin for twin in twins if twin.workspace != head.workspace]
        if not own and (miss := self._change(asked, head, mine)) is not None:
            return miss
        twin = max(own or others, key=_last_seen, default=None)
        return (
            None if twin is None else asked.under_another_scope(asked.first - 1, twin.workspace, twin.parts)
        )

    def _change(self, asked: Asked, head: _Head, mine: Sequence[Block]) -> Miss | None:
        """What this is changed from, if it is; that is replaced by it."""
        for known in self._nearest(head):
            difference = find_difference(known.sketch, head.sketch, asked.prompt, mine)
            if difference is None or not difference.alike:
                continue
            block = asked.first
            if difference.index < len(mine):
                block = asked.prompt.blocks.index(mine[difference.index])
            head.found = _Found(difference, block, asked.known_to, asked.first, asked.ends[asked.first - 1])
            self._forget(known)
            known.sight.at, head.sight = asked.now, known.sight
            return _changed(asked, head.found)
        return None

    def _nearest(self, head: _Head) -> list[_Head]:
        """Of the workspace's own, those with which it has most in common; with nothing in common, those that
        are about as long."""
        mine, size = set(head.sketch.looses), sum(head.sketch.sizes)

        def distance(other: _Head) -> tuple[int, int]:
            known = other.sketch
            pairs = zip(known.looses, known.sizes, strict=True)
            return -sum([length for loose, length in pairs if loose in mine]), abs(sum(known.sizes) - size)

        candidates = [
            other
            for other in self._by_workspace.get(head.workspace, ())
            if other.sight.at >= head.sight.at - RECENT_SECONDS and other.parts == head.parts
        ]
        return sorted(candidates, key=distance)[:_CANDIDATES]

    def _at_a_glance(self, asked: Asked) -> Miss | None:
        """What was last found of the application, if this looks like the next of its prompts."""
        first, tokens = asked.first, asked.ends[asked.first - 1]
        for head in self._by_workspace.get(asked.workspace, ()):
            found = head.found
            if (
                found is not None
                and (found.blocks, found.known_to) == (first, asked.known_to)
                and abs(found.tokens - tokens) <= _SAME_TOKENS
                and head.sight.at >= asked.now - RECENT_SECONDS
                and _still_looks(asked, found)
            ):
                head.sight.at = asked.now
                self._know(asked.keys[first - 1], head.sight)
                return _changed(asked, found)
        return None

    def _remember(self, asked: Asked, head: _Head) -> None:
        mine = self._by_workspace.get(head.workspace, ())
        if len(mine) >= MAX_HEADS:
            self._forget(min(mine, key=_last_seen))
        self._by_workspace.setdefault(head.workspace, []).append(head)
        self._by_content.setdefault(head.sketch.content, []).append(head)
        self._used_bytes += head.size_bytes
        self._know(asked.keys[asked.first - 1], head.sight)
        while self._used_bytes > self._capacity_bytes:
            self._forget(
                min((head for heads in self._by_workspace.values() for head in heads), key=_last_seen)
            )

    def _forget(self, head: _Head) -> None:
        self._used_bytes -= head.size_bytes
        _take_out(self._by_workspace, head.workspace, head)
        _take_out(self._by_content, head.sketch.content, head)

    def _know(self, key: PrefixKey, sight: _Sight) -> None:
        self._known[key] = sight
        if len(self._known) > self._max_known:
            del self._known[next(iter(self._known))]


def _changed(asked: Asked, found: _Found) -> Miss:
    difference = found.difference
    return Miss(
        found.block,
        MissCause.CHANGED,
        asked.ends[asked.first - 1],
        byte=difference.byte,
        looks_like=difference.looks,
        where=where_is(asked.prompt, found.block),
    )


def _still_looks(asked: Asked, found: _Found) -> bool:
    """Whether what was found in the place stands there again; taken on trust where it was nothing of note."""
    difference, block = found.difference, asked.prompt.blocks[min(found.block, asked.first - 1)]
    if difference.looks not in VOLATILE or difference.byte is None:
        return True
    if difference.byte >= size_of(block):
        return False
    place = Spread(difference.byte, difference.byte + 1, 0, exact=False)
    return judge_spread(asked.prompt, block, place, 0)[0] is difference.looks


def _take_out(index: dict[_Key, list[_Head]], key: _Key, head: _Head) -> None:
    heads = index[key]
    heads.remove(head)
    if not heads:
        del index[key]


def _last_seen(head: _Head) -> float:
    return head.sight.at
