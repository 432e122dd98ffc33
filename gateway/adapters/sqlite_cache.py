"""What the writer of `sqlite_budgets.py` knows of its tables without asking, and what it has yet to write.

Within a transaction each bucket is written once, however many calls took from it, and what was read or
written stays known for the next one: until another connection, of any process, has committed something, or a
transaction was not committed. The file always holds what was answered; nothing here outlives a doubt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from gateway.adapters.sqlite_tables import FOR_EVER_MS, SqliteTables, changes_seen
from gateway.core.bucket import Level, Presumed
from gateway.core.ids import ReservationId
from gateway.core.reservations import Record, State

MOST_LEVELS: Final = 8_192
"""Some 300 bytes each; beyond it all are forgotten, and read again as they are asked for."""
MOST_RECORDS: Final = 4_096
"""Of open reservations, some 2 kB each. Those of long streams may be forgotten, and are read again."""


class SqliteCache:
    """`reservations.Tables`. Its owner begins a transaction, then calls `begin`; and before it commits,
    `flush`. Where a transaction was not committed, `forget_all`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables = SqliteTables(connection)
        self._seen = -1
        self._levels: dict[str, Level | None] = {}
        self._records: dict[ReservationId, Record] = {}
        """Open ones."""
        self._new_levels: dict[str, tuple[Level, int] | None] = {}
        """With how long to keep them; None: to be dropped."""
        self._new_records: dict[ReservationId, Record] = {}

    def begin(self) -> None:
        """Raises `sqlite3.Error`."""
        seen = changes_seen(self._connection)
        if seen != self._seen:
            self.forget_all()
            self._seen = seen
        if len(self._levels) > MOST_LEVELS:
            self._levels.clear()
        if len(self._records) > MOST_RECORDS:
            self._records.clear()

    def flush(self) -> None:
        """Write what has changed. Raises `sqlite3.Error`."""
        if self._new_levels:
            self._tables.write_levels(self._new_levels)
            self._new_levels.clear()
        if self._new_records:
            self._tables.write_records(self._new_records)
            self._new_records.clear()

    def forget_all(self) -> None:
        """Nothing is known, and nothing is to be written."""
        self._seen = -1
        for known in (self._levels, self._records, self._new_levels, self._new_records):
            known.clear()

    def level(self, bucket_key: str) -> Level | None:
        if bucket_key in self._levels:
            return self._levels[bucket_key]
        level = self._levels[bucket_key] = self._tables.level(bucket_key)
        return level

    def put_level(self, bucket_key: str, level: Level, keep_until_ms: int) -> None:
        self._levels[bucket_key] = level
        self._new_levels[bucket_key] = level, keep_until_ms

    def keep_level(self, bucket_key: str, level: Level) -> None:
        self.put_level(bucket_key, level, FOR_EVER_MS)

    def drop_level(self, bucket_key: str) -> None:
        self._levels[bucket_key] = self._new_levels[bucket_key] = None

    def record(self, reservation_id: ReservationId) -> Record | None:
        known = self._new_records.get(reservation_id) or self._records.get(reservation_id)
        return self._tables.record(reservation_id) if known is None else known

    def put_record(self, reservation_id: ReservationId, record: Record) -> None:
        self._new_records[reservation_id] = record
        if record.state is State.OPEN:
            self._records[reservation_id] = record
        else:
            self._records.pop(reservation_id, None)

    # What is asked of many rows at once is asked of the file.

    def owe(self, ledger: str, presumed: Presumed) -> None:
        self._tables.owe(ledger, presumed)

    def owed(self, ledger: str, at_most: int) -> Sequence[Presumed]:
        return self._tables.owed(ledger, at_most)

    def paid(self, ledger: str, entry_ids: Sequence[str]) -> None:
        self._tables.paid(ledger, entry_ids)

    def due(self, now_ms: int, at_most: int) -> Sequence[ReservationId]:
        self.flush()
        return self._tables.due(now_ms, at_most)

    def forget(self, now_ms: int) -> None:
        self.flush()
        self._tables.forget(now_ms)
        self._levels.clear()

    def touch(self) -> None:
        """Write something, so that a file which can only be read does not look healthy."""
        self._tables.touch()
