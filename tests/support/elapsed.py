"""How long something took whoever has the loop, without the moments in which the machine had no processor for
this process: a bound on what the gateway waits for says nothing of how busy the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.005
LOST_SECONDS = 0.02
"""What lies between two looks counts for so much at most."""


class Elapsed:
    """Made by `elapsed`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        self.seconds = 0.0

    def _look(self) -> None:
        self._count()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _count(self) -> None:
        now = self._loop.time()
        self.seconds += min(now - self._at, LOST_SECONDS)
        self._at = now

    def end(self) -> None:
        self._timer.cancel()
        self._count()


@contextmanager
def elapsed() -> Iterator[Elapsed]:
    """Inside a running loop; `seconds` is whole once it is left."""
    took = Elapsed()
    try:
        yield took
    finally:
        took.end()
