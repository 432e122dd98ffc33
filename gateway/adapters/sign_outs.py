"""Which sessions of the page were signed out of, so that a copy of their cookie opens nothing: in memory, in
SQLite for all workers of one machine and over restarts, in Redis for all replicas.

A session is its cookie (`web/page/session.py`); here is only its id, for as long as the cookie could still
hold. Instants are epoch seconds.
"""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

from gateway.adapters.redis_records import reached, records_client
from gateway.adapters.sqlite_file import WRITING, SqliteFile

_WHAT = "who has signed out of the page"
_TABLE = "CREATE TABLE IF NOT EXISTS signed_out (id TEXT PRIMARY KEY, until REAL NOT NULL) STRICT"


class MemorySignOuts:
    """Forgotten with the process."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    async def add(self, session_id: str, *, at: float, until: float) -> None:
        self._until = {each: end for each, end in self._until.items() if end > at} | {session_id: until}

    async def has(self, session_id: str) -> bool:
        return session_id in self._until

    async def close(self) -> None:
        """Nothing is held."""


class SqliteSignOuts:
    """In a file that all workers share."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _WHAT, lambda connection: connection.execute(_TABLE))

    async def add(self, session_id: str, *, at: float, until: float) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM signed_out WHERE until <= ?", (at,))
            connection.execute("INSERT OR REPLACE INTO signed_out VALUES (?, ?)", (session_id, until))

        await self._file.run(write, WRITING)

    async def has(self, session_id: str) -> bool:
        query = "SELECT 1 FROM signed_out WHERE id = ?"
        found = await self._file.run(lambda connection: connection.execute(query, (session_id,)).fetchone())
        return found is not None

    async def close(self) -> None:
        """Nothing is held."""


class RedisSignOuts:
    """A key for each, which Redis forgets by itself. Owns its connections."""

    def __init__(self, url: str, *, prefix: str = "cgw", timeout_seconds: float = 0.5) -> None:
        self._redis = records_client(url, prefix, timeout_seconds)
        # The braces put all keys into one slot of a cluster.
        self._prefix = f"{{{prefix}}}:signed-out:"

    async def add(self, session_id: str, *, at: float, until: float) -> None:
        seconds = max(1, math.ceil(until - at))
        await reached(_WHAT, self._redis.set(self._prefix + session_id, 1, ex=seconds))

    async def has(self, session_id: str) -> bool:
        return bool(await reached(_WHAT, self._redis.exists(self._prefix + session_id)))

    async def close(self) -> None:
        await self._redis.aclose()
