"""glibc's allocator, told to keep what is freed, and now and then to give back what lies idle.

Bodies of megabytes come and go with every request, and asking the kernel for their pages each time costs more
than reading them. But what a stream keeps for minutes settles in the gap that its body left, the next body of
that size does not fit any more, and the gaps add up. Nothing else lives here; on other systems and other C
libraries it does nothing.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

KEPT_BYTES = 64 * 2**20
LARGEST_HEAP_BLOCK_BYTES = 32 * 2**20
"""The most that glibc accepts as a threshold on 64-bit systems."""


def keep_freed_memory() -> bool:
    """Serve blocks of up to 32 MB from the heap, and give its free top back only beyond 64 MB. True where
    it took effect. Call once, before the first request."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(
        mallopt(_M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK_BYTES)
    )


def give_back_idle_memory() -> bool:
    """Return whole idle pages, also from between what is in use; they come back at the first touch. True
    where some were returned. Takes some milliseconds for a large heap: call it in a thread."""
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim.argtypes = (ctypes.c_size_t,)
    trim.restype = ctypes.c_int
    return bool(trim(0))
