"""What a planner keeps over a restart, as one text, for tests that compare or restore it."""

from __future__ import annotations

from gateway.core.planner import Planner, snapshot
from gateway.core.planner.reuse import Reuse


def exported(reuse: Reuse) -> tuple[bytes, bytes, bytes]:
    """As it is now: counts of accesses and of their ends, and what is observed."""
    reached, ended, observing = reuse.export()
    return bytes(reached), bytes(ended), observing()


def dumped(planner: Planner) -> bytes:
    """Of the beginning of time."""
    return b"".join(snapshot.dump(planner, 0.0))
