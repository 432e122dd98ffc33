"""What keeps one prompt from reading what another wrote, with both bodies at hand: exact to the byte.

The same classes and sentences as in `changes.py`, which has only digests to go by. For `gateway explain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.core.difference import Difference, find_difference, judge_spread, where_is
from gateway.core.misses import Looks, Miss, MissCause
from gateway.core.prefix import MESSAGES_PARTS, scope_parts
from gateway.core.prompt import Block, Level, Prompt
from gateway.core.sketch import Run, Spread, content_of, loose_of

_NEAR_BYTES = 64
"""A stretch that differs is looked at as a whole up to this length, else only where it begins."""


class Text:
    """A run of blocks with its contents; a `Run`."""

    def __init__(self, prompt: Prompt, blocks: Sequence[Block]) -> None:
        contents = [content_of(prompt, block) for block in blocks]
        self.levels: Sequence[Level] = [block.level for block in blocks]
        self.contents: Sequence[bytes] = [bytes(content) for content in contents]
        self.looses: Sequence[bytes] = [
            loose_of(content, block) for content, block in zip(contents, blocks, strict=True)
        ]
        self.sizes: Sequence[int] = list(map(len, contents))

    def spread(self, index: int, content: memoryview, of: Run | None = None) -> Spread:
        """As `Run.spread`, exactly."""
        old, new = self.contents[index], bytes(content)
        start = _common(old, new)
        tail = _common(old[start:][::-1], new[start:][::-1])
        end = len(new) - tail
        return Spread(start, end if end - start <= _NEAR_BYTES else start + 1, start + tail, exact=True)


def compare(
    previous: Prompt,
    prompt: Prompt,
    ends: Sequence[int],
    *,
    previous_headers: Iterable[tuple[bytes, bytes]] = (),
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> tuple[Miss, ...]:
    """Every reason for which `prompt` cannot read all that `previous` may have written, in the order of the
    prompt; none where it goes on from it, or ends in it. `ends` are the prompt's tokens by block.

    Of each level the first difference is told. Whether breakpoints and lifetimes allow a read is not asked.
    """
    if not prompt.blocks or not previous.blocks:
        return ()
    reach = min(len(previous.blocks), len(prompt.blocks)) - 1
    theirs, ours = scope_parts(previous, previous_headers), scope_parts(prompt, headers)
    other = [name for name in ours if theirs[name] != ours[name]]
    for_all = list(ours)[:-MESSAGES_PARTS]
    misses = [_other(name, reach, ends[reach]) for name in other if name in for_all]
    heads = [
        [block for block in one.blocks if _counts(block) and block.message < 0] for one in (previous, prompt)
    ]
    difference = find_difference(Text(previous, heads[0]), Text(prompt, heads[1]), prompt, heads[1])
    if difference is not None:
        misses.append(_changed(prompt, heads[1], difference, ends, reach))
    first = next((at for at, block in enumerate(prompt.blocks) if block.message >= 0), len(ends))
    if first <= reach:
        lost = ends[reach] - (ends[first - 1] if first else 0)
        misses += [_other(name, reach, lost) for name in other if name not in for_all]
    chats = [[block for block in one.blocks if block.message >= 0] for one in (previous, prompt)]
    edited = _edited(previous, chats[0], prompt, chats[1])
    if edited is not None:
        misses.append(_changed(prompt, chats[1], edited, ends, reach))
    return tuple(misses)


def _other(name: str, reach: int, tokens: int) -> Miss:
    if name == "model":
        return Miss(reach, MissCause.OTHER_MODEL, tokens)
    return Miss(reach, MissCause.OTHER_PARAMETER, tokens, looks_like=name)


def _changed(
    prompt: Prompt, blocks: Sequence[Block], difference: Difference, ends: Sequence[int], reach: int
) -> Miss:
    at = len(prompt.blocks)
    if difference.index < len(blocks):
        at = prompt.blocks.index(blocks[difference.index])
    elif blocks:
        at = prompt.blocks.index(blocks[-1]) + 1
    return Miss(
        at,
        MissCause.CHANGED,
        max(0, ends[max(reach, min(at, len(ends) - 1))] - (ends[at - 1] if at else 0)),
        byte=difference.byte,
        looks_like=difference.looks,
        where=where_is(prompt, at),
        exact=difference.exact,
    )


def _edited(
    previous: Prompt, before: Sequence[Block], prompt: Prompt, after: Sequence[Block]
) -> Difference | None:
    """How the history was changed; None where one is the other's beginning."""
    old, new = Text(previous, before), Text(prompt, after)
    for index, (one, other) in enumerate(zip(before, after, strict=False)):
        if old.contents[index] != new.contents[index] or one.role != other.role:
            break
    else:
        return None
    gone, here = old.contents[index], new.contents[index]
    if index == len(before) - 1 and gone in new.contents[index + 1 :]:
        return Difference(index, Looks.MOVED_BLOCK)
    if here in old.contents[index + 1 :]:
        return Difference(index, Looks.DROPPED_MESSAGES)
    if gone in new.contents[index + 1 :]:
        return Difference(index, Looks.INSERTED_MESSAGES)
    if old.looses[index] == new.looses[index]:
        is_text = after[index].text is not None
        return Difference(index, Looks.WHITE_SPACE if is_text else Looks.REORDERED_KEYS)
    spread = old.spread(index, content_of(prompt, after[index]))
    looks, byte = judge_spread(prompt, after[index], spread, new.sizes[index] - old.sizes[index])
    return Difference(index, looks, byte, exact=True)


def _counts(block: Block) -> bool:
    return block.in_prefix


def _common(one: bytes, other: bytes) -> int:
    """The length of the beginning that both have."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
