"""Leaving old entries behind: those worth keeping are copied forward, the table of before is dropped.

One transaction in the ledger's file, so that no state in between exists, whatever dies. No entry is deleted
from a table: the triggers that refuse that are there before and after. The gateway may run meanwhile; its
entries wait.
"""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.adapters.ledger_file import ENTRIES, GUARDS, open_for_writing, statements
from gateway.adapters.ledger_rows import CHAINED, add_anchor, read_anchors
from gateway.core.chain import Anchor, ChainKey
from gateway.core.entry import Entry
from gateway.core.errors import ConfigError

LOCK_SECONDS = 30.0
_COLUMNS = ", ".join(("sequence", *Entry._fields, *CHAINED))
_RUNS = """
SELECT runs.chain, runs.first, runs.last, entry.digest FROM (
    SELECT chain, MIN(position) AS first, MAX(position) AS last FROM (
        SELECT chain, position, position - ROW_NUMBER() OVER (PARTITION BY chain ORDER BY position) AS run
        FROM entries WHERE received_at_ms < ? AND sequence <= ? AND chain IS NOT NULL
    ) GROUP BY chain, run
) AS runs JOIN entries AS entry ON entry.chain = runs.chain AND entry.position = runs.last
"""


def prune(path: Path, keys: list[ChainKey], *, before_ms: int, why: str, up_to: int | None = None) -> int:
    """Leave behind the entries that were received before `before_ms`, and anchor the chains that go on; how
    many they were. `up_to`: not those of a later sequence, which are still to be shipped.

    Raises `ConfigError` where the file cannot be used, or a chain's key is not among `keys`.
    """
    last = 2**62 if up_to is None else up_to
    with closing(open_for_writing(path)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {round(LOCK_SECONDS * 1000)}")
        try:
            connection.execute("BEGIN IMMEDIATE")
            anchors = _anchors(connection, keys, before_ms, last, why)
            (count,) = connection.execute(
                "SELECT COUNT(*) FROM entries WHERE received_at_ms < ? AND sequence <= ?", (before_ms, last)
            ).fetchone()
            if count:
                for anchor in anchors:
                    add_anchor(connection, anchor)
                _copy_forward(connection, before_ms, last)
            connection.execute("COMMIT")
            if count:
                with contextlib.suppress(sqlite3.OperationalError):  # busy: the room is used again instead
                    connection.execute("VACUUM")
        except sqlite3.Error as error:
            raise ConfigError(f"The ledger {path} cannot be pruned: {error}.") from error
    return int(count)


def _anchors(
    connection: sqlite3.Connection, keys: list[ChainKey], before_ms: int, last: int, why: str
) -> list[Anchor]:
    """One for each run of entries that will be missing."""
    known = {key.id: key for key in keys}
    key_of = {anchor.chain: known.get(anchor.key_id) for anchor in read_anchors(connection)}
    anchors = []
    for chain, first, end, digest in connection.execute(_RUNS, (before_ms, last)):
        key = key_of.get(chain)
        if key is None:
            raise ConfigError(
                f"Entries of chain {chain} are to be pruned, whose key is not at hand: give it with --key."
            )
        anchor = Anchor(chain=chain, first=first, last=end, digest=digest, key_id=key.id, why=why)
        anchors.append(key.sealed(anchor))
    return anchors


def _copy_forward(connection: sqlite3.Connection, before_ms: int, last: int) -> None:
    (reached,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    connection.execute("ALTER TABLE entries RENAME TO entries_before")
    for statement in statements(ENTRIES):
        connection.execute(statement)
    connection.execute(
        f"INSERT INTO entries ({_COLUMNS}) SELECT {_COLUMNS} FROM entries_before "  # noqa: S608 - our own names
        "WHERE NOT (received_at_ms < ? AND sequence <= ?) ORDER BY sequence",
        (before_ms, last),
    )
    connection.execute("DROP TABLE entries_before")  # and with it its indices and triggers
    for statement in statements(GUARDS):
        connection.execute(statement)
    # Sequences are never used twice: whoever ships remembers how far it came.
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'entries'")
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entries', ?)", (reached,))
