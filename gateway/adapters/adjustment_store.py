"""The log of adjustments on one machine: in SQLite, or in memory. The Redis one is
`adjustment_store_redis.py`, of which each replica keeps a mirror in the one of SQLite here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from math import inf
from pathlib import Path

from gateway.adapters.adjustment_store_text import entry_of, text_of
from gateway.adapters.sqlite_file import WRITING, SqliteFile
from gateway.core.adjustments import (
    EXPIRED_KEPT_SECONDS,
    MAX_IN_FORCE,
    Adjustment,
    LogEntry,
    TakenBack,
    ends_at,
)
from gateway.core.errors import TooManyAdjustments

# A log: nothing is changed or removed, not by mistake either. One line at most for each of the two things
# that can happen to an adjustment.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS adjustments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    taken_back INTEGER NOT NULL,
    ends_at REAL NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (id, taken_back)
) STRICT;
CREATE INDEX IF NOT EXISTS adjustments_ends_at ON adjustments (ends_at) WHERE taken_back = 0;
CREATE TRIGGER IF NOT EXISTS adjustments_stay BEFORE DELETE ON adjustments
BEGIN SELECT RAISE(ABORT, 'the log of adjustments is never shortened'); END;
CREATE TRIGGER IF NOT EXISTS adjustments_keep BEFORE UPDATE ON adjustments
BEGIN SELECT RAISE(ABORT, 'the log of adjustments is never changed'); END;
"""
_STANDING = """
FROM adjustments AS made WHERE taken_back = 0 AND ends_at > ?
AND NOT EXISTS (SELECT 1 FROM adjustments AS taken WHERE taken.id = made.id AND taken.taken_back = 1)
"""


def _prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(_SCHEMA)


class SqliteAdjustmentStore:
    """`ports.AdjustmentStore` in a table of a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, "the adjustments", _prepare)

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        def read(connection: sqlite3.Connection) -> tuple[Adjustment, ...]:
            query = f"SELECT number, text {_STANDING} ORDER BY number LIMIT ?"
            rows = connection.execute(query, (at, MAX_IN_FORCE)).fetchall()
            return tuple(entry_of(number, text).adjustment for number, text in rows)

        return await self._file.run(read)

    async def find(self, adjustment_id: str) -> LogEntry | None:
        def read(connection: sqlite3.Connection) -> LogEntry | None:
            return _line(connection, adjustment_id, 1) or _line(connection, adjustment_id, 0)

        return await self._file.run(read)

    async def add(self, adjustment: Adjustment) -> LogEntry:
        def write(connection: sqlite3.Connection) -> LogEntry:
            known = _line(connection, adjustment.id, 0)
            if known is not None:
                return known
            floor = adjustment.at - EXPIRED_KEPT_SECONDS
            (standing,) = connection.execute(f"SELECT COUNT(*) {_STANDING}", (floor,)).fetchone()
            if standing >= MAX_IN_FORCE:
                raise TooManyAdjustments
            return _append(connection, adjustment, None)

        return await self._file.run(write, WRITING)

    async def take_back(self, adjustment_id: str, taken_back: TakenBack) -> LogEntry | None:
        def write(connection: sqlite3.Connection) -> LogEntry | None:
            made = _line(connection, adjustment_id, 0)
            if made is None:
                return None
            known = _line(connection, adjustment_id, 1)
            return known or _append(connection, made.adjustment, taken_back)

        return await self._file.run(write, WRITING)

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        def read(connection: sqlite3.Connection) -> tuple[LogEntry, ...]:
            query = "SELECT number, text FROM adjustments WHERE number < ? ORDER BY number DESC LIMIT ?"
            rows = connection.execute(query, (2**62 if before is None else before, at_most)).fetchall()
            return tuple(entry_of(number, text) for number, text in rows)

        return await self._file.run(read)

    async def lines(self, after: int, at_most: int) -> tuple[LogEntry, ...]:
        """The next lines after this number, in their order. Raises `StoreUnavailable`."""

        def read(connection: sqlite3.Connection) -> tuple[LogEntry, ...]:
            query = "SELECT number, text FROM adjustments WHERE number > ? ORDER BY number LIMIT ?"
            return tuple(entry_of(*row) for row in connection.execute(query, (after, at_most)).fetchall())

        return await self._file.run(read)

    async def keep(self, entries: Sequence[LogEntry]) -> None:
        """Have these lines of another copy of the log, each once, by new numbers where they are missing; all
        or none of them. Raises `StoreUnavailable`."""

        def write(connection: sqlite3.Connection) -> None:
            for entry in entries:
                taken_back = int(entry.taken_back is not None)
                if _line(connection, entry.adjustment.id, taken_back) is None:
                    _append(connection, entry.adjustment, entry.taken_back)

        await self._file.run(write, WRITING)

    async def close(self) -> None:
        """Nothing is held."""


class MemoryAdjustmentStore:
    """`ports.AdjustmentStore` in a list, forgotten with it. For trials and tests."""

    def __init__(self) -> None:
        self._log: list[LogEntry] = []

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        return tuple(self._standing(at)[:MAX_IN_FORCE])

    async def find(self, adjustment_id: str) -> LogEntry | None:
        return self._line(adjustment_id, taken_back=True) or self._line(adjustment_id, taken_back=False)

    async def add(self, adjustment: Adjustment) -> LogEntry:
        known = self._line(adjustment.id, taken_back=False)
        if known is not None:
            return known
        if len(self._standing(adjustment.at - EXPIRED_KEPT_SECONDS)) >= MAX_IN_FORCE:
            raise TooManyAdjustments
        return self._append(adjustment, None)

    async def take_back(self, adjustment_id: str, taken_back: TakenBack) -> LogEntry | None:
        made = self._line(adjustment_id, taken_back=False)
        if made is None:
            return None
        return self._line(adjustment_id, taken_back=True) or self._append(made.adjustment, taken_back)

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        end = len(self._log) if before is None else min(max(before - 1, 0), len(self._log))
        return tuple(reversed(self._log[max(end - at_most, 0) : end]))

    async def close(self) -> None:
        """Nothing is held."""

    def _standing(self, at: float) -> list[Adjustment]:
        taken = {entry.adjustment.id for entry in self._log if entry.taken_back is not None}
        made = (entry.adjustment for entry in self._log if entry.taken_back is None)
        return [each for each in made if each.id not in taken and ends_at(each) > at]

    def _line(self, adjustment_id: str, *, taken_back: bool) -> LogEntry | None:
        for entry in self._log:
            if entry.adjustment.id == adjustment_id and (entry.taken_back is not None) is taken_back:
                return entry
        return None

    def _append(self, adjustment: Adjustment, taken_back: TakenBack | None) -> LogEntry:
        entry = LogEntry(number=len(self._log) + 1, adjustment=adjustment, taken_back=taken_back)
        self._log.append(entry)
        return entry


def _line(connection: sqlite3.Connection, adjustment_id: str, taken_back: int) -> LogEntry | None:
    query = "SELECT number, text FROM adjustments WHERE id = ? AND taken_back = ?"
    row = connection.execute(query, (adjustment_id, taken_back)).fetchone()
    return None if row is None else entry_of(*row)


def _append(connection: sqlite3.Connection, adjustment: Adjustment, taken_back: TakenBack | None) -> LogEntry:
    cursor = connection.execute(
        "INSERT INTO adjustments (id, taken_back, ends_at, text) VALUES (?, ?, ?, ?)",
        (
            adjustment.id,
            int(taken_back is not None),
            min(ends_at(adjustment), _NEVER),
            text_of(adjustment, taken_back),
        ),
    )
    assert cursor.lastrowid is not None
    return LogEntry(number=cursor.lastrowid, adjustment=adjustment, taken_back=taken_back)


_NEVER = 1e300
"""In place of infinity, for which SQL has no literal."""
assert inf > _NEVER
