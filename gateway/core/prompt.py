"""A lossless view of a Messages body: where its blocks begin and end, and the few values we act on.

The body is never rebuilt. `prompt_reader.py` finds offsets in the client's bytes; `edit.py` inserts there,
and `prefix.py` digests from there. What a block means for a placement is decided in `placement.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.core.spans import Span

if TYPE_CHECKING:
    from gateway.core.outline import Outline

PAUSE_EVERY = 8
"""Who reads or digests a large prompt offers a pause after so many blocks, of some 30 µs in all.
Offered after each, that alone took 0.4 ms of CPU for a body of 2 MB."""


class Level(StrEnum):
    """The three levels of a prompt, in the order in which the API caches them."""

    TOOLS = "tools"
    SYSTEM = "system"
    MESSAGES = "messages"


class TTL(StrEnum):
    FIVE_MINUTES = "5m"
    ONE_HOUR = "1h"


# A msgspec.Struct, since a body has hundreds of them: a frozen dataclass takes ten times as long to make.
class Block(msgspec.Struct, frozen=True, gc=False):
    """One tool, system block or content block.

    `start` and `end` are byte offsets into the body: of the block's object, or of the string literal where
    `is_string` (then a breakpoint needs the one-block array form).
    """

    level: Level
    role: str
    """Role of the message; empty outside messages."""
    message: int
    """Index of the message; -1 outside messages."""
    type: str
    start: int
    end: int
    is_string: bool
    may_be_marked: bool
    """False where the API refuses a breakpoint: thinking, empty text, deferred tools (docs on the tool search
    tool, 2026-08-21), unknown shapes."""
    marks: int = 0
    """How many of the client's own breakpoints it carries, nested ones included: one within the content of a
    tool_result counts as its own, and a second one there is a 400 (probes of count_tokens, 2026-09-30)."""
    ttl: TTL | None = None
    """TTL of the client's own breakpoint on it."""
    text: Span | None = None
    """The literal of a text block that is nothing but its text; then string and array form are the same."""
    cuts: tuple[Span, ...] = ()
    """Its `cache_control` members with the comma that goes with each: what the digest leaves out."""
    in_prefix: bool = True
    """False for what the API leaves out of the prompt: deferred tools, Claude Code's attribution block."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A Messages body as far as the gateway reads it. `fields` maps each top-level key to the offsets of its
    value; nothing in it is decoded further than stated."""

    body: bytes
    model: str
    max_tokens: int | None
    stream: bool
    blocks: tuple[Block, ...]
    outline: Outline
    """Of these blocks."""
    fields: dict[str, tuple[int, int]]
    automatic_ttl: TTL | None
    """TTL of a top-level `cache_control`, where there is one."""
    unread_marks: bool = False
    """True where a `cache_control` of the client has a form that we do not know: then add nothing."""
    message_extras: dict[int, tuple[tuple[str, Span], ...]] = {}
    """Members of messages other than role and content, with the span of each value."""
    message_ends: tuple[int, ...] = ()
    """Where each message ends."""
    shared_messages: int = 0
    """How many messages it begins with, behind the same tools and system, as the body does that it was read
    like."""

    @property
    def client_marks(self) -> int:
        """Breakpoints that the client set itself, the automatic one included; the API allows four."""
        marks = sum([self.blocks[at].marks for at in self.outline.marked])
        return marks + (self.automatic_ttl is not None)

    @property
    def marked_blocks(self) -> list[Block]:
        """The blocks that carry breakpoints of the client's."""
        return [self.blocks[at] for at in self.outline.marked]
