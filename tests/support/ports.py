"""Ports for servers that must be told theirs before they start, or that start again on the one they had.

The system hands out ports of a range of its own to whoever asks for any, and for the near end of each
connection: one that was free a moment ago may be somebody's by the time that a server binds it. These are
below that range, and no process is given one twice.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _AT_LEAST = 10_000, 5_000


def free_port() -> int:
    """One on loopback that nobody listens on now."""
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


def _ports() -> Iterator[int]:
    """Each process begins somewhere else, so that those that run side by side hardly meet."""
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    ports = range(_FIRST, end if end - _FIRST >= _AT_LEAST else 32_768)
    begin = random.Random(os.getpid()).randrange(len(ports))
    yield from ports[begin:]
    yield from ports[:begin]


_PORTS = _ports()
