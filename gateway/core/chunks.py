"""The size lines of HTTP/1.1's chunks (RFC 9112, section 7.1), ready made for small ones.

An event of a stream is one small chunk, read and written thousands of times a second: looking its line up
costs less than reading or writing a number. Nothing else of framing lives here: bodies are read by
`adapters/claude_framing.py` and written by `web/client_reply.py`.
"""

from __future__ import annotations

from typing import Final

SMALL_BYTES: Final = 1024
"""Chunks with fewer have their lines here."""

SIZE_LINES: Final = tuple(b"%x\r\n" % size for size in range(SMALL_BYTES))
"""By size."""

_LINES_BY_LENGTH: Final = {len(line) + size + 2: line for size, line in enumerate(SIZE_LINES) if size}


def chunk(data: bytes) -> bytes:
    """`data`, which is not empty, as one chunk."""
    size = len(data)
    line = SIZE_LINES[size] if size < SMALL_BYTES else b"%x\r\n" % size
    return b"".join((line, data, b"\r\n"))


def only_chunk(data: bytes) -> bytes:
    """What is in the one whole small chunk that `data` is; empty where it is anything else, also a chunk
    whose size is spelled in another way than here."""
    line = _LINES_BY_LENGTH.get(len(data))
    if line is not None and data.startswith(line) and data.endswith(b"\r\n"):
        return data[len(line) : -2]
    return b""
