"""Whether a prompt that cannot be read from the cache is nearly one that was seen, and what sets them apart.

The planner knows prefixes by digest, so to it a changed byte is a new prompt. Here is kept, in bounded memory
and as keyed digests and lengths only, what it takes to see more: sketches of the tools and system that came
lately (`heads.py`), and the lengths of conversations (`threads.py`). What a change looks like is judged from
the new text at once (`looks.py`), and only its class is kept.

A prompt that goes on from a known one costs some look-ups. One whose tools and system are new is looked at
more closely, within an allowance; beyond that, what was last found of the same application counts for the
next of its prompts, as far as can be seen at a glance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

from msgspec.structs import replace

from gateway.core.allowance import Allowance
from gateway.core.difference import judge_spread, where_is
from gateway.core.heads import Asked, Heads
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.misses import Looks, Miss, MissCause
from gateway.core.prompt import Prompt
from gateway.core.sketch import Keyed, Sketch, content_of, size_of
from gateway.core.threads import MIN_BLOCKS, Parting, Thread, Threads

DEFAULT_CAPACITY_BYTES = 4 << 20
_HEADS_SHARE = 0.75
_OPENING_BYTES = 16 * 1024
"""A conversation's first message is sketched if it is no longer."""


class Changes:
    """Bounded by `capacity_bytes`. Not safe for threads; no call blocks. No text of a prompt is in it."""

    def __init__(self, secret: bytes, *, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        heads_bytes = int(capacity_bytes * _HEADS_SHARE)
        self._digest = Keyed(secret)
        self._allowance = Allowance()
        self._heads = Heads(heads_bytes, self._digest, self._allowance)
        self._threads = Threads(capacity_bytes - heads_bytes)

    @property
    def size_bytes(self) -> int:
        """Memory in use, as reckoned for the bound."""
        return self._heads.size_bytes + self._threads.size_bytes

    def look(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        ends: Sequence[int],
        *,
        workspace: WorkspaceId,
        headers: Iterable[tuple[bytes, bytes]] = (),
        read_at: int,
        known_to: int,
        now: float,
        minimum_tokens: int = 0,
    ) -> Miss | None:
        """Take note of a prompt that is sent, and say what sets it apart from one that it nearly is.

        `keys` and `ends` are the prompt's prefix keys and tokens by block; `read_at` is the deepest block
        that is expected to be read, and `known_to` the deepest whose prefix was known before this prompt, or
        -1. None: it goes on from what is known, is new, branches off, or less than `minimum_tokens` could
        have been read at best. What it says goes further than a miss that the planner found, which sees only
        as far as `known_to`. OTHER_WORKSPACE is for operators: another workspace's members must not be told.
        """
        if not keys:
            return None
        blocks = prompt.blocks
        first = bisect_left(blocks, 0, key=_MESSAGE)
        asked: Asked | None = None
        miss: Miss | None = None
        if first and not self._heads.seen(keys[first - 1], now):
            asked = Asked(prompt, keys, ends, workspace, headers, known_to, first, now)
            miss = self._heads.look(asked)
        if len(blocks) - first >= MIN_BLOCKS and not self._threads.follow(keys, known_to, blocks, first, now):
            asked = asked or Asked(prompt, keys, ends, workspace, headers, known_to, first, now)
            miss = self._look_at_thread(asked, miss)
        if miss is None or miss.tokens < minimum_tokens:
            return None
        tokens = miss.tokens - (ends[read_at] if read_at >= 0 else 0)
        return replace(miss, tokens=tokens) if tokens > 0 else None

    # A miss's tokens count from the prompt's first block until `look` returns it.

    def _look_at_thread(self, asked: Asked, miss: Miss | None) -> Miss | None:
        parts, opening = asked.parts_by(self._digest), self._opening(asked)

        def same_opening(thread: Thread) -> bool:
            if opening is None or thread.opening is None:
                return False
            return opening.content == thread.opening.content

        parting = self._threads.parting(asked, same_opening)
        if parting is not None:
            self._threads.forget(parting.thread)
            foreign = miss is not None and miss.cause is MissCause.OTHER_WORKSPACE
            miss = self._parted(asked, parting, None if foreign else miss) or miss
        self._threads.begin(asked, parts, opening)
        return miss

    def _parted(self, asked: Asked, parting: Parting, miss: Miss | None) -> Miss | None:
        thread, tokens = parting.thread, asked.ends[parting.reach]
        if (
            miss is not None
        ):  # what comes before the messages differs already; these would have been read, too
            return replace(miss, tokens=max(miss.tokens, tokens))
        if parting.looks is None and thread.parts != asked.parts:
            return asked.under_another_scope(parting.reach, thread.workspace, thread.parts)
        index = asked.first + parting.at
        block = asked.prompt.blocks[index]
        looks, byte, opening = parting.looks or Looks.EDITED, None, thread.opening
        in_opening = opening is not None and parting.at < len(opening.sizes)
        if opening is not None and in_opening and looks in (Looks.EDITED, Looks.SHORTENED):
            spread = opening.spread(parting.at, content_of(asked.prompt, block))
            looks, byte = judge_spread(
                asked.prompt, block, spread, size_of(block) - opening.sizes[parting.at]
            )
        where = where_is(asked.prompt, index)
        return Miss(index, MissCause.CHANGED, tokens, byte=byte, looks_like=looks, where=where)

    def _opening(self, asked: Asked) -> Sketch | None:
        """Of the conversation's first message; None where that is long or may not be looked at."""
        blocks = asked.prompt.blocks[asked.first :]
        mine = [block for block in blocks[:MIN_BLOCKS] if block.message == blocks[0].message]
        length = sum(map(size_of, mine))
        if length > _OPENING_BYTES or not self._allowance.take(asked.workspace, length, asked.now):
            return None
        return Sketch(asked.prompt, mine, self._digest)


def greater_miss(one: Miss | None, other: Miss | None) -> Miss | None:
    """Of a miss found here and the planner's own the one that costs more; the first where both cost as much.
    What another workspace has sent comes last: since it is not told, it would show by what is missing."""
    if one is None or other is None:
        return one or other
    if one.cause is MissCause.OTHER_WORKSPACE:
        return other
    return other if other.tokens > one.tokens else one


_MESSAGE = attrgetter("message")
