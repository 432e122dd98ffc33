"""Keep-alive: which entries deserve one more lifetime, and when to ask again.

A warm-up reads the whole prefix, so it costs r per token each lifetime and saves 1.25 - r per token if the
next request comes in that lifetime. An entry of an hour's TTL inside the prefix is what would be read
otherwise, so only what lies behind it counts as saved.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from gateway.core.planner.reuse import Chances
from gateway.core.planner.values import FIVE_MINUTES_SECONDS, ONE_HOUR_SECONDS, Prices

MAX_KEPT = 4096
MAX_LIFETIMES = 12
MARGIN_SECONDS = 15.0
"""How long before its end a lifetime is renewed."""


@dataclass(slots=True)
class Kept:
    """An entry that may be kept alive, if nobody comes before."""

    request: int
    block: int
    key: int
    tokens: int
    tokens_saved: int
    """What would have to be written again without it."""
    hour: bool
    since: float
    """Instant of the access that began its idleness."""
    workspace: int
    prices: Prices
    outlook: Chances
    lifetimes: int = 0
    """Renewals so far."""

    @property
    def lifetime_seconds(self) -> float:
        return ONE_HOUR_SECONDS if self.hour else FIVE_MINUTES_SECONDS

    @property
    def chance(self) -> float:
        """Of an access in the next lifetime, given that none came in this one."""
        return self.outlook.in_lifetime(self.hour, self.lifetimes)

    @property
    def cost(self) -> float:
        return self.prices.read * self.tokens


class Keeping:
    """The entries that are to be asked about, by time. Bounded: beyond `MAX_KEPT` no more are taken."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Kept]] = []
        self._number = 0

    def consider(self, kept: Kept) -> None:
        """Ask again shortly before the entry ends, if a renewal can be expected to pay."""
        if pays(kept) and len(self._queue) < MAX_KEPT:
            due = kept.since + (kept.lifetimes + 1) * (kept.lifetime_seconds - MARGIN_SECONDS)
            self._number += 1
            heapq.heappush(self._queue, (due, self._number, kept))

    def due(self, now: float) -> list[Kept]:
        """Those whose time has come, taken off."""
        ready = []
        while self._queue and self._queue[0][0] <= now:
            ready.append(heapq.heappop(self._queue)[2])
        return ready

    def next_due(self) -> float | None:
        return self._queue[0][0] if self._queue else None


def pays(kept: Kept) -> bool:
    """Whether one more lifetime is worth its read."""
    saved = kept.tokens_saved * kept.chance * (kept.prices.write_5m - kept.prices.read)
    return kept.tokens > 0 and kept.lifetimes < MAX_LIFETIMES and saved > kept.cost
