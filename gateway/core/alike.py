"""What a body has in common with one that was read before, byte by byte, so that it is not read again.

Equal bytes at the same place of the same structure read the same; nothing else is taken over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from gateway.core.errors import BadRequest
from gateway.core.spans import CLOSE_ARRAY, COMMA, OBJECT, Members, Span, member_spans, outer_span, skip_space

if TYPE_CHECKING:
    from gateway.core.prompt import Block, Level, Prompt

Extras = dict[int, tuple[tuple[str, Span], ...]]

LAST_MESSAGES = 4
"""Those that a client changes from one turn to the next, if any, are among the last so many."""
_REST = b'{"messages":['
_READ_ANEW = ("model", "max_tokens", "stream", "cache_control")


class Beginning(NamedTuple):
    """What a body has behind the bytes with which another begins, too, and which end with a message."""

    messages: int
    """How many lie in those bytes."""
    at: int
    """Offset of what follows them: a comma, or the bracket that closes the array."""
    members: Members
    """The body's, but for tools and system that stand before the messages. Of `messages` it has what is not
    in those bytes."""
    fields: dict[str, Span]
    """Of all of the body's members."""


def alike_beginning(like: Prompt, body: bytes) -> Beginning | None:
    """None where `body` does not begin with a message of `like`, and all before it; or where what follows
    must be read together with that."""
    known, ends = like.fields.get("messages"), like.message_ends
    count = _messages_begun(like, body)
    if known is None or count == 0:
        return None
    try:
        at = skip_space(body, ends[count - 1])
        goes_on = body[at] == COMMA
        if not goes_on and body[at] != CLOSE_ARRAY:
            return None
        rest = _REST + body[at + goes_on :]
        members = OBJECT.decode(rest)
        spans = member_spans(rest, *outer_span(rest), members, "the body")
    except (IndexError, msgspec.DecodeError, BadRequest):  # all of it read together says what is wrong
        return None
    fields: dict[str, Span] = {}
    for name, span in like.fields.items():
        if name == "messages":
            break
        fields[name] = span
    if any(name in fields for name in members):
        return None
    for name in _READ_ANEW:
        if name in fields:
            members[name] = msgspec.Raw(body[slice(*fields[name])])
    by = at + goes_on - len(_REST)
    for name, (start, end) in spans.items():
        fields[name] = start + by, end + by
    fields["messages"] = known[0], fields["messages"][1]
    return Beginning(count, at, members, fields)


def bytes_begun(like: Prompt, body: bytes) -> int:
    """How many bytes `alike_beginning` need not look at but to compare: some 20 us for a megabyte."""
    count = _messages_begun(like, body)
    return like.message_ends[count - 1] if count else 0


def alike_field(like: Prompt, text: bytes, span: Span, name: str, level: Level) -> list[Block] | None:
    """The blocks of a whole field that stands in `like` in the same bytes; None where it does not."""
    known = like.fields.get(name)
    if known is None or span[1] - span[0] != known[1] - known[0]:
        return None
    if not text.startswith(memoryview(like.body)[slice(*known)], span[0]):
        return None
    tools_end, head_end = like.outline.tools_end, like.outline.head_end
    blocks = like.blocks[:tools_end] if level == "tools" else like.blocks[tools_end:head_end]
    return _moved(blocks, span[0] - known[0])


def alike_messages(like: Prompt, text: bytes, span: Span) -> int:
    """How many messages `text` begins with as `like` does."""
    known = like.fields.get("messages")
    return 0 if known is None else _count_alike(like.body, known[0], like.message_ends, text, *span)


def _messages_begun(like: Prompt, body: bytes) -> int:
    return _count_alike(like.body, 0, like.message_ends, body, 0, len(body))


def _count_alike(body: bytes, first: int, ends: Sequence[int], text: bytes, start: int, end: int) -> int:
    """How many of the stretches of `body`, which begin at `first` and end at `ends`, are the same in `text`
    from `start` on. The later ones are likeliest to be new: a client appends, and moves its marks from one
    message to the next. Nothing is copied, and hardly a byte compared twice."""
    view, by = memoryview(body), start - first
    least, most, back = 0, len(ends), LAST_MESSAGES
    while least < most:  # the last that is known to be alike, the last that may be
        tried = max(least + 1, most - back + 1)
        begins, stops = ends[least - 1] if least else first, ends[tried - 1]
        if stops + by < end and text.startswith(view[begins:stops], begins + by):
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
    start = like.outline.head_end
    whole = count == len(like.message_ends)
    end = len(like.blocks) if whole else bisect_left(like.blocks, count, key=_message)
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
