"""The system clock: the one place that reads the wall clock and sleeps by it."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`ports.Clock` over the operating system's clocks."""

    def now(self) -> float:
        return time.time()  # noqa: TID251

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
