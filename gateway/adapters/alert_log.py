"""The alert log: what people were told, and what they have still to be told. On one machine in SQLite, or in
memory; for several replicas in Redis, see `alert_log_redis.py`.

An alert is written down before anybody is told, under an id that all replicas agree on, so that it is begun
once. Who sends takes what is due for a while (a lease) and writes down how it went. A replica that dies in
between leaves an entry that is due again: people may then be told twice, and are never not told.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gateway.adapters.sqlite_file import WRITING, SqliteFile
from gateway.core.alerts import KEPT_SECONDS, MOST_OPEN, AlertEntry, Begun, entry_text, read_entry

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    due_at REAL,
    revision INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS alerts_due_at ON alerts (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS alerts_at ON alerts (at);
"""
_COLUMNS = "text, revision, due_at"


def read_entries(rows: Iterable[tuple[str | bytes, int, float | None]]) -> tuple[AlertEntry, ...]:
    """Of texts, each with its revision and when it is due. What cannot be read is passed over: it is leased
    like the others, and must not keep them from being sent."""
    found = []
    for text, revision, due_at in rows:
        try:
            found.append(read_entry(text, revision=revision, due_at=due_at))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("an alert that was written down cannot be read, and is passed over: %r", error)
    return tuple(found)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(_SCHEMA)


class SqliteAlertLog:
    """`ports.AlertLog` in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, "the alert log", _prepare)

    async def begin(self, entry: AlertEntry) -> Begun:
        def write(connection: sqlite3.Connection) -> Begun:
            if connection.execute("SELECT 1 FROM alerts WHERE id = ?", (entry.alert.id,)).fetchone():
                return Begun.KNOWN
            connection.execute("DELETE FROM alerts WHERE at < ?", (entry.alert.at - KEPT_SECONDS,))
            if _waiting(connection) >= MOST_OPEN:
                return Begun.FULL
            connection.execute(
                "INSERT INTO alerts (id, at, due_at, revision, text) VALUES (?, ?, ?, 0, ?)",
                (entry.alert.id, entry.alert.at, entry.due_at, entry_text(entry)),
            )
            return Begun.NEW

        return await self._file.run(write, WRITING)

    async def take(self, at: float, lease_seconds: float, at_most: int) -> tuple[AlertEntry, ...]:
        def write(connection: sqlite3.Connection) -> tuple[AlertEntry, ...]:
            rows = connection.execute(
                "SELECT number, text, revision FROM alerts WHERE due_at <= ? ORDER BY due_at LIMIT ?",
                (at, at_most),
            ).fetchall()
            for number, _, _ in rows:
                connection.execute(
                    "UPDATE alerts SET due_at = ?, revision = revision + 1 WHERE number = ?",
                    (at + lease_seconds, number),
                )
            return read_entries((text, revision + 1, at + lease_seconds) for _, text, revision in rows)

        return await self._file.run(write, WRITING)

    async def save(self, entry: AlertEntry) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(
                "UPDATE alerts SET text = ?, due_at = ?, revision = revision + 1 "
                "WHERE id = ? AND revision = ?",
                (entry_text(entry), entry.due_at, entry.alert.id, entry.revision),
            )
            return changed.rowcount == 1

        return await self._file.run(write, WRITING)

    async def history(self, at_most: int) -> tuple[AlertEntry, ...]:
        def read(connection: sqlite3.Connection) -> tuple[AlertEntry, ...]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM alerts ORDER BY at DESC, number DESC LIMIT ?",  # noqa: S608 - a constant
                (at_most,),
            ).fetchall()
            return read_entries(rows)

        return await self._file.run(read)

    async def waiting(self) -> int:
        return await self._file.run(_waiting)

    async def close(self) -> None:
        """Nothing is held."""


class MemoryAlertLog:
    """`ports.AlertLog` in a dictionary, forgotten with it. For trials and tests."""

    def __init__(self) -> None:
        self._entries: dict[str, AlertEntry] = {}

    async def begin(self, entry: AlertEntry) -> Begun:
        if entry.alert.id in self._entries:
            return Begun.KNOWN
        oldest = entry.alert.at - KEPT_SECONDS
        self._entries = {name: each for name, each in self._entries.items() if each.alert.at >= oldest}
        if await self.waiting() >= MOST_OPEN:
            return Begun.FULL
        self._entries[entry.alert.id] = entry
        return Begun.NEW

    async def take(self, at: float, lease_seconds: float, at_most: int) -> tuple[AlertEntry, ...]:
        due = [each for each in self._entries.values() if each.due_at is not None and each.due_at <= at]
        due.sort(key=lambda each: each.due_at or 0.0)
        taken = tuple(
            replace(each, due_at=at + lease_seconds, revision=each.revision + 1) for each in due[:at_most]
        )
        self._entries |= {each.alert.id: each for each in taken}
        return taken

    async def save(self, entry: AlertEntry) -> bool:
        known = self._entries.get(entry.alert.id)
        if known is None or known.revision != entry.revision:
            return False
        self._entries[entry.alert.id] = replace(entry, revision=entry.revision + 1)
        return True

    async def history(self, at_most: int) -> tuple[AlertEntry, ...]:
        newest = sorted(self._entries.values(), key=lambda each: -each.alert.at)
        return tuple(newest[:at_most])

    async def waiting(self) -> int:
        return sum(each.due_at is not None for each in self._entries.values())

    async def close(self) -> None:
        """Nothing is held."""


def _waiting(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT COUNT(*) FROM alerts WHERE due_at IS NOT NULL").fetchone()
    return int(count)
