"""A cost below which no policy can go, even one that knows all that is to come.

Each block of each prefix is let off every rule but price and lifetime: it is written, kept alive or dropped
by itself, needs no breakpoint, no minimum length and no wait for a first byte, and may be refreshed alone. Of
all ways to serve its accesses the cheapest is found, one access after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from gateway.replay.request import Request
from gateway.replay.tariffs import Cost, Tariff, Tariffs, add_up

FIVE_MINUTES_SECONDS = 300.0
ONE_HOUR_SECONDS = 3600.0


@dataclass(slots=True)
class _Prefix:
    """The least cost so far, per token, that leaves the block uncached, cached for 5 min, or for 1 h."""

    tariff: Tariff
    tokens: int
    at: float
    plain: float
    five: float
    hour: float


class ClairvoyantBound:
    """Add the requests in the order of time."""

    def __init__(self, tariffs: Tariffs) -> None:
        self._tariffs = tariffs
        self._prefixes: dict[tuple[int, int], _Prefix] = {}

    def add(self, request: Request) -> None:
        tariff = self._tariffs.of(request, request.prompt_tokens)
        read, write_5m, write_1h = float(tariff.read), float(tariff.write_5m), float(tariff.write_1h)
        before = 0
        for key, end in zip(request.keys, request.billed_ends, strict=True):
            place, tokens = (request.scope, key), end - before
            before = end
            prefix = self._prefixes.get(place)
            if prefix is None:
                self._prefixes[place] = _Prefix(tariff, tokens, request.at, 1.0, write_5m, write_1h)
                continue
            gap = request.at - prefix.at
            renewed_5m = read if gap <= FIVE_MINUTES_SECONDS else read * ceil(gap / FIVE_MINUTES_SECONDS)
            renewed_1h = read if gap <= ONE_HOUR_SECONDS else read * ceil(gap / ONE_HOUR_SECONDS)
            least = min(prefix.plain, prefix.five, prefix.hour)
            prefix.plain = least + 1.0
            prefix.five = min(prefix.five + renewed_5m, least + write_5m)
            prefix.hour = min(prefix.hour + renewed_1h, least + write_1h)
            prefix.at, prefix.tokens, prefix.tariff = request.at, tokens, tariff

    @property
    def cost(self) -> Cost:
        amounts: dict[Tariff, float] = {}
        for prefix in self._prefixes.values():
            least = prefix.tokens * min(prefix.plain, prefix.five, prefix.hour)
            amounts[prefix.tariff] = amounts.get(prefix.tariff, 0.0) + least
        return add_up([(tariff, Fraction(amount)) for tariff, amount in amounts.items()])
