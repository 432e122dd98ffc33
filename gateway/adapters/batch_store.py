"""Message batches that are not booked yet, on one machine: in SQLite, or in memory. The Redis one is
`batch_store_redis.py`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec

from gateway.adapters.sqlite_file import SqliteFile
from gateway.core.batch import KeptBatch
from gateway.core.errors import StoreUnavailable

log = logging.getLogger(__name__)

UNREADABLE_SECONDS = 3600.0
"""After so long a batch that cannot be read is looked at again: a later version may have written it."""

_TABLE = """
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY,
    next_at REAL NOT NULL,
    revision INTEGER NOT NULL,
    batch TEXT NOT NULL
) STRICT
"""
_KEEP = "INSERT INTO batches (id, next_at, revision, batch) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
_DUE = "SELECT id, batch FROM batches WHERE next_at <= ? ORDER BY next_at, id LIMIT ?"
_PUT_OFF = "UPDATE batches SET next_at = ? WHERE id = ?"
_CHANGE = "UPDATE batches SET next_at = ?, revision = ?, batch = ? WHERE id = ? AND revision = ?"

_BATCH = msgspec.json.Decoder(KeptBatch)


def written(batch: KeptBatch) -> str:
    """As text, to be read with `read_kept`."""
    return msgspec.json.encode(batch).decode()


def read_kept(text: str | bytes) -> KeptBatch:
    """Raises `StoreUnavailable` for what was never written here."""
    try:
        return _BATCH.decode(text)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"a batch that was kept cannot be read: {error}") from error


def read_due(rows: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[KeptBatch, ...], list[str]]:
    """Those that can be read, and the ids of the others: they are to be put off, and hold nobody up."""
    found, unreadable = [], []
    for batch_id, text in rows:
        try:
            found.append(read_kept(text))
        except StoreUnavailable as error:
            log.error("batch %s is passed over: %s", batch_id, error.message)
            unreadable.append(batch_id)
    return tuple(found), unreadable


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = FULL")  # what was promised to a client is on the disk
    connection.execute(_TABLE)


class SqliteBatchStore:
    """`ports.BatchStore` in a table of a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, "the batches", _prepare)

    async def keep(self, batch: KeptBatch) -> None:
        values = (batch.id, batch.next_at, batch.revision, written(batch))
        await self._file.run(lambda connection: connection.execute(_KEEP, values))

    async def due(self, now: float, at_most: int) -> tuple[KeptBatch, ...]:
        rows = await self._file.run(lambda connection: connection.execute(_DUE, (now, at_most)).fetchall())
        found, unreadable = read_due(rows)
        if unreadable:
            later = [(now + UNREADABLE_SECONDS, batch_id) for batch_id in unreadable]
            await self._file.run(lambda connection: connection.executemany(_PUT_OFF, later))
        return found

    async def find(self, batch_id: str) -> KeptBatch | None:
        query = "SELECT batch FROM batches WHERE id = ?"
        row = await self._file.run(lambda connection: connection.execute(query, (batch_id,)).fetchone())
        return read_kept(row[0]) if row else None

    async def change(self, batch: KeptBatch) -> KeptBatch | None:
        changed = replace(batch, revision=batch.revision + 1)
        values = (changed.next_at, changed.revision, written(changed), batch.id, batch.revision)
        count = await self._file.run(lambda connection: connection.execute(_CHANGE, values).rowcount)
        return changed if count else None

    async def forget(self, batch_id: str) -> None:
        query = "DELETE FROM batches WHERE id = ?"
        await self._file.run(lambda connection: connection.execute(query, (batch_id,)))

    async def close(self) -> None:
        """Nothing is held."""


class MemoryBatchStore:
    """`ports.BatchStore` in a dict, forgotten with it. For trials and tests."""

    def __init__(self) -> None:
        self._batches: dict[str, KeptBatch] = {}

    async def keep(self, batch: KeptBatch) -> None:
        self._batches.setdefault(batch.id, batch)

    async def due(self, now: float, at_most: int) -> tuple[KeptBatch, ...]:
        due = [batch for batch in self._batches.values() if batch.next_at <= now]
        return tuple(sorted(due, key=lambda batch: (batch.next_at, batch.id))[:at_most])

    async def find(self, batch_id: str) -> KeptBatch | None:
        return self._batches.get(batch_id)

    async def change(self, batch: KeptBatch) -> KeptBatch | None:
        known = self._batches.get(batch.id)
        if known is None or known.revision != batch.revision:
            return None
        changed = self._batches[batch.id] = replace(batch, revision=batch.revision + 1)
        return changed

    async def forget(self, batch_id: str) -> None:
        self._batches.pop(batch_id, None)

    async def close(self) -> None:
        """Nothing is held."""
