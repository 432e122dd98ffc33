"""Which breakpoints a request gets, with what TTL, and why."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.prompt import TTL


@dataclass(frozen=True, slots=True)
class Breakpoint:
    block: int
    """Index into `Prompt.blocks`."""
    ttl: TTL
    reason: str
    """A sentence a person understands, for `gateway explain`, the log and the response header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The breakpoints that the gateway adds to one request, in block order. Empty: the very same bytes."""

    breakpoints: tuple[Breakpoint, ...] = ()
    reason: str = ""
    """Why there are none, or what policy decided."""
