"""The ledger's file: its schema, how it is opened, and how one of an older schema is taken over in place.

Entries are only ever added: triggers refuse everything else, and a new schema only adds columns. Adding them
is `ledger_rows.py`'s, questions to them are `ledger_queries.py`'s, and old ones `ledger_prune.py`'s.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gateway.adapters.sqlite_file import into_wal
from gateway.core.entry import SCHEMA_VERSION
from gateway.core.errors import ConfigError

APPLICATION_ID = 0x6C656467
"""Marks the file as ours ("ledg"), so that no other database is written to by mistake."""
BUSY_SECONDS = 1.0
OPENING_SECONDS = 5.0
"""Several processes may start at once, and each may have the schema to write."""

_ADDED = {
    2: (
        "cohort TEXT",
        "shadow_nanousd INTEGER",
        "expected_read_tokens INTEGER NOT NULL DEFAULT 0",
        "miss_cause TEXT",
        "miss_detail TEXT",
        "miss_tokens INTEGER NOT NULL DEFAULT 0",
        "miss_nanousd INTEGER NOT NULL DEFAULT 0",
        "held_ms INTEGER NOT NULL DEFAULT 0",
        "held_saved_nanousd INTEGER NOT NULL DEFAULT 0",
    ),
    3: ("chain TEXT", "position INTEGER", "digest BLOB"),
}
"""Columns by the schema that brought them. A default for each: the rows that are there already, and a replica
of the older version that still writes beside this one, do not name them."""
_COLUMNS_ADDED = ",\n    ".join(column for columns in _ADDED.values() for column in columns)

ENTRIES = f"""
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
    tags TEXT NOT NULL,
    {_COLUMNS_ADDED}
) STRICT;
"""
GUARDS = """
CREATE INDEX IF NOT EXISTS entries_by_time ON entries (received_at_ms);
CREATE UNIQUE INDEX IF NOT EXISTS entries_by_chain ON entries (chain, position) WHERE chain IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
_ANCHORS = """
CREATE TABLE IF NOT EXISTS anchors (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    chain TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL,
    key_id TEXT NOT NULL,
    uncovered INTEGER NOT NULL,
    why TEXT NOT NULL,
    seal BLOB NOT NULL,
    UNIQUE (chain, last)
) STRICT;
CREATE TRIGGER IF NOT EXISTS anchors_stay BEFORE UPDATE ON anchors
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS anchors_remain BEFORE DELETE ON anchors
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
SCHEMA = f"{ENTRIES}{GUARDS}{_ANCHORS}"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the ledger, made where there is none, taken over where it is of an older schema. Raises
    `ConfigError` where the file is unusable."""
    try:
        # isolation_level None: transactions are ours. The connection moves to the writer's thread.
        connection = sqlite3.connect(
            path, timeout=OPENING_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, path)
            connection.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}")
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
    into_wal(connection)
    # FULL syncs at each commit: a committed row survives a power cut. The thread waits for it, not the loop.
    connection.execute("PRAGMA synchronous = FULL")
    if not objects:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version < SCHEMA_VERSION:
        _take_over(connection)


def _take_over(connection: sqlite3.Connection) -> None:
    """Add the columns that this schema has over the file's: all of them or none. No row is rewritten."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again under the lock: another process may have been first.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for added_in, columns in _ADDED.items():
            if added_in > version:
                for column in columns:
                    connection.execute(f"ALTER TABLE entries ADD COLUMN {column}")
        for statement in statements(f"{GUARDS}{_ANCHORS}"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(version, SCHEMA_VERSION)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> list[str]:
    """The statements of a script, to be run in a transaction: `executescript` would commit first."""
    statements: list[str] = []
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            statements.append(part)
            part = ""
    return statements
