"""The rows of the ledger's file, as its writer adds them and as a walk along its chains reads them.

Every function works in SQLite's own transactions on a connection of `ledger_file.py`; nothing here opens or
closes one.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection, Sequence

from gateway.adapters.sqlite_rows import RowWriter
from gateway.core.chain import Anchor, ChainKey, Head, link_all
from gateway.core.entry import Entry

CHAINED = ("chain", "position", "digest")
"""Columns of an entry's link."""
ANCHORED = ("chain", "first", "last", "digest", "key_id", "uncovered", "why", "seal")
_COLUMNS = (*Entry._fields, *CHAINED)
_HEAD = """
WITH own AS (SELECT chain FROM anchors WHERE key_id = ? AND first = 0 ORDER BY sequence DESC LIMIT 1)
SELECT chain, position, digest FROM (
    SELECT * FROM (SELECT chain, position, digest FROM entries WHERE chain = (SELECT chain FROM own)
        ORDER BY position DESC LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT chain, last, digest FROM anchors WHERE chain = (SELECT chain FROM own)
        ORDER BY last DESC LIMIT 1)
) ORDER BY position DESC LIMIT 1
"""
_ENTRIES = RowWriter(
    f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES",
    len(_COLUMNS),
)


def insert(connection: sqlite3.Connection, entries: Sequence[Entry], key: ChainKey) -> int:
    """Add entries to the chain of this key in one synced commit, all or none; how many were new: an id that
    is there already is left alone. Raises `sqlite3.Error`, and `OverflowError` or `ValueError` for what no
    column can hold."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        head = _head(connection, key)
        try:
            _add(connection, entries, head, key)
        except sqlite3.IntegrityError:
            # Some are there already, which is rare: only then is it worth asking. ROLLBACK undoes the rest.
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            entries = _new_ones(connection, entries)
            _add(connection, entries, _head(connection, key), key)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return len(entries)


def leave_chains(connection: sqlite3.Connection, key: ChainKey, chains: Collection[str]) -> bool:
    """Begin a new chain, where the one that is being written is among `chains`; whether it was. Raises
    `sqlite3.Error`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        leaving = _head(connection, key).chain in chains
        if leaving:
            add_anchor(connection, key.begin(secrets.token_hex(8), 0))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return leaving


def add_anchor(connection: sqlite3.Connection, anchor: Anchor) -> None:
    """Within the caller's transaction. Raises `sqlite3.Error`."""
    connection.execute(
        f"INSERT INTO anchors ({', '.join(ANCHORED)}) VALUES ({', '.join('?' * len(ANCHORED))})",  # noqa: S608
        [getattr(anchor, name) for name in ANCHORED],
    )


def read_anchors(connection: sqlite3.Connection) -> list[Anchor]:
    """All of them, oldest first."""
    rows = connection.execute(f"SELECT {', '.join(ANCHORED)} FROM anchors ORDER BY sequence")  # noqa: S608
    return [Anchor(**dict(zip(ANCHORED, row, strict=True))) for row in rows]


def _add(connection: sqlite3.Connection, entries: Sequence[Entry], head: Head, key: ChainKey) -> None:
    # sqlite3 binds plain tuples by a shorter way than what is derived from them: 9.5 µs a row, not 13.4.
    rows, _ = link_all(key, head, entries)
    _ENTRIES.write(connection, rows)


def _new_ones(connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[Entry]:
    by_id = {entry.id: entry for entry in reversed(entries)}
    known = {
        entry_id
        for entry_id in by_id
        if connection.execute("SELECT 1 FROM entries WHERE id = ?", (entry_id,)).fetchone()
    }
    return [entry for entry_id, entry in reversed(by_id.items()) if entry_id not in known]


def _head(connection: sqlite3.Connection, key: ChainKey) -> Head:
    """Where the chain of this key goes on; begun now where there is none. Asked in the transaction that adds
    to it, so that two processes on one file have one chain."""
    found = connection.execute(_HEAD, (key.id,)).fetchone()
    if found is None:
        # Of the first chain only: what came without a digest since then, nobody vouches for.
        (uncovered,) = connection.execute(
            "SELECT COUNT(*) FROM entries WHERE chain IS NULL AND NOT EXISTS (SELECT 1 FROM anchors)"
        ).fetchone()
        anchor = key.begin(secrets.token_hex(8), uncovered)
        add_anchor(connection, anchor)
        return Head(anchor.chain, anchor.last, anchor.digest)
    return Head(*found)
