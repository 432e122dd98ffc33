"""The file of the hourly sums: its tables, and taking a stretch of the ledger into them.

`ledger_rollup.py` says what the sums are for and which stretch comes next. Here a connection is given, and
its transaction is the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from gateway.adapters.ledger_queries import CAUSES_SINCE, _group, _sum
from gateway.adapters.ledger_source import Reading
from gateway.adapters.sqlite_file import into_wal
from gateway.core.ledger import SUMMED, Dimension
from gateway.core.rollup import HOUR_MS, KEPT

APPLICATION_ID: Final = 0x726F6C6C
"""Marks the file as ours ("roll")."""
VERSION: Final = 2
"""Of the tables and of what is summed. A file of another version is made again."""
BUSY_SECONDS: Final = 5.0
SUMS: Final = "sums"
LOSSES: Final = "losses"
LOSSES_AT_ONCE: Final = 500
"""Rows that are in memory together: a collection of all that there is would not wait for thousands."""

_KEPT = tuple(one.value for one in KEPT)
_ADDED: Final = (*SUMMED, "entries")
"""Beside the sums the number of entries, which is not that of requests: it tells whether some were pruned."""


class Grain(NamedTuple):
    """A length of time that is summed by itself."""

    name: str
    ms: int


HOURS: Final = Grain("hours", HOUR_MS)
DAYS: Final = Grain("days", 24 * HOUR_MS)
"""The same again, for spans of whole days: a year of hours has ten times the rows."""


def _tables(grain: Grain) -> str:
    return f"""
CREATE TABLE sums_{grain.name} (
    at INTEGER NOT NULL,
    who INTEGER NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in _ADDED)},
    PRIMARY KEY (at, who)
) STRICT, WITHOUT ROWID;
CREATE TABLE losses_{grain.name} (
    at INTEGER NOT NULL,
    who INTEGER NOT NULL,
    cause TEXT NOT NULL,
    calls INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    nanousd INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    detail_nanousd INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (at, who, cause)
) STRICT, WITHOUT ROWID;
"""


def _adding(grain: Grain) -> tuple[str, str]:
    """Statements that add one row to either table."""
    sums = (
        f"INSERT INTO sums_{grain.name} VALUES ({', '.join('?' * (2 + len(_ADDED)))}) ON CONFLICT DO UPDATE "  # noqa: S608
        f"SET {', '.join(f'{name} = {name} + excluded.{name}' for name in _ADDED)}"
    )
    losses = (
        f"INSERT INTO losses_{grain.name} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "  # noqa: S608
        "detail = CASE WHEN excluded.detail_nanousd > detail_nanousd THEN excluded.detail ELSE detail END, "
        "detail_nanousd = MAX(detail_nanousd, excluded.detail_nanousd), "
        "calls = calls + excluded.calls, tokens = tokens + excluded.tokens, "
        "nanousd = nanousd + excluded.nanousd, first_ms = MIN(first_ms, excluded.first_ms), "
        "last_ms = MAX(last_ms, excluded.last_ms)"
    )
    return sums, losses


_SCHEMA = f"""
CREATE TABLE who (
    number INTEGER PRIMARY KEY,
    {", ".join(f"{name} TEXT NOT NULL" for name in _KEPT)},
    UNIQUE ({", ".join(_KEPT)})
) STRICT;
{_tables(HOURS)}{_tables(DAYS)}
CREATE TABLE reached (
    part TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    last_sequence INTEGER,
    last_id TEXT
) STRICT;
CREATE TABLE pruned (month TEXT PRIMARY KEY) STRICT;
CREATE TABLE seen (what TEXT PRIMARY KEY, said TEXT NOT NULL) STRICT;
"""
_TABLES: Final = (
    "who",
    "sums_hours",
    "sums_days",
    "losses_hours",
    "losses_days",
    "reached",
    "pruned",
    "seen",
)
_ADD_HOUR, _LOSE_HOUR = _adding(HOURS)
_ADD_DAY, _LOSE_DAY = _adding(DAYS)
_FIND_WHO = f"SELECT number FROM who WHERE {' AND '.join(f'{name} = ?' for name in _KEPT)}"  # noqa: S608
_ADD_WHO = f"INSERT INTO who ({', '.join(_KEPT)}) VALUES ({', '.join('?' * len(_KEPT))})"  # noqa: S608


def open_sums(path: Path) -> sqlite3.Connection:
    """The file, made where there is none, made again where it is damaged or of another version: all of it can
    be had from the ledger. Raises `sqlite3.Error` and OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # locked, full, not to be written: nothing that a new file would mend
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + ending).unlink()
        return _opened(path)


def forget(sums: sqlite3.Connection) -> None:
    """Begin anew, within the caller's transaction."""
    for table in _TABLES:
        sums.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names


def take_in(sums: sqlite3.Connection, ledger: Reading, where: str, values: Sequence[int | str]) -> int:
    """Add the entries that a condition names, which must not be in the sums; how many they were."""
    groups = [f"received_at_ms / {HOUR_MS}", *(_group(one, ledger) for one in KEPT)]
    columns = [*(f"CAST(COALESCE({_sum(name, ledger)}, 0) AS BIGINT)" for name in SUMMED), "COUNT(*)"]
    grouped = f"GROUP BY {', '.join(str(n + 1) for n in range(len(groups)))}"
    numbers: dict[tuple[str, ...], int] = {}

    def who(row: tuple[str, ...]) -> int:
        number = numbers.get(row)
        if number is None:
            found = sums.execute(_FIND_WHO, row).fetchone()
            number = numbers[row] = found[0] if found else int(sums.execute(_ADD_WHO, row).lastrowid or 0)
        return number

    kept, count = len(groups), 0
    asked = f"SELECT {', '.join([*groups, *columns])} FROM entries WHERE {where} {grouped}"  # noqa: S608
    rows = []
    for row in ledger.rows(asked, values):
        count += row[-1]
        rows.append((row[0], who(row[1:kept]), *row[kept:]))
    sums.executemany(_ADD_HOUR, rows)
    sums.executemany(_ADD_DAY, ((row[0] // 24, *row[1:]) for row in rows))
    if ledger.version >= CAUSES_SINCE:
        lost = (
            f"SELECT {', '.join(groups)}, miss_cause, 1, miss_tokens, miss_nanousd, received_at_ms, "  # noqa: S608
            f"received_at_ms, miss_nanousd, COALESCE(miss_detail, '') FROM entries WHERE {where} "
            "AND miss_cause IS NOT NULL"
        )
        found = ledger.rows(lost, values)
        while rows := [(row[0], who(row[1:kept]), *row[kept:]) for row in islice(found, LOSSES_AT_ONCE)]:
            sums.executemany(_LOSE_HOUR, rows)
            sums.executemany(_LOSE_DAY, ((row[0] // 24, *row[1:]) for row in rows))
    return count


def question(
    table: str,
    by: Sequence[Dimension],
    columns: str,
    span: tuple[int, int],
    only: Sequence[tuple[Dimension, str]],
    more: Sequence[str] = (),
) -> tuple[str, list[int | str]]:
    """SQL and values: sums of a table by dimensions and columns, of a span of time, of these values alone.
    Hours that are cut are told whole."""
    start_ms, end_ms = span[0], min(span[1], _NEVER_MS)
    grain = DAYS if start_ms % DAYS.ms == end_ms % DAYS.ms == 0 else HOURS
    columns_of = _columns(grain)
    groups = [*(columns_of[one] for one in by), *more]
    grouped = f" GROUP BY {', '.join(str(n + 1) for n in range(len(groups)))}" if groups else ""
    wheres = "".join(f" AND {columns_of[one]} = ?" for one, _ in only)
    return (
        f"SELECT {', '.join([*groups, columns])} FROM {table}_{grain.name} JOIN who ON number = who "  # noqa: S608
        f"WHERE at >= ? AND at < ?{wheres}{grouped}",
        [start_ms // grain.ms, -(-end_ms // grain.ms), *(value for _, value in only)],
    )


_NEVER_MS: Final = 10**6 * DAYS.ms


def _columns(grain: Grain) -> dict[Dimension, str]:
    """By dimension, as the ledger's own questions say it (`ledger_queries.py`)."""
    day = f"date(at * {grain.ms // 1000}, 'unixepoch')"
    return {
        **{one: f"who.{one.value}" for one in KEPT},
        Dimension.TEAM: "who.workspace",
        Dimension.DAY: day,
        Dimension.MONTH: f"substr({day}, 1, 7)",
    }


def months(sums: sqlite3.Connection) -> list[tuple[str, int]]:
    """The months that there are, and how many entries each has in the sums."""
    month = _columns(DAYS)[Dimension.MONTH]
    return sums.execute(f"SELECT {month}, SUM(entries) FROM sums_days GROUP BY 1").fetchall()  # noqa: S608


def _opened(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time, not always by the one that made it.
    sums = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        sums.execute("BEGIN")  # of one instant: another may be making it
        (objects,) = sums.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        (mark,) = sums.execute("PRAGMA application_id").fetchone()
        (version,) = sums.execute("PRAGMA user_version").fetchone()
        sums.execute("COMMIT")
        if objects and mark != APPLICATION_ID:
            raise sqlite3.OperationalError(f"{path} is a database of something else")
        if objects and version != VERSION:
            raise sqlite3.DatabaseError("of another version")
        into_wal(sums)
        sums.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last steps, not the file
        if not objects:
            sums.execute("BEGIN IMMEDIATE")
            (objects,) = sums.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            if not objects:  # nobody else made them meanwhile
                for statement in _SCHEMA.split(";"):
                    sums.execute(statement)
                sums.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                sums.execute(f"PRAGMA user_version = {VERSION}")
            sums.execute("COMMIT")
    except BaseException:
        sums.close()
        raise
    return sums
