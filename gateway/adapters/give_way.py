"""How a long computation in a thread leaves the processor to the loop.

The interpreter's lock is one half of it (`garbage.py`): C code that lets go of the lock, SQLite's and zlib's,
still has the processor, and where the loop has no other, Linux lets it have that one only after some
milliseconds each time that it has something to do. So who computes for longer pauses now and then.
"""

from __future__ import annotations

import time
from typing import Final

PAUSE_SECONDS: Final = 0.001
WORK_SECONDS, SHORT_PAUSE_SECONDS = 0.0005, 0.0002
"""The same of work that a call waits for: just long enough for the loop to have its turn."""


def give_way() -> int:
    """Call every half a millisecond or so, from a thread: it takes some three times as long then. Returns 0,
    as SQLite wants it of a progress handler that goes on."""
    time.sleep(PAUSE_SECONDS)
    return 0


class Pauses:
    """For Python that computes in a thread, and for one computation: call it as often as may be."""

    def __init__(self) -> None:
        self._next_at = time.perf_counter() + WORK_SECONDS

    def __call__(self) -> None:
        if time.perf_counter() >= self._next_at:
            time.sleep(SHORT_PAUSE_SECONDS)
            self._next_at = time.perf_counter() + WORK_SECONDS
