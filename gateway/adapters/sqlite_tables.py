"""The tables of `sqlite_budgets.py`: schema, checks at opening, and rows to values and back. No threads here.

Numbers are SQLite's 64-bit integers; a charge and a standing are rows of JSON, read by this file alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.adapters.sqlite_file import WRITING, into_wal, until_free
from gateway.adapters.sqlite_rows import RowWriter
from gateway.core.bucket import NOBODY, Level, Payer, Presumed, Standing
from gateway.core.errors import ConfigError
from gateway.core.ids import ReservationId
from gateway.core.limits import Unit
from gateway.core.reservations import Charge, Record, State
from gateway.core.windows import Window

SCHEMA_VERSION: Final = 2
"""1: until 2026-11. 2: with whom a reservation is for, and what waits for the ledger."""
APPLICATION_ID: Final = 0x43_47_42_31
"""Marks the file as ours ("CGB1"), so that no other SQLite file is written into by mistake."""

BUSY_SECONDS: Final = 1.5
"""How long to wait for another connection's transaction, or for a checkpoint that holds writers back: less
than callers wait, so that they hear the reason."""

LONG_WAL_PAGES: Final = 16_384
"""64 MB. A log as long is started again even if writers have to wait for it."""

FORGET_BATCH: Final = 5_000
"""Rows that one sweep deletes at most: some ten milliseconds."""

_HOUR_MS: Final = 3_600_000
FOR_EVER_MS: Final = 1 << 60

_SCHEMA: Final = """
CREATE TABLE bucket (
    key TEXT PRIMARY KEY,
    spent INTEGER NOT NULL,
    set_aside INTEGER NOT NULL,
    fraction INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    given_back INTEGER NOT NULL,
    keep_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX bucket_keep ON bucket (keep_until_ms);
CREATE TABLE reservation (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    charges TEXT NOT NULL,
    found_at_ms INTEGER NOT NULL,
    found TEXT,
    payer TEXT,
    nanousd INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE presumed (
    ledger TEXT NOT NULL,
    id TEXT NOT NULL,
    said TEXT NOT NULL,
    PRIMARY KEY (ledger, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX reservation_until ON reservation (state, until_ms);
CREATE TABLE heartbeat (only INTEGER PRIMARY KEY, beats INTEGER NOT NULL) STRICT;
INSERT INTO heartbeat VALUES (1, 0);
"""


def open_database(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open, or create, and check. Raises ConfigError, saying what is wrong and how to recover."""
    assert synchronous in ("normal", "full"), synchronous
    try:
        # Handed over to the writer thread, which alone uses it from then on.
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: the budget file cannot be opened: {error}.") from error
    try:
        _prepare(connection, path, synchronous)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(_damaged(path, str(error))) from error
    except BaseException:
        connection.close()
        raise
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, on a connection of `open_database`. Waits for those of other processes
    for `BUSY_SECONDS`, then raises `sqlite3.OperationalError`. SQLite's own way to wait sleeps for longer and
    longer: of four busy processes one then waited for half a second, while the others took turns."""
    until_free(connection, WRITING, BUSY_SECONDS)


def open_for_checkpoints(path: Path, synchronous: str) -> sqlite3.Connection:
    """A second connection to a file that `open_database` has checked."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def changes_seen(connection: sqlite3.Connection) -> int:
    """Another number whenever another connection, of any process, has committed something."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def checkpoint(connection: sqlite3.Connection) -> None:
    """Carry the write-ahead log over into the file. Holds no writer up, unless the log has grown long: while
    somebody always writes it is never all carried over, and so would grow for ever."""
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages > LONG_WAL_PAGES:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()


def _prepare(connection: sqlite3.Connection, path: Path, synchronous: str) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")  # several processes may start at once
    if into_wal(connection) != "wal":
        raise ConfigError(f"{path}: this file system cannot hold the budget file (WAL). Use a local disk.")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # A checkpoint waits for the disk, two or three times: not within some commit, but on a thread of its own.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("BEGIN IMMEDIATE")
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables and not application_id:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif application_id != APPLICATION_ID:
        raise ConfigError(f"{path}: this SQLite file is not a budget file. Name another one.")
    elif version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: the budget file has schema version {version}, this gateway knows {SCHEMA_VERSION}. "
            "Run the version that wrote it, or move the file away to start with empty budgets."
        )
    connection.execute("COMMIT")
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise ConfigError(_damaged(path, finding))
    connection.execute("PRAGMA busy_timeout = 0")  # `begin` waits by itself; nothing else can meet a lock


def _damaged(path: Path, finding: str) -> str:
    return (
        f"{path}: the budget file is damaged or cannot be used ({finding}). If it is damaged: stop every "
        "gateway that uses it, keep a copy with its -wal and -shm files, try the `.recover` command of "
        "sqlite3 into a new file, or move all three away to start with empty budgets."
    )


_LEVELS: Final = RowWriter(
    "INSERT INTO bucket VALUES",
    7,
    "ON CONFLICT (key) DO UPDATE SET spent = excluded.spent, set_aside = excluded.set_aside, "
    "fraction = excluded.fraction, at_ms = excluded.at_ms, given_back = excluded.given_back, "
    "keep_until_ms = excluded.keep_until_ms",
)
_RECORDS: Final = RowWriter(
    "INSERT INTO reservation VALUES",
    8,
    "ON CONFLICT (id) DO UPDATE SET state = excluded.state, until_ms = excluded.until_ms, "
    "charges = excluded.charges",
)


class SqliteTables:
    """The rows of `reservations.Tables`, read and written on a connection; `sqlite_cache.py` says when. Its
    owner begins and ends the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute

    def level(self, bucket_key: str) -> Level | None:
        row = self._execute(
            "SELECT spent, set_aside, fraction, at_ms, given_back FROM bucket WHERE key = ?", (bucket_key,)
        ).fetchone()
        return Level(*row) if row else None

    def write_levels(self, levels: Mapping[str, tuple[Level, int] | None]) -> None:
        """By bucket, each with how long to keep it; None: drop it."""
        kept = [(key, *put) for key, put in levels.items() if put is not None]
        _LEVELS.write(
            self._connection,
            [
                # To the hour: an index whose value stays needs no write.
                (
                    key,
                    x.spent,
                    x.set_aside,
                    x.fraction,
                    x.at_ms,
                    x.given_back,
                    until + -until % _HOUR_MS,
                )
                for key, x, until in kept
            ],
        )
        for key, put in levels.items():
            if put is None:
                self._execute("DELETE FROM bucket WHERE key = ?", (key,))

    def record(self, reservation_id: ReservationId) -> Record | None:
        row = self._execute(
            "SELECT state, until_ms, charges, found_at_ms, found, payer, nanousd FROM reservation "
            "WHERE id = ?",
            (reservation_id,),
        ).fetchone()
        if row is None:
            return None
        state, until_ms, charges, found_at_ms, found, payer, nanousd = row
        return Record(
            State(state),
            until_ms,
            _read_charges(charges),
            found_at_ms,
            _read_found(found),
            NOBODY if payer is None else msgspec.json.decode(payer, type=Payer),
            nanousd,
        )

    def write_records(self, records: Mapping[ReservationId, Record]) -> None:
        _RECORDS.write(
            self._connection,
            [
                (
                    reservation_id,
                    record.state.value,
                    record.until_ms,
                    _written_charges(record.charges),
                    record.found_at_ms,
                    _written_found(record.found),
                    None if record.payer == NOBODY else msgspec.json.encode(record.payer).decode(),
                    record.nanousd,
                )
                for reservation_id, record in records.items()
            ],
        )

    def owe(self, ledger: str, presumed: Presumed) -> None:
        said = msgspec.json.encode(presumed).decode()
        self._execute("INSERT OR IGNORE INTO presumed VALUES (?, ?, ?)", (ledger, presumed.id, said))

    def owed(self, ledger: str, at_most: int) -> Sequence[Presumed]:
        rows = self._execute("SELECT said FROM presumed WHERE ledger = ? LIMIT ?", (ledger, at_most))
        return [msgspec.json.decode(said, type=Presumed) for (said,) in rows.fetchall()]

    def paid(self, ledger: str, entry_ids: Sequence[str]) -> None:
        for entry_id in entry_ids:
            self._execute("DELETE FROM presumed WHERE ledger = ? AND id = ?", (ledger, entry_id))

    def due(self, now_ms: int, at_most: int) -> Sequence[ReservationId]:
        rows = self._execute(
            "SELECT id FROM reservation WHERE state = 'open' AND until_ms <= ? ORDER BY until_ms LIMIT ?",
            (now_ms, at_most),
        )
        return [ReservationId(row[0]) for row in rows.fetchall()]

    def forget(self, now_ms: int) -> None:
        for state in (State.CLOSED, State.REFUSED, State.SWEPT):
            self._execute(
                "DELETE FROM reservation WHERE id IN "
                "(SELECT id FROM reservation WHERE state = ? AND until_ms <= ? LIMIT ?)",
                (state.value, now_ms, FORGET_BATCH),
            )
        self._execute(
            "DELETE FROM bucket WHERE key IN (SELECT key FROM bucket WHERE keep_until_ms <= ? LIMIT ?)",
            (now_ms, FORGET_BATCH),
        )

    def touch(self) -> None:
        """Write something, so that a file which can only be read does not look healthy."""
        self._execute("UPDATE heartbeat SET beats = beats + 1")


def _written_charges(charges: Sequence[Charge]) -> str:
    return msgspec.json.encode(
        [
            (
                (c.bucket_key, c.unit, c.amount, c.rate, c.period_ms, c.window_end_ms),
                (c.taken.spent, c.taken.set_aside, c.taken.fraction, c.taken.at_ms, c.taken.given_back),
            )
            for c in charges
        ]
    ).decode()


def _read_charges(text: str) -> tuple[Charge, ...]:
    if text == "[]":
        return ()
    return tuple(
        Charge(key, Unit(unit), amount, rate, period_ms, window_end_ms, Level(*taken))
        for (key, unit, amount, rate, period_ms, window_end_ms), taken in msgspec.json.decode(text)
    )


def _written_found(found: Sequence[Standing] | None) -> str | None:
    if found is None:
        return None
    return msgspec.json.encode(
        [
            (s.level.spent, s.level.set_aside, s.level.fraction, s.level.at_ms)
            + ((s.window.label, s.window.start_ms, s.window.end_ms) if s.window else ())
            for s in found
        ]
    ).decode()


def _read_found(text: str | None) -> tuple[Standing, ...] | None:
    if text is None:
        return None
    return tuple(
        Standing(Level(*row[:4]), Window(*row[4:]) if len(row) > 4 else None)
        for row in msgspec.json.decode(text)
    )
