"""Apply a placement to a body by inserting into the client's own bytes.

Nothing is parsed, moved or written again here: what the client sent stays, byte for byte, around what is put
in. Where the breakpoints go is decided in `placement.py`.
"""

from __future__ import annotations

from gateway.core.placement import Placement
from gateway.core.prompt import TTL, Prompt
from gateway.core.spans import OPEN_OBJECT

_CONTROLS = {
    TTL.FIVE_MINUTES: b'"cache_control":{"type":"ephemeral"}',
    TTL.ONE_HOUR: b'"cache_control":{"type":"ephemeral","ttl":"1h"}',
}


def apply_placement(prompt: Prompt, placement: Placement) -> tuple[bytes | memoryview, ...]:
    """The body with the placement's breakpoints, in pieces that are to be written without joining.

    A breakpoint becomes the block's last member; a string becomes an array of one text block around its own
    literal, documented as equivalent (Messages API reference, 2026-11-21). An empty placement gives the very
    same object back. Raises `IndexError` for a block that is not there.
    """
    if not placement.breakpoints:
        return (prompt.body,)
    view = memoryview(prompt.body)
    pieces: list[bytes | memoryview] = []
    done = 0
    blocks = [(prompt.blocks[point.block], _CONTROLS[point.ttl]) for point in placement.breakpoints]
    # The fields of a body come in any order: messages may stand before tools.
    for block, control in sorted(blocks, key=lambda pair: pair[0].start):
        if block.is_string:
            pieces += [view[done : block.start], b'[{"type":"text","text":', view[block.start : block.end]]
            pieces.append(b",%b}]" % control)
            done = block.end
        else:
            at = _end_of_last_member(prompt.body, block.end)
            comma = b"" if prompt.body[at - 1] == OPEN_OBJECT else b","
            pieces += [view[done:at], comma + control]
            done = at
    pieces.append(view[done:])
    return tuple(pieces)


def _end_of_last_member(body: bytes, end: int) -> int:
    # In front of the white space before the brace, so that the object without it is the client's again.
    at = end - 1
    while body[at - 1] in b" \t\r\n":
        at -= 1
    return at
