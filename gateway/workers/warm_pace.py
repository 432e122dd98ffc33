"""How fast warm-ups may go, and when they leave upstream alone: nobody waits for them, so they yield first.

Warm-ups take from the same rate limits as real calls (rate limits docs, 2026-08-21), and a spend cap stops
all of them until somebody lifts it, or the month ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from gateway.core.headers import Headers, value_of
from gateway.ports import Clock

LONGEST_SECONDS = 3_600.0
"""After so long it is tried again, whatever was said."""
OVERLOADED_SECONDS = 60.0
FAILED_SECONDS = 30.0
CROWDED_SECONDS = 30.0
"""After a real call was told to slow down."""
_BURST_SECONDS = 10.0
_SPENT = frozenset({"enforced_spend_limit_reached", "contract_spend_limit_reached"})
_OWN_LIMIT = "You have reached your specified"


class Pace:
    """So many in a minute, a sixth of them at once."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._clock = clock
        self._per_second = per_minute / 60.0
        self._most = max(1.0, per_minute * _BURST_SECONDS / 60.0)
        self._left = self._most
        self._at = clock.monotonic()

    def take(self) -> bool:
        """Count one, where there is room for it."""
        self._refill()
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def count(self) -> None:
        """Count one that is sent whether or not there is room."""
        self._refill()
        self._left -= 1.0

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now


class Pauses:
    """Names, as of routes, that are left alone for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def pause(self, name: str, seconds: float) -> None:
        until = self._clock.monotonic() + min(seconds, LONGEST_SECONDS)
        self._until[name] = max(self._until.get(name, 0.0), until)

    def left(self, name: str) -> float:
        """Seconds that it is still to be left alone."""
        return max(0.0, self._until.get(name, 0.0) - self._clock.monotonic())


def pause_after(status: int, headers: Headers, body: bytes) -> float | None:
    """For how long an answer says to leave upstream alone; None for one that says nothing of the kind.

    A 429 without `retry-after` is a spend cap of the month; one that somebody set for an organisation or a
    workspace is a 400 that is known by how its message begins (rate limits docs, 2026-08-21)."""
    asked = value_of(headers, b"retry-after")
    seconds = float(asked) if asked is not None and asked.isdigit() else None
    if is_spend_cap(status, seconds, body):
        return LONGEST_SECONDS
    if status == 429:
        return seconds
    if status == 529:
        return seconds or OVERLOADED_SECONDS
    return seconds or FAILED_SECONDS if status >= 500 else None


def is_spend_cap(status: int, retry_after_seconds: float | None, body: bytes) -> bool:
    """Whether upstream takes nothing more until somebody raises a limit or the month ends."""
    if status == 429 and retry_after_seconds is None:
        return True
    if status not in (400, 402, 429):
        return False
    error = _member(_parsed(body), "error")
    if status == 402 or _member(error, "details").get("error_code") in _SPENT:
        return True
    return str(error.get("message", "")).startswith(_OWN_LIMIT)


def _parsed(body: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _member(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
