"""The log of adjustments in Redis, with a mirror on this replica's disk: what Redis forgets is written back.

A freeze must not end, nor the audit trail begin anew, because somebody said FLUSHALL, a failover led to a
server that lagged, or an old snapshot was loaded. Each replica copies the shared log as it grows. At its
start, and whenever the shared log is not the one it knew (shorter, or with another line in the place of the
last known one), it compares the two line by line and writes to each what only the other has, by the
adjustments' ids; so replicas may do it at once, in any order, and end with one log. Numbers are the shared
log's, and are given anew to what is written back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

from gateway.adapters.adjustment_store_redis import Look
from gateway.core.adjustments import Adjustment, LogEntry, TakenBack
from gateway.core.errors import StoreUnavailable
from gateway.ports import AdjustmentStore

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Lines that are read or written in one go."""
LOOKS: Final = 5
"""After so many the log changes faster than it can be compared: it is left for the next turn."""

_Key = tuple[str, bool]
"""What a line is, whatever its number: an adjustment's id, and whether it is taken back there."""


class CopiedLog(Protocol):
    """A log whose lines can be read and written one by one; both adapters' docstrings say more."""

    async def lines(self, after: int, at_most: int) -> tuple[LogEntry, ...]: ...

    async def keep(self, entries: Sequence[LogEntry]) -> None: ...

    async def close(self) -> None: ...


class SharedLog(CopiedLog, AdjustmentStore, Protocol):
    """`RedisAdjustmentStore`."""

    async def look(self, at: float, number: int) -> Look: ...


class MirroredAdjustmentStore:
    """`ports.AdjustmentStore`: the shared log, as long as it has all that this replica ever saw in it. Else
    `load` raises `StoreUnavailable` until it has; what was known then stays in force. A long log that has to
    be compared may take longer than the port allows, some milliseconds for each thousand lines.

    A mirror that cannot be written is logged, and hinders nothing while the shared log is there."""

    def __init__(self, shared: SharedLog, mirror: CopiedLog) -> None:
        self._shared = shared
        self._mirror = mirror
        self._compared = False
        """Whether the two were compared since the start."""
        self._length, self._last = 0, _NOTHING
        """How long the shared log was when it was last seen, and its last line."""
        self._behind = False
        """The mirror could not be written."""
        self._comparing = asyncio.Lock()

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        async with self._comparing:
            for turn in range(LOOKS):
                look = await self._shared.look(at, self._length)
                known = self._is_known(look)
                if known and (turn or not self._behind):
                    if look.length > self._length:
                        await self._follow()
                    return look.standing
                await self._compare(lost=self._compared and not known)
        raise StoreUnavailable("the log of adjustments changes while it is compared with its mirror")

    async def find(self, adjustment_id: str) -> LogEntry | None:
        await self._agree()
        return await self._shared.find(adjustment_id)

    async def add(self, adjustment: Adjustment) -> LogEntry:
        await self._agree()
        entry = await self._shared.add(adjustment)
        await self._wrote(entry)
        return entry

    async def take_back(self, adjustment_id: str, taken_back: TakenBack) -> LogEntry | None:
        await self._agree()
        entry = await self._shared.take_back(adjustment_id, taken_back)
        if entry is not None:
            await self._wrote(entry)
        return entry

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        await self._agree()
        return await self._shared.history(before=before, at_most=at_most)

    async def close(self) -> None:
        await self._shared.close()
        await self._mirror.close()

    async def _agree(self) -> None:
        """See that the shared log has all that it had."""
        await self.load(inf)

    def _is_known(self, look: Look) -> bool:
        if not self._compared or look.length < self._length:
            return False
        return self._length == 0 or (look.line is not None and _key(look.line) == self._last)

    async def _follow(self) -> None:
        """Copy what was added to the shared log."""
        while lines := await self._shared.lines(self._length, PAGE):
            await self._copy(lines)
            self._length, self._last = lines[-1].number, _key(lines[-1])

    async def _wrote(self, entry: LogEntry) -> None:
        """From now on the shared log must have this line too."""
        await self._copy((entry,))
        async with self._comparing:
            try:
                await self._follow()
                self._compared &= self._length >= entry.number
            except StoreUnavailable:  # the line is there: whoever wrote it is told so
                self._compared = False

    async def _compare(self, *, lost: bool) -> None:
        """Write to each what only the other has. The next look finds whether they are one then. `lost`: the
        shared log has surely lost something."""
        shared = await _all(self._shared)
        mirror = await self._mirrored(needed=lost)
        here, there = {_key(line) for line in mirror}, {_key(line) for line in shared}
        self._behind = False
        await self._copy([line for line in shared if _key(line) not in here])
        missing = [line for line in mirror if _key(line) not in there]
        if missing:
            log.warning("the log of adjustments has lost %d lines: they are written back", len(missing))
            for start in range(0, len(missing), PAGE):
                await self._shared.keep(missing[start : start + PAGE])
            shared = await _all(self._shared)
        self._length = shared[-1].number if shared else 0
        self._last = _key(shared[-1]) if shared else _NOTHING
        self._compared = True

    async def _mirrored(self, *, needed: bool) -> list[LogEntry]:
        try:
            return await _all(self._mirror)
        except StoreUnavailable as error:
            if needed:
                raise
            log.error("the mirror of the adjustments is left out of account: %s", error.message)
            return []

    async def _copy(self, lines: Sequence[LogEntry]) -> None:
        try:
            for start in range(0, len(lines), PAGE):
                await self._mirror.keep(lines[start : start + PAGE])
        except StoreUnavailable as error:
            self._behind = True
            log.warning("the mirror of the adjustments could not be written: %s", error.message)


_NOTHING: Final[_Key] = ("", False)


def _key(entry: LogEntry) -> _Key:
    return entry.adjustment.id, entry.taken_back is not None


async def _all(copied: CopiedLog) -> list[LogEntry]:
    found: list[LogEntry] = []
    while lines := await copied.lines(found[-1].number if found else 0, PAGE):
        found += lines
    return found
