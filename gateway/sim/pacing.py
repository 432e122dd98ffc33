"""How fast the simulator answers. Real seconds, whatever clock ages the caches."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Delays in seconds, all divided by `speed`. The default answers at once, for tests."""

    first_byte_seconds: float = 0.0
    """From the whole request to the first byte of the answer, before reading the prompt."""
    read_tokens_per_second: float = 0.0
    """How fast tokens that are not read from the cache are taken in; 0 for at once."""
    events_per_second: float = 0.0
    """Deltas of a stream; 0 for as fast as they go."""
    ping_seconds: float = 15.0
    """Silence after which a stream sends a ping."""
    speed: float = 1.0

    @classmethod
    def realistic(cls, speed: float = 1.0) -> Pacing:
        """About what a large model does: half a second, then 40 events a second."""
        return cls(first_byte_seconds=0.5, read_tokens_per_second=20_000, events_per_second=40, speed=speed)

    def first_byte(self, unread_tokens: int) -> float:
        """Seconds until an answer begins: a prompt that is cached is quicker."""
        reading = unread_tokens / self.read_tokens_per_second if self.read_tokens_per_second else 0.0
        return (self.first_byte_seconds + reading) / self.speed

    def event(self) -> float:
        return 1 / self.events_per_second / self.speed if self.events_per_second else 0.0


AT_ONCE: Final = Pacing()


async def pause(seconds: float) -> None:
    """Wait in real time; not at all for nothing."""
    if seconds > 0:
        await asyncio.sleep(seconds)
