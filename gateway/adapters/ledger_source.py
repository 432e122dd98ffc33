"""Where a ledger is read: the SQLite file of one replica, or the PostgreSQL database that several share.

Both have the same tables and columns, and are asked in the SQL that both understand; where they differ,
`Reading.postgres` says which of them it is.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.adapters.give_way import give_way
from gateway.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """The database of the shared ledger, as postgresql://user:password@host:5432/name?sslmode=verify-full."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return "in PostgreSQL"


LedgerSource = Path | PostgresUrl

GIVE_WAY_AFTER = 10_000
"""Of SQLite's own instructions: some 0.4 ms."""

_MISSING = (
    "there is no such file. A gateway makes it at its first start, in its state.directory; see whether this "
    "configuration, and the directory that this is called in, are those of the gateway"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A ledger in one state: who goes on writing to it is not seen."""

    version: int
    """Schema of what is read."""
    postgres: bool
    _query: Callable[[str, Sequence[Any]], Iterator[tuple[Any, ...]]]

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query with `?` for each of the values. Not all of them are in memory at once."""
        return self._query(sql, values)


@contextmanager
def reading(source: LedgerSource) -> Iterator[Reading]:
    """Read the ledger. Raises `ConfigError` where it is missing, is no ledger, or cannot be reached."""
    if isinstance(source, PostgresUrl):
        from gateway.adapters.postgres_ledger import read_from

        with read_from(source) as (version, query):
            yield Reading(version=version, postgres=True, _query=query)
        return
    try:
        with closing(
            sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            # A sum over a month takes seconds, and a gateway reads beside its loop; a command has none.
            if threading.current_thread() is not threading.main_thread():
                connection.set_progress_handler(give_way, GIVE_WAY_AFTER)
            connection.execute("BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            yield Reading(version=version, postgres=False, _query=connection.execute)
    except sqlite3.Error as error:
        why = str(error) if source.exists() else _MISSING
        raise ConfigError(f"The ledger {source} cannot be read: {why}.") from error
