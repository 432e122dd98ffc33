"""Conversations as far as they must be known to see that the history of one was changed.

Of each there is the prefix key it ended with and the lengths of its blocks. A prompt that goes on from that
key costs no more than taking down the lengths of its new blocks; no content is looked at. Only where a prompt
parts from a longer conversation are its lengths laid beside those of the conversation that it ends like.

Lengths prove little, so much agreement is asked for; and an ordinary branch (a question asked again, an
answer made anew) ends in the turn in which it parts, as its answers would have come through here.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from gateway.core.heads import RECENT_SECONDS, Asked, Parts
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.misses import Looks
from gateway.core.prompt import Block
from gateway.core.sketch import Sketch, size_of

MIN_BLOCKS = 3
"""Of messages, from which on a prompt is taken for a conversation."""
MAX_SIZES = 512
"""Blocks of one conversation whose lengths are kept: the last ones."""
MAX_BACK = 40
"""Blocks that a turn may add and still be found to go on from a known end."""
TAIL = 3
MOST = 0.6
"""Of the blocks, or of the bytes, behind a change that must be of equal length."""
MANY_SIZES = 4
"""Different lengths that must agree where nothing but lengths speaks for it: traffic made from templates
repeats two or three."""
FEW_SIZES = 2
MOVED_BYTES = 32
_THREAD_BYTES = 960
"""Of the objects and entries that one thread takes, beyond its lengths and its opening."""

_Tail = tuple[WorkspaceId, int, int, int]


class Thread(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """One conversation, as of its latest prompt."""

    workspace: WorkspaceId
    tip: PrefixKey
    parent: PrefixKey
    """The key before the last one."""
    sizes: array[int]
    skipped: int
    """Blocks before those whose lengths are kept."""
    parts: Parts
    """What parts the caches, by digests (`prefix.scope_parts`)."""
    opening: Sketch | None
    seen_at: float
    tail: _Tail | None = None

    @property
    def count(self) -> int:
        return self.skipped + len(self.sizes)

    @property
    def size_bytes(self) -> int:
        opening = 0 if self.opening is None else self.opening.size_bytes
        return _THREAD_BYTES + 4 * len(self.sizes) + opening


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a prompt parts from a conversation that it otherwise is."""

    thread: Thread
    at: int
    """The first block of messages that differs, counted from the first of them."""
    reach: int
    """The block up to which the prompt is what was sent before."""
    looks: Looks | None
    """None: every length is the same."""


@dataclass(slots=True)
class Threads:
    """Bounded by memory: the conversation that was longest silent is forgotten first."""

    capacity_bytes: int
    size_bytes: int = 0
    _tips: dict[PrefixKey, Thread] = field(default_factory=dict)
    _parents: dict[PrefixKey, Thread] = field(default_factory=dict)
    _tails: dict[_Tail, Thread] = field(default_factory=dict)

    def follow(
        self, keys: Sequence[PrefixKey], known_to: int, blocks: Sequence[Block], first: int, now: float
    ) -> bool:
        """Whether the prompt goes on from a known end; if so, it is the conversation's end from now on."""
        thread = self._tips.pop(keys[known_to], None) if known_to > first else None
        if thread is None:
            return False
        thread.seen_at = now
        new = blocks[known_to + 1 :]
        if new:
            self._unlink(thread)
            for block in new:
                thread.sizes.append(size_of(block))
            self.size_bytes += 4 * len(new)
        self._link(thread, keys)
        self._shrink()
        return True

    def begin(self, asked: Asked, parts: Parts, opening: Sketch | None) -> None:
        """Remember a conversation that was not known, or not like this."""
        blocks = asked.prompt.blocks
        low = max(asked.first, len(blocks) - MAX_SIZES)
        thread = Thread(
            workspace=asked.workspace,
            tip=asked.keys[-1],
            parent=asked.keys[-2],
            sizes=array("I", [size_of(block) for block in blocks[low:]]),
            skipped=low - asked.first,
            parts=parts,
            opening=opening,
            seen_at=asked.now,
        )
        self.size_bytes += thread.size_bytes
        self._link(thread, asked.keys)
        self._shrink()

    def forget(self, thread: Thread) -> None:
        """It goes on as another."""
        if self._tips.get(thread.tip) is thread:
            self._drop(thread)

    def parting(self, asked: Asked, same_opening: Callable[[Thread], bool]) -> Parting | None:
        """The conversation that this prompt is, but for a change in its history; None where it cannot be
        told from one that is new, or branches off."""
        blocks, first = asked.prompt.blocks, asked.first
        at = max(asked.known_to + 1 - first, 0)
        if not _went_on(blocks, first + at):
            return self._moved(asked, at)
        low = max(first, len(blocks) - MAX_SIZES)
        sizes = [size_of(block) for block in blocks[low:]]
        for end in range(len(sizes) - 1, max(TAIL - 2, len(sizes) - 1 - MAX_BACK), -1):
            one, two, three = sizes[end - 2 : end + 1]
            thread = self._tails.get((asked.workspace, one, two, three))
            if thread is None or thread.seen_at < asked.now - RECENT_SECONDS:
                continue
            if thread.tip == asked.keys[low + end]:
                return None  # all of it is there: it was forgotten elsewhere that this was known
            looks, agrees = _compare(thread, sizes, low - first, at, low - first + end, same_opening)
            if agrees:
                return Parting(thread, at, low + end, looks)
        return self._moved(asked, at)

    def _moved(self, asked: Asked, at: int) -> Parting | None:
        """The block that ended a conversation is not there any more, and the conversation went on."""
        blocks, index = asked.prompt.blocks, asked.first + at
        thread = self._parents.get(asked.keys[index - 1]) if at > 0 and index < len(blocks) else None
        if thread is None or thread.count != at + 1 or thread.seen_at < asked.now - RECENT_SECONDS:
            return None
        was, here = thread.sizes[-1], blocks[index]
        if was >= MOVED_BYTES and size_of(blocks[-1]) == was and _went_on(blocks, index - 1):
            return Parting(thread, at, index, Looks.MOVED_BLOCK)
        if here.role == "assistant" or not _went_on(blocks, index):
            return None
        return Parting(thread, at, index, Looks.SHORTENED if size_of(here) < was else Looks.EDITED)

    def _link(self, thread: Thread, keys: Sequence[PrefixKey]) -> None:
        """Let it be found by how these keys end."""
        sizes = thread.sizes
        if len(sizes) > MAX_SIZES:
            gone = len(sizes) - MAX_SIZES
            del sizes[:gone]
            thread.skipped += gone
            self.size_bytes -= 4 * gone
        there = self._tips.get(keys[-1])
        if there is not None and there is not thread:
            self._drop(there)
        thread.tip, thread.parent = keys[-1], keys[-2]
        thread.tail = (thread.workspace, sizes[-3], sizes[-2], sizes[-1])
        self._tips[thread.tip] = self._parents[thread.parent] = self._tails[thread.tail] = thread

    def _shrink(self) -> None:
        while self.size_bytes > self.capacity_bytes and self._tips:
            self._drop(next(iter(self._tips.values())))

    def _unlink(self, thread: Thread) -> None:
        if self._parents.get(thread.parent) is thread:
            del self._parents[thread.parent]
        if thread.tail is not None and self._tails.get(thread.tail) is thread:
            del self._tails[thread.tail]

    def _drop(self, thread: Thread) -> None:
        self.size_bytes -= thread.size_bytes
        del self._tips[thread.tip]
        self._unlink(thread)


def _went_on(blocks: Sequence[Block], at: int) -> bool:
    """Whether an answer stands behind the place: it was given to a prompt that had been sent before."""
    return any(block.role == "assistant" for block in blocks[at + 1 :])


def _compare(
    thread: Thread,
    sizes: Sequence[int],
    skipped: int,
    at: int,
    end: int,
    same_opening: Callable[[Thread], bool],
) -> tuple[Looks | None, bool]:
    """What was done to the thread's history from block `at` on, if its last block is now block `end`; and
    whether enough agrees to say so."""
    shift = end - (thread.count - 1)
    begin = max(at + max(shift, 0), skipped, thread.skipped + shift)
    were = thread.sizes[begin - shift - thread.skipped : end + 1 - shift - thread.skipped].tolist()
    are = sizes[begin - skipped : end + 1 - skipped]
    behind = 1 if shift == 0 and begin == at and len(are) > 1 else 0  # the changed block itself says nothing
    same = [new for old, new in zip(were[behind:], are[behind:], strict=True) if old == new]
    bytes_of = max(sum(were[behind:]), sum(are[behind:]), 1)
    most = len(same) >= MOST * (len(are) - behind) or sum(same) >= MOST * bytes_of
    if shift:
        looks: Looks | None = Looks.INSERTED_MESSAGES if shift > 0 else Looks.DROPPED_MESSAGES
    elif were == are:
        looks = None
    else:
        looks = Looks.SHORTENED if are[0] < were[0] else Looks.EDITED
    needed = FEW_SIZES if at > 0 and not shift else MANY_SIZES
    different = len(set(same))
    return looks, most and (different >= needed or (different > 0 and not shift and same_opening(thread)))
