"""A small SQLite file that is opened for each question: keys, batches, adjustments, alerts.

Such a store is read every few seconds and written by people or rarely, so nothing is held between, and the
file may be replaced under a running gateway. The budgets and the ledger, which each call writes to, have
writers of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from gateway.core.errors import StoreUnavailable

BUSY_SECONDS: Final = 5.0
"""Nobody's call waits for it: a disk that stands still for a second is no error."""
LOOK_SECONDS: Final = 0.001
WRITING: Final = "BEGIN IMMEDIATE"
"""What is read first must still hold when it is written upon."""

T = TypeVar("T")


def into_wal(connection: sqlite3.Connection, patience_seconds: float = BUSY_SECONDS) -> str:
    """Have the file keep a write-ahead log; returns what it keeps. Of several that ask for it at once SQLite
    refuses all but one on the spot, as their locks would wait for each other, whatever the time that the
    connection would wait. Raises `sqlite3.OperationalError`."""
    (mode,) = until_free(connection, "PRAGMA journal_mode = WAL", patience_seconds).fetchone()
    return str(mode)


def until_free(connection: sqlite3.Connection, statement: str, patience_seconds: float) -> sqlite3.Cursor:
    """What comes of the statement once no other connection is in its way: it is tried every millisecond for
    as long, then `sqlite3.OperationalError` is raised. On top of what the connection waits by itself."""
    until = time.monotonic() + patience_seconds
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(LOOK_SECONDS)


class SqliteFile:
    """The file at `path`, made where there is none, for nobody but the gateway's user. Errors say `what` it
    holds; `prepare` makes the tables."""

    def __init__(self, path: Path, what: str, prepare: Callable[[sqlite3.Connection], object]) -> None:
        self._path = path
        self._what = what
        self._prepare = prepare

    async def run(self, work: Callable[[sqlite3.Connection], T], begin: str = "BEGIN") -> T:
        """What `work` makes of it, in a thread and in one transaction. Raises `StoreUnavailable`."""
        return await asyncio.to_thread(self._work, work, begin)

    def _work(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        try:
            with self._open() as connection:
                connection.execute(begin)
                with connection:
                    return work(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._what} in {self._path} cannot be reached: {error}") from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files this mode
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            # The mode that the embedded budget store uses: readers never wait for a writer.
            into_wal(connection)
            self._prepare(connection)
            yield connection
        finally:
            connection.close()
