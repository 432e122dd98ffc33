"""Clocks that move when told to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from gateway.adapters.clock import SystemClock


class FakeClock:
    """`ports.Clock` for tests: `advance` moves both clocks and wakes who slept long enough."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        # Whole microseconds, so that many small steps end exactly where one large one does.
        self._now_us = round(now * 1e6)
        self._monotonic_us = 1_000_000_000
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now_us / 1e6

    def monotonic(self) -> float:
        return self._monotonic_us / 1e6

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic_us + round(seconds * 1e6), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Let time pass. What slept is woken in order of its waking time, at the loop's next turn."""
        assert seconds >= 0, "use `jump` to set the wall clock back"
        self._now_us += round(seconds * 1e6)
        self._monotonic_us += round(seconds * 1e6)
        due = sorted((s for s in self._sleepers if s[0] <= self._monotonic_us), key=lambda s: s[0])
        self._sleepers = [s for s in self._sleepers if s[0] > self._monotonic_us]
        for _, woken in due:
            if not woken.done():
                woken.set_result(None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock, forth or back, as an operator or NTP does; durations do not notice."""
        self._now_us += round(seconds * 1e6)

    @property
    def sleeping(self) -> int:
        """How many are asleep; lets a test wait until its subject has come to rest."""
        return sum(not woken.done() for _, woken in self._sleepers)


class ShiftedClock(SystemClock):
    """Real time that can be told to jump ahead: sleeps are real, instants are shifted."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def jump(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.ahead += seconds


def mid_month() -> ShiftedClock:
    """A clock at noon of some tenth: no day, week or month ends while somebody looks."""
    clock = ShiftedClock()
    now = datetime.fromtimestamp(clock.now(), UTC)
    later = datetime(now.year + 1, now.month, 10, 12, tzinfo=UTC)
    clock.jump((later - now).total_seconds())
    return clock


def zone_at_noon() -> str:
    """A time zone in which it is about noon: none of its days or months begins or ends within some hours."""
    return f"Etc/GMT{int(SystemClock().now() // 3600 % 24) - 12:+d}"
