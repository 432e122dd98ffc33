"""Bodies that were read lately, so that what a conversation repeats need not be read and digested again.

Most of a call is what the call before it said: the same tools, the same system, the same messages but the
last. Where the bytes are the same, so is what was read from them; they are compared, never assumed. What is
kept here only saves time: without it every answer is the same (tests/property/test_recent.py).

Bodies are held in memory, for a bounded time and up to a bounded size, and are of no use to anybody but the
workspace that sent them. Nothing here decides anything.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.core.ids import WorkspaceId
from gateway.core.plan import Reading

LIFETIME_SECONDS = 600.0
"""A conversation that pauses for longer is read anew."""
FORGOTTEN_AT_ONCE = 16
"""So that hundreds that came within a minute do not hold up the loop when they go."""
LEAST_BYTES = 8 << 10
"""Smaller bodies are read as fast as they are found."""
BLOCK_BYTES = 600
"""What is known of a body takes for each of its blocks, at most."""
_MESSAGES = b'"messages"'
_HEAD_BYTES = 1024


class RecentBodies:
    """The last body of each conversation, as told by the head of its messages. One thread at a time."""

    def __init__(self, memory_bytes: int) -> None:
        self._most_bytes = memory_bytes
        self._kept: OrderedDict[tuple[WorkspaceId, int], tuple[float, Reading]] = OrderedDict()
        self._begins_at: dict[WorkspaceId, int] = {}
        self.bytes = 0
        """Held now."""
        self._looked_for: tuple[bytes, tuple[WorkspaceId, int]] | None = None
        """The last body that was looked for, which is mostly the next to be kept."""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, workspace: WorkspaceId, body: bytes, now: float) -> Reading | None:
        """What may begin like `body`."""
        self.expire(now)
        if len(body) < LEAST_BYTES:
            return None
        key = self._key(workspace, body)
        self._looked_for = body, key
        found = self._kept.get(key)
        return None if found is None else found[1]

    def keep(self, workspace: WorkspaceId, reading: Reading, now: float) -> None:
        """In place of the one before it of the same conversation."""
        body = reading.prompt.body
        size = _size(reading)
        if len(body) < LEAST_BYTES or size > self._most_bytes:
            return
        looked_for, self._looked_for = self._looked_for, None
        same = looked_for is not None and looked_for[0] is body and looked_for[1][0] == workspace
        key = looked_for[1] if looked_for is not None and same else self._key(workspace, body)
        self._drop(key)
        self._kept[key] = now, reading
        self.bytes += size
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def expire(self, now: float) -> None:
        """Forget what nobody went on with; some of it, where it is much."""
        for _ in range(min(FORGOTTEN_AT_ONCE, len(self._kept))):
            key, (kept_at, _) = next(iter(self._kept.items()))
            if now - kept_at < LIFETIME_SECONDS:
                return
            self._drop(key)

    def _key(self, workspace: WorkspaceId, body: bytes) -> tuple[WorkspaceId, int]:
        # Where the messages begin is a guess, which costs nothing but time where it is wrong. They mostly
        # begin where those of the last body did.
        at = self._begins_at.get(workspace, 0)
        if not body.startswith(_MESSAGES, at):
            at = self._begins_at[workspace] = max(body.find(_MESSAGES), 0)
        return workspace, hash(body[at : at + _HEAD_BYTES])

    def _drop(self, key: tuple[WorkspaceId, int]) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= _size(found[1])


def _size(reading: Reading) -> int:
    return len(reading.prompt.body) + BLOCK_BYTES * len(reading.prompt.blocks)
