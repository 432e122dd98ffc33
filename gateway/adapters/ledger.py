"""The ledger: an append-only SQLite table with a row for each exchange of a known key, and its queries.

What an entry is, `core/ledger.py` says. Rows go through a bounded queue to one writer thread, so that
observing never waits for a disk; several rows share one synced commit.

What can be lost: rows not yet committed when the process is killed without notice (at most the linger of
the queue plus one commit, about 30 ms on a healthy disk). A disk that is full or locked loses nothing: rows
wait and are tried again, and those over the bound of the queue are written to the log in full, counted, and
can be put back with `restore`.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapters.batch_writer import BatchWriter
from gateway.core.errors import ConfigError
from gateway.core.ledger import SCHEMA_VERSION, SUMMED, Dimension, Entry, Total, entry_of

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord

log = logging.getLogger(__name__)

SPILLED = "ledger entry not stored, `gateway ledger restore` puts it back: "
"""Begins the log line of an entry that found no room. The entry follows as JSON in base64, which stays whole
whatever a log's format or its collector does to quotes."""
_SPILLED_ENTRY = re.compile(re.escape(SPILLED) + r"([A-Za-z0-9+/=]+)")
APPLICATION_ID = 0x6C656467
"""Marks the file as ours ("ledg"), so that no other database is written to by mistake."""
BUSY_SECONDS = 1.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    schema_version INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    organisation TEXT,
    workspace TEXT,
    key_id TEXT,
    route TEXT,
    endpoint TEXT NOT NULL,
    method TEXT NOT NULL,
    streaming INTEGER NOT NULL,
    model TEXT,
    state TEXT NOT NULL,
    basis TEXT NOT NULL,
    status INTEGER NOT NULL,
    error_code TEXT,
    upstream_error_type TEXT,
    upstream_request_id TEXT,
    message_id TEXT,
    stop_reason TEXT,
    attempts INTEGER NOT NULL,
    uncached_input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_5m_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    web_search_requests INTEGER NOT NULL,
    web_fetch_requests INTEGER NOT NULL,
    code_execution_requests INTEGER NOT NULL,
    iterations INTEGER NOT NULL,
    service_tier TEXT,
    inference_geo TEXT,
    speed TEXT,
    uncached_input_nanousd INTEGER NOT NULL,
    cache_read_nanousd INTEGER NOT NULL,
    cache_write_5m_nanousd INTEGER NOT NULL,
    cache_write_1h_nanousd INTEGER NOT NULL,
    output_nanousd INTEGER NOT NULL,
    server_tools_nanousd INTEGER NOT NULL,
    counterfactual_nanousd INTEGER NOT NULL,
    price_id TEXT NOT NULL,
    price_fallback INTEGER NOT NULL,
    reservation_id TEXT,
    estimated_nanousd INTEGER NOT NULL,
    overrun_nanousd INTEGER NOT NULL,
    binding_limit TEXT,
    shadow_refusals TEXT NOT NULL,
    store_degraded INTEGER NOT NULL,
    breakpoints INTEGER NOT NULL,
    placement_reason TEXT NOT NULL,
    plan_failed INTEGER NOT NULL,
    client_marks INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    total_seconds REAL NOT NULL,
    body_read_seconds REAL NOT NULL,
    overhead_seconds REAL NOT NULL,
    upstream_first_byte_seconds REAL,
    first_token_seconds REAL,
    tags TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_time ON entries (received_at_ms);
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""

_INSERT = (
    f"INSERT INTO entries ({', '.join(Entry._fields)}) "  # noqa: S608 - names of our own fields
    f"VALUES ({', '.join('?' * len(Entry._fields))}) ON CONFLICT (id) DO NOTHING"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """How the ledger's writer stands; counts are since the start of the process."""

    backlog: int
    """Entries observed but not yet committed."""
    lag_seconds: float
    stored: int
    spilled: int
    """Entries that are in the log instead of the table."""
    write_failures: int
    """Attempts at a commit that failed; the entries were tried again."""


class Ledger:
    """`ports.Observer` that writes one row per exchange. Raises `ConfigError` where the file is unusable."""

    def __init__(self, path: Path, *, limit: int = 50_000, linger_seconds: float = 0.02) -> None:
        self._connection = _open_for_writing(path)
        self._stored = 0
        self._spilled = 0
        self._writer: BatchWriter[Entry] = BatchWriter(
            self._store, name="ledger", limit=limit, linger_seconds=linger_seconds
        )

    def observe(self, record: ExchangeRecord) -> None:
        """Queue the entry. Where the queue is full the entry goes to the log instead, whole.

        Calls without a known key cost nothing and are nobody's: they are in the metrics and the access log
        only, so that nobody can fill the disk without a key.
        """
        if record.principal is None:
            return
        entry = entry_of(record)
        if not self._writer.put(entry):
            self._spill(entry)

    def status(self) -> LedgerStatus:
        return LedgerStatus(
            backlog=self._writer.backlog,
            lag_seconds=self._writer.lag_seconds,
            stored=self._stored,
            spilled=self._spilled,
            write_failures=self._writer.failures,
        )

    def close(self, timeout_seconds: float = 5.0) -> int:
        """Write all that is queued; how many entries went to the log because they could not be. Blocks for
        at most a second more than `timeout_seconds`. What is observed afterwards goes to the log."""
        left = self._writer.close(timeout_seconds)
        for entry in left:
            self._spill(entry)
        if not left:
            self._connection.close()
        return len(left)

    def _store(self, entries: list[Entry]) -> None:
        """One synced commit for all, on the writer's thread. Safe to repeat: ids are unique."""
        try:
            self._stored += _insert(self._connection, entries)
        except sqlite3.OperationalError:
            raise  # full, locked, read-only: a later attempt may do
        except (sqlite3.Error, ValueError, OverflowError):
            # One entry is not storable whatever happens; it must not keep the others waiting for ever.
            for entry in entries:
                self._store_alone(entry)

    def _store_alone(self, entry: Entry) -> None:
        try:
            self._stored += _insert(self._connection, [entry])
        except sqlite3.OperationalError:
            raise
        except (sqlite3.Error, ValueError, OverflowError):
            self._spill(entry)

    def _spill(self, entry: Entry) -> None:
        self._spilled += 1
        text = base64.b64encode(json.dumps(entry._asdict()).encode()).decode()
        log.critical("%s%s", SPILLED, text)


def restore(path: Path, lines: Iterable[str]) -> int:
    """Put entries back that the log holds (lines that contain `SPILLED`); how many were new. Safe to repeat.

    Raises `ConfigError` where the file cannot be used, `ValueError` or `TypeError` for a line that is cut or
    altered; then nothing was put back.
    """
    entries = [
        Entry(**json.loads(base64.b64decode(found, validate=True)))
        for line in lines
        for found in _SPILLED_ENTRY.findall(line)
    ]
    with closing(_open_for_writing(path)) as connection:
        return _insert(connection, entries)


def _insert(connection: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        stored = connection.executemany(_INSERT, entries).rowcount
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return stored


def _open_for_writing(path: Path) -> sqlite3.Connection:
    try:
        # isolation_level None: transactions are ours. The connection moves to the writer's thread.
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise ConfigError(
            f"The ledger {path} cannot be opened for writing: {error}. Check that its directory exists, is "
            "writable and has room; a damaged file can be moved away, a new one is begun."
        ) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if objects and application != APPLICATION_ID:
        raise ConfigError(f"{path} is a database of something else; give the ledger a file of its own.")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"The ledger {path} was written by a later version (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); run that version, or give this one a new file."
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL syncs at each commit: a committed row survives a power cut. The thread waits for it, not the loop.
    connection.execute("PRAGMA synchronous = FULL")
    if not objects:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


_GROUPS = {
    Dimension.ORGANISATION: "COALESCE(organisation, '-')",
    Dimension.WORKSPACE: "COALESCE(workspace, '-')",
    Dimension.KEY: "COALESCE(key_id, '-')",
    Dimension.MODEL: "COALESCE(model, '-')",
    Dimension.ENDPOINT: "endpoint",
    Dimension.DAY: "strftime('%Y-%m-%d', received_at_ms / 1000, 'unixepoch')",
    Dimension.MONTH: "strftime('%Y-%m', received_at_ms / 1000, 'unixepoch')",
}

_COST = (
    "(uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd"
    " + output_nanousd + server_tools_nanousd)"
)

_SUMS = {
    "requests": "COUNT(*)",
    "refused": "SUM(state = 'refused')",
    "failed": "SUM(state IN ('failed', 'cut_by_client', 'cut_by_upstream', 'cut_by_gateway'))",
    "guessed_nanousd": f"SUM({_COST} * (basis IN ('partial', 'estimated')))",
    "fallback_nanousd": f"SUM({_COST} * price_fallback)",
}


def read_totals(path: Path, by: Sequence[Dimension], *, start_ms: int, end_ms: int) -> tuple[Total, ...]:
    """Totals of the entries received from `start_ms` up to but not including `end_ms`, by group.

    Opens the file read-only and may run beside the writer. Sums are exact integers. Raises `ConfigError`
    where the file is missing or is no ledger.
    """
    groups = ", ".join(_GROUPS[dimension] for dimension in by)
    sums = ", ".join(f"CAST({_SUMS.get(name, f'SUM({name})')} AS INTEGER)" for name in SUMMED)
    query = (
        f"SELECT {groups + ', ' if by else ''}{sums} FROM entries "  # noqa: S608 - from the tables above
        "WHERE received_at_ms >= ? AND received_at_ms < ?"
    )
    query += f" GROUP BY {groups}" if by else ""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(query, (start_ms, end_ms)).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"The ledger {path} cannot be read: {error}.") from error
    return tuple(
        Total(group=tuple(row[: len(by)]), **dict(zip(SUMMED, row[len(by) :], strict=True)))
        for row in rows
        if row[len(by)]  # without groups there is a row even where nothing was found
    )
