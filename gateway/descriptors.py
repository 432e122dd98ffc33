"""How many files and sockets the process may have open: raised as far as the system lets it, and shared out.

Each call takes two of them, the client's and upstream's. Where clients' connections could take them all, none
would be left for upstream, the stores and the probes.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from typing import Final

from gateway.settings.gateway import GatewayFile
from gateway.settings.traffic import Capacity

SPARE: Final = 256
"""For stores, files and probes."""


def raise_limit() -> None:
    """To the hard limit: the soft one is 1,024 in many places, for programs of another age. Those that are
    started from here inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def needed(capacity: Capacity) -> int:
    """With as much work as capacity allows."""
    return capacity.connections + capacity.exchanges + SPARE


def allowed() -> int:
    """To this process."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def allowed_once_raised() -> int:
    """To a gateway that is started from here."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def connections_within(capacity: Capacity, files: int) -> int:
    """How many connections of clients leave enough of so many files: one of upstream's for each call that
    may run, or for each connection where fewer are left."""
    room = files - SPARE
    return max(1, min(capacity.connections, max(room - capacity.exchanges, room // 2)))


def within_limit(file: GatewayFile) -> GatewayFile:
    """With no more connections of clients than this process has room for."""
    connections = connections_within(file.capacity, allowed())
    return file.model_copy(update={"capacity": file.capacity.model_copy(update={"connections": connections})})


def shortage(file: GatewayFile) -> str | None:
    """What is missing, and what to do about it; None where nothing is."""
    files, wanted = allowed(), needed(file.capacity)
    if files >= wanted:
        return None
    return (
        f"{files:,} files may be open here, and capacity asks for {wanted:,}: no more than "
        f"{connections_within(file.capacity, files):,} connections of clients are taken. Raise the hard "
        "limit of the gateway's process (ulimit -Hn, LimitNOFILE), or lower capacity.connections"
    )


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
