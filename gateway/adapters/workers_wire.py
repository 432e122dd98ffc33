"""What workers of one machine and the hub between them say to each other: frames of msgpack with their length
in front. All processes are of one version."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

MAX_FRAME_BYTES: Final = 16 << 20
_LENGTH: Final = struct.Struct("<I")


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first word of a worker: its name among replicas."""

    replica: str


class Listen(msgspec.Struct, frozen=True, tag=True):
    """From now on it wants to hear."""


class Claim(msgspec.Struct, frozen=True, tag=True):
    number: int
    names: list[bytes]
    holder: str
    seconds: float


class GiveUp(msgspec.Struct, frozen=True, tag=True):
    holder: str


class Tell(msgspec.Struct, frozen=True, tag=True):
    news: bytes


class Claimed(msgspec.Struct, frozen=True, tag=True):
    """The answer to the claim of that number: who holds what was asked for; None where the asker does."""

    number: int
    owner: str | None


class Heard(msgspec.Struct, frozen=True, tag=True):
    replica: str
    news: bytes


class Gone(msgspec.Struct, frozen=True, tag=True):
    replica: str


ToHub = Hello | Listen | Claim | GiveUp | Tell
ToWorker = Claimed | Heard | Gone

_encode = msgspec.msgpack.Encoder().encode


def frame(message: ToHub | ToWorker) -> bytes:
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes as they arrive, to the bodies of whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises ValueError for a frame that is too long."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, at)
                if length > MAX_FRAME_BYTES:
                    raise ValueError("a frame is too long")
                end = at + _LENGTH.size + length
                if len(buffer) < end:
                    break
                body = bytes(buffer[at + _LENGTH.size : end])
                at = end
                yield body
        finally:
            del buffer[:at]
