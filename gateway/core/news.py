"""What one replica tells the others of its calls, and what a recording holds: digests, lengths and counts.

Each item is a fact about one call, in the order in which they happened. No text, no credential. A field is
only ever added at the end, with a default: replicas of two versions must understand each other.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent", gc=False):
    """A call was planned, and goes upstream."""

    call: str
    at: float
    """Epoch seconds on the sender's clock, as in all other news."""
    workspace: str
    model: str
    scope: int
    """Compact key of its cache scope."""
    keys: bytes
    """For each block the compact key of the prefix up to it: 8 bytes each, little-endian."""
    ends: tuple[int, ...]
    """The prompt's tokens up to each block, as estimated."""
    kinds: bytes
    """For each block its `planner.Kind`."""
    marks: tuple[tuple[int, bool], ...]
    """All breakpoints on the wire, the client's own too: block, and whether 1h."""
    prices: tuple[float, float, float, int]
    """Factors of a read, a 5m and a 1h write, and the model's minimum of tokens."""
    unmarkable: tuple[int, ...] = ()
    """Blocks on which the API refuses a breakpoint."""
    decided: bool = True
    """False where the marks were not the gateway's to decide."""
    warm_up: bool = False
    warmable: bool = False
    planned: tuple[tuple[int, bool], ...] | None = None
    """In shadow mode the breakpoints that had been decided, and were not sent."""
    holdout: bool = False
    """Left alone on purpose, to measure what placing saves."""
    price: float = 1.0
    """Of one uncached input token, in nano-dollars."""
    by_rule: bool = False
    """The marks that were added were decided by rule."""
    held: float = 0.0
    """Seconds that the call had been held before it was sent."""
    thread: bool = False
    """Never any more; older replicas told so of calls of message threads."""
    known: tuple[int, ...] = ()
    """The planner's `Decision.known_at`: who hears of it need not look for it among all blocks."""
    own: tuple[tuple[int, bool], ...] = ()
    """The client's breakpoints among the marks, where others were added to them by rule."""


class Answered(msgspec.Struct, frozen=True, array_like=True, tag="answered", gc=False):
    """The head of a good answer came: what the call wrote can be read."""

    call: str
    at: float


class Billed(msgspec.Struct, frozen=True, array_like=True, tag="billed", gc=False):
    """The call's usage, as upstream reported it."""

    call: str
    at: float
    uncached: int
    read: int
    write_5m: int
    write_1h: int
    output: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed", gc=False):
    """The call was not served: it wrote nothing."""

    call: str
    at: float
    billed: bool = False
    """It was sent, and upstream may bill it as if it had been."""


class Warmed(msgspec.Struct, frozen=True, array_like=True, tag="warmed", gc=False):
    """A warm-up gave an entry another lifetime."""

    key: int
    hour: bool
    until: float


News = Sent | Answered | Billed | Failed | Warmed

_DECODER: msgspec.msgpack.Decoder[News] = msgspec.msgpack.Decoder(News)
_ENCODER = msgspec.msgpack.Encoder()


def encode(news: News) -> bytes:
    return _ENCODER.encode(news)


def decode(data: bytes) -> News:
    """Raises `msgspec.DecodeError` for what is no news of this version."""
    return _DECODER.decode(data)


def pack_keys(keys: Sequence[int]) -> bytes:
    return _little_endian(array("Q", keys)).tobytes()


def unpack_keys(packed: bytes) -> Sequence[int]:
    return _little_endian(array("Q", packed))


def _little_endian(keys: array[int]) -> array[int]:
    if sys.byteorder == "big":
        keys.byteswap()
    return keys
