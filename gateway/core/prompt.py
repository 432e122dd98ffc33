"""A lossless view of a Messages body: where its blocks begin and end, and the few values we act on.

The body is never rebuilt. The reader finds offsets in the client's own bytes; `edit.py` inserts there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The three levels of a prompt, in the order in which the API caches them."""

    TOOLS = "tools"
    SYSTEM = "system"
    MESSAGES = "messages"


class TTL(StrEnum):
    FIVE_MINUTES = "5m"
    ONE_HOUR = "1h"


@dataclass(frozen=True, slots=True)
class Block:
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
    """False where the API refuses a breakpoint: thinking, empty text, deferred tools, unknown shapes."""
    marks: int
    """How many of the client's own breakpoints it carries, nested ones included."""
    ttl: TTL | None
    """TTL of the client's own breakpoint on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A Messages body as far as the gateway reads it. `fields` maps each top-level key to the offsets of its
    value; nothing in it is decoded further than stated."""

    body: bytes
    model: str
    max_tokens: int | None
    stream: bool
    blocks: tuple[Block, ...]
    fields: dict[str, tuple[int, int]]
    automatic_ttl: TTL | None
    """TTL of a top-level `cache_control`, where there is one."""

    @property
    def client_marks(self) -> int:
        """Breakpoints that the client set itself, the automatic one included; the API allows four."""
        return sum(block.marks for block in self.blocks) + (self.automatic_ttl is not None)
