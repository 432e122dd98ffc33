"""glibc's allocator, told to keep what is freed: bodies of megabytes come and go with every request.

Nothing else lives here. It does nothing on other systems and other C libraries.
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
