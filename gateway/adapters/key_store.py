"""Key records on one machine: in SQLite, or in memory. The Redis one is `key_store_redis.py`."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

from gateway.adapters.sqlite_file import SqliteFile
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import KeyRecord

_TABLE = """
CREATE TABLE IF NOT EXISTS virtual_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    workspace TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    created_by TEXT NOT NULL,
    last4 TEXT NOT NULL,
    revoked_by TEXT NOT NULL DEFAULT ''
) STRICT
"""
_ADDED = "ALTER TABLE virtual_keys ADD COLUMN revoked_by TEXT NOT NULL DEFAULT ''"
"""For files that were made before there was such a column."""
_COLUMNS = "id, name, workspace, digest, created_at, expires_at, revoked_at, created_by, last4, revoked_by"
# A key that was revoked stays so, whatever is put in its place.
_PUT = f"""
INSERT INTO virtual_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, workspace = excluded.workspace, digest = excluded.digest,
    created_at = excluded.created_at, expires_at = excluded.expires_at,
    revoked_at = COALESCE(virtual_keys.revoked_at, excluded.revoked_at),
    revoked_by = CASE WHEN virtual_keys.revoked_at IS NULL THEN excluded.revoked_by
        ELSE virtual_keys.revoked_by END,
    created_by = excluded.created_by, last4 = excluded.last4
"""  # noqa: S608 - a constant


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(_TABLE)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(virtual_keys)")}
    if "revoked_by" not in columns:
        with contextlib.suppress(sqlite3.OperationalError):  # another process was first
            connection.execute(_ADDED)


class SqliteKeyStore:
    """Records in a table of a SQLite file, which the embedded budget store may share."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, "the keys", _prepare)

    async def load(self) -> tuple[KeyRecord, ...]:
        def read(connection: sqlite3.Connection) -> tuple[KeyRecord, ...]:
            query = f"SELECT {_COLUMNS} FROM virtual_keys ORDER BY created_at, id"  # noqa: S608
            return tuple(_record(row) for row in connection.execute(query))

        return await self._file.run(read)

    async def put(self, record: KeyRecord) -> None:
        values = (
            record.id,
            record.name,
            record.workspace,
            record.digest,
            record.created_at,
            record.expires_at,
            record.revoked_at,
            record.created_by,
            record.last4,
            record.revoked_by,
        )
        await self._file.run(lambda connection: connection.execute(_PUT, values))

    async def revoke(self, key_id: KeyId, at: float, by: str = "") -> bool:
        statement = (
            "UPDATE virtual_keys SET revoked_at = COALESCE(revoked_at, ?), "
            "revoked_by = CASE WHEN revoked_at IS NULL THEN ? ELSE revoked_by END WHERE id = ?"
        )
        values = (at, by, key_id)
        return await self._file.run(lambda connection: connection.execute(statement, values).rowcount > 0)

    async def close(self) -> None:
        """Nothing is held."""


class MemoryKeyStore:
    """Records in a dict, forgotten with it. For trials and tests."""

    def __init__(self) -> None:
        self._records: dict[KeyId, KeyRecord] = {}

    async def load(self) -> tuple[KeyRecord, ...]:
        return tuple(sorted(self._records.values(), key=lambda record: (record.created_at, record.id)))

    async def put(self, record: KeyRecord) -> None:
        before = self._records.get(record.id)
        if before is not None and before.revoked_at is not None:
            record = replace(record, revoked_at=before.revoked_at, revoked_by=before.revoked_by)
        self._records[record.id] = record

    async def revoke(self, key_id: KeyId, at: float, by: str = "") -> bool:
        record = self._records.get(key_id)
        if record is None:
            return False
        if record.revoked_at is None:
            self._records[key_id] = replace(record, revoked_at=at, revoked_by=by)
        return True

    async def close(self) -> None:
        """Nothing is held."""


def _record(row: tuple[str, str, str, bytes, float, float | None, float | None, str, str, str]) -> KeyRecord:
    key_id, name, workspace, digest, created_at, expires_at, revoked_at, created_by, last4, revoked_by = row
    return KeyRecord(
        id=KeyId(key_id),
        name=name,
        workspace=WorkspaceId(workspace),
        digest=digest,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        created_by=created_by,
        revoked_by=revoked_by,
        last4=last4,
    )
