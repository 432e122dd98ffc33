"""The log of adjustments in Redis, with a mirror on this replica's disk: what Redis forgets is written back.

A freeze must not end, nor the audit trail begin anew, because somebody said FLUSHALL, a failover led to a
server that lagged, or an old snapshot was loaded. Each replica copies the shared log as it grows. At its
start, and whenever the shared log does not begin as it knew it (each line has a digest of all before it), it
compares the two line by line and writes to each what only the other has, by the adjustments' ids; so replicas
may do it at once, in any order, and end with one log. Numbers are the shared log's, and are given anew to
what is written back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

from gateway.adapters.adjustment_store_redis import EMPTY, Known, Look
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


class SharedLog(AdjustmentStore, Protocol):
    """`RedisAdjustmentStore`."""

    async def look(self, at: float, number: int) -> Look: ...

    async def follow(self, known: Known, at_most: int) -> tuple[tuple[LogEntry, ...], Known] | None: ...

    async def keep(self, entries: Sequence[LogEntry]) -> None: ...

    async def mend(self) -> None: ...


class MirroredAdjustmentStore:
    """`ports.AdjustmentStore`: the shared log, as long as it has all that this replica ever saw in it. Else
    `load` raises `StoreUnavailable` until it has; what was known then stays in force. A long log that has to
    be compared may take longer than the port allows, some milliseconds for each thousand lines.

    A mirror that cannot be written is logged, and hinders nothing while the shared log is there."""

    def __init__(self, shared: SharedLog, mirror: CopiedLog) -> None:
        self._shared = shared
        self._mirror = mirror
        self._known: Known | None = None
        """So far either has what the other has; None: they must be compared."""
        self._lost = False
        """The shared log is surely not what it was: without the mirror nothing can be said."""
        self._behind = False
        """The mirror could not be written."""
        self._comparing = asyncio.Lock()

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        async with self._comparing:
            for turn in range(LOOKS):
                known = self._known or EMPTY
                look = await self._shared.look(at, known[0])
                if not look.whole:
                    log.warning("keys of the log of adjustments were lost: they are made anew from its lines")
                    await self._shared.mend()
                elif self._known is None or look.digest != known[1] or (self._behind and not turn):
                    self._lost |= look.digest != known[1]
                    await self._compare()
                elif look.length == known[0] or await self._follow() is not None:
                    return look.standing
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
        for _ in range(2):  # the line that is taken back may be lost behind the first comparing
            await self._agree()
            entry = await self._shared.take_back(adjustment_id, taken_back)
            if entry is not None:
                await self._wrote(entry)
                return entry
        return None

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        await self._agree()
        return await self._shared.history(before=before, at_most=at_most)

    async def close(self) -> None:
        await self._shared.close()
        await self._mirror.close()

    async def _agree(self) -> None:
        """See that the shared log has all that it had."""
        await self.load(inf)

    async def _follow(self) -> set[_Key] | None:
        """Copy what was added to the shared log, and say what that is; None where the log is another one."""
        seen: set[_Key] = set()
        while self._known is not None:
            found = await self._shared.follow(self._known, PAGE)
            if found is None:
                self._known, self._lost = None, True
            elif found[0]:
                await self._copy(found[0])
                self._known = found[1]
                seen.update(map(_key, found[0]))
            else:
                return seen
        return None

    async def _wrote(self, entry: LogEntry) -> None:
        """From now on the shared log must have this line too."""
        async with self._comparing:
            await self._copy((entry,))
            try:
                seen = await self._follow()
            except StoreUnavailable:  # the line is there: whoever wrote it is told so
                seen = None
            if seen is None or _key(entry) not in seen:  # it may be gone by now, so nothing is known for sure
                self._known = None

    async def _compare(self) -> None:
        """Write to each what only the other has. Known for one is the log once nothing was missing there."""
        shared, known = await self._shared_lines()
        if known is None:
            return
        mirror = await self._mirrored(needed=self._lost)
        here, there = {_key(line) for line in mirror}, {_key(line) for line in shared}
        self._behind = False
        await self._copy([line for line in shared if _key(line) not in here])
        missing = [line for line in mirror if _key(line) not in there]
        self._known, self._lost = (None if missing else known), False
        if missing:
            log.warning("the log of adjustments has lost %d lines: they are written back", len(missing))
        for start in range(0, len(missing), PAGE):
            await self._shared.keep(missing[start : start + PAGE])

    async def _shared_lines(self) -> tuple[list[LogEntry], Known | None]:
        """All of one log; None for what is known where it became another one meanwhile."""
        lines: list[LogEntry] = []
        known = EMPTY
        while (found := await self._shared.follow(known, PAGE)) is not None:
            if not found[0]:
                return lines, known
            lines += found[0]
            known = found[1]
        return lines, None

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


def _key(entry: LogEntry) -> _Key:
    return entry.adjustment.id, entry.taken_back is not None


async def _all(copied: CopiedLog) -> list[LogEntry]:
    found: list[LogEntry] = []
    while lines := await copied.lines(found[-1].number if found else 0, PAGE):
        found += lines
    return found
