"""glibc's allocator, told to keep what is freed, and now and then to give back what lies idle.

Bodies of megabytes come and go with every request, and asking the kernel for their pages each time costs more
than reading them. But what a stream keeps for minutes settles in the gap that its body left, the next body of
that size does not fit any more, and the gaps add up. Nothing else lives here; on other systems and other C
libraries it does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from math import inf
from pathlib import Path

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

KEPT_BYTES = 64 * 2**20
LARGEST_HEAP_BLOCK_BYTES = 32 * 2**20
"""The most that glibc accepts as a threshold on 64-bit systems."""
MEMORY_SECONDS = 5.0
"""How often to look whether some is to be given back."""
GROWN_BYTES = 32 * 2**20
MORE_STREAMS = 32
LONGEST_SECONDS = 60.0
_STATM = Path("/proc/self/statm")


def keep_freed_memory() -> bool:
    """Serve blocks of up to 32 MB from the heap, and give its free top back only beyond 64 MB. One heap for
    all threads: else each has its own, in which what it freed stays. True where it took effect. Call once,
    before the first request."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    wanted = (
        (_M_ARENA_MAX, 1),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK_BYTES),
    )
    taken = [mallopt(option, value) for option, value in wanted]
    return all(taken)


class IdleMemory:
    """Knows when giving back is worth what it costs: the allocator serves nobody for as long as it takes, and
    what is in use soon again is fetched anew. So: when memory has grown by 32 MB or there are 32 more streams
    than the last time, and else once a minute. Instants are monotonic seconds."""

    def __init__(self) -> None:
        self._next_at = -inf
        self._resident_bytes = 0
        self._streams = 0
        """The fewest since the last time."""

    async def look(self, now: float, streams: int) -> None:
        """Give back, in a thread, if it is time; `streams` are those that are open."""
        self._streams = min(self._streams, streams)
        if (
            now >= self._next_at
            or streams >= self._streams + MORE_STREAMS
            or resident_bytes() >= self._resident_bytes + GROWN_BYTES
        ):
            await asyncio.to_thread(give_back_idle_memory)
            self._next_at, self._streams = now + LONGEST_SECONDS, streams
            self._resident_bytes = resident_bytes()


def resident_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def give_back_idle_memory() -> bool:
    """Return whole idle pages, also from between what is in use; they come back at the first touch. True
    where some were returned. Takes some milliseconds for a large heap."""
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim.argtypes = (ctypes.c_size_t,)
    trim.restype = ctypes.c_int
    return bool(trim(0))
