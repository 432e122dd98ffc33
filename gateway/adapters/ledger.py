"""The ledger's writer: a row for each exchange of a known key, in an append-only SQLite table.

What an entry is, `core/entry.py` says; the file is `ledger_file.py`'s, questions to it `ledger_queries.py`'s.
Rows go through a bounded queue to one writer thread, so that observing never waits for a disk; several rows
share one synced commit.

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
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapters.batch_writer import BatchWriter
from gateway.adapters.ledger_file import insert, open_for_writing
from gateway.core.entry import Entry, entry_of

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord

log = logging.getLogger(__name__)

SPILLED = "ledger entry not stored, `gateway ledger restore` puts it back: "
"""Begins the log line of an entry that found no room. The entry follows as JSON in base64, which stays whole
whatever a log's format or its collector does to quotes."""
_SPILLED_ENTRY = re.compile(re.escape(SPILLED) + r"([A-Za-z0-9+/=]+)")


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
        self._connection = open_for_writing(path)
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
            self._stored += insert(self._connection, entries)
        except sqlite3.OperationalError:
            raise  # full, locked, read-only: a later attempt may do
        except (sqlite3.Error, ValueError, OverflowError):
            # One entry is not storable whatever happens; it must not keep the others waiting for ever.
            for entry in entries:
                self._store_alone(entry)

    def _store_alone(self, entry: Entry) -> None:
        try:
            self._stored += insert(self._connection, [entry])
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
    Entries of an older schema are taken as they are.

    Raises `ConfigError` where the file cannot be used, `ValueError` or `TypeError` for a line that is cut or
    altered; then nothing was put back.
    """
    entries = [
        Entry(**json.loads(base64.b64decode(found, validate=True)))
        for line in lines
        for found in _SPILLED_ENTRY.findall(line)
    ]
    with closing(open_for_writing(path)) as connection:
        return insert(connection, entries)
