"""What a body has in common with one that was read before, byte by byte, so that it is not read again.

Equal bytes at the same place of the same structure read the same; nothing else is taken over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.core.spans import Span

if TYPE_CHECKING:
    from gateway.core.prompt import Block, Level, Prompt

Extras = dict[int, tuple[tuple[str, Span], ...]]


def alike_field(like: Prompt, text: bytes, span: Span, name: str, level: Level) -> list[Block] | None:
    """The blocks of a whole field that stands in `like` in the same bytes; None where it does not."""
    known = like.fields.get(name)
    if known is None or span[1] - span[0] != known[1] - known[0]:
        return None
    if not text.startswith(like.body[slice(*known)], span[0]):
        return None
    end = bisect_left(like.blocks, 0, key=_message)
    return _moved([block for block in like.blocks[:end] if block.level is level], span[0] - known[0])


def alike_messages(like: Prompt, text: bytes, span: Span) -> int:
    """How many messages `text` begins with as `like` does. The later ones are likeliest to be new: a client
    appends, and moves its marks from one message to the next."""
    known = like.fields.get("messages")
    if known is None:
        return 0
    ends, before, room = like.message_ends, known[0], span[1] - span[0]

    def begins_with(count: int) -> bool:
        length = ends[count - 1] - before
        return length < room and text.startswith(like.body[before : before + length], span[0])

    least, most, back = 0, len(ends), 1
    while least < most:  # the last that is known to be alike, the last that may be
        tried = max(least + 1, most - back + 1)
        if begins_with(tried):
            least = tried
            back = max(1, (most - least) // 2)
        else:
            most = tried - 1
            back *= 2
    return least


def first_messages(like: Prompt, count: int, span: Span) -> tuple[Sequence[Block], Extras, list[int]]:
    """Blocks, extra members and ends of the first messages of `like`, as they stand in a body whose messages
    are at `span`."""
    by = span[0] - like.fields["messages"][0]
    start = bisect_left(like.blocks, 0, key=_message)
    end = bisect_left(like.blocks, count, key=_message)
    extras = {
        message: tuple((name, (first + by, last + by)) for name, (first, last) in members)
        for message, members in like.message_extras.items()
        if message < count
    }
    return _moved(like.blocks[start:end], by), extras, [at + by for at in like.message_ends[:count]]


def _message(block: Block) -> int:
    return block.message


def _moved(blocks: Sequence[Block], by: int) -> list[Block]:
    if by == 0:
        return list(blocks)
    return [
        replace(
            block,
            start=block.start + by,
            end=block.end + by,
            text=None if block.text is None else (block.text[0] + by, block.text[1] + by),
            cuts=tuple((start + by, end + by) for start, end in block.cuts),
        )
        for block in blocks
    ]
