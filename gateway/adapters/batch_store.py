"""Message batches that are not booked yet, on one machine: in SQLite, or in memory. The Redis one is
`batch_store_redis.py`."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.core.batch import KeptBatch
from gateway.core.errors import StoreUnavailable

BUSY_SECONDS = 1.0

_TABLE = """
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY,
    next_at REAL NOT NULL,
    revision INTEGER NOT NULL,
    batch TEXT NOT NULL
) STRICT
"""
_KEEP = "INSERT INTO batches (id, next_at, revision, batch) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
_DUE = "SELECT batch FROM batches WHERE next_at <= ? ORDER BY next_at, id LIMIT ?"
_CHANGE = "UPDATE batches SET next_at = ?, revision = ?, batch = ? WHERE id = ? AND revision = ?"

T = TypeVar("T")
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


class SqliteBatchStore:
    """`ports.BatchStore` in a table of a SQLite file. Each call opens the file, in a thread, and closes it
    again: a batch is written a few times in its life, and looked for every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def keep(self, batch: KeptBatch) -> None:
        values = (batch.id, batch.next_at, batch.revision, written(batch))
        await self._run(lambda connection: connection.execute(_KEEP, values))

    async def due(self, now: float, at_most: int) -> tuple[KeptBatch, ...]:
        rows = await self._run(lambda connection: connection.execute(_DUE, (now, at_most)).fetchall())
        return tuple(read_kept(text) for (text,) in rows)

    async def find(self, batch_id: str) -> KeptBatch | None:
        query = "SELECT batch FROM batches WHERE id = ?"
        row = await self._run(lambda connection: connection.execute(query, (batch_id,)).fetchone())
        return read_kept(row[0]) if row else None

    async def change(self, batch: KeptBatch) -> KeptBatch | None:
        changed = replace(batch, revision=batch.revision + 1)
        values = (changed.next_at, changed.revision, written(changed), batch.id, batch.revision)
        count = await self._run(lambda connection: connection.execute(_CHANGE, values).rowcount)
        return changed if count else None

    async def forget(self, batch_id: str) -> None:
        query = "DELETE FROM batches WHERE id = ?"
        await self._run(lambda connection: connection.execute(query, (batch_id,)))

    async def close(self) -> None:
        """Nothing is held."""

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._open() as connection, connection:
                return work(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the batches in {self._path} cannot be reached: {error}") from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what was promised to a client is on the disk
            connection.execute(_TABLE)
            yield connection
        finally:
            connection.close()


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
