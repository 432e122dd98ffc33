"""The ledger's writer: a row for each exchange of a known key, in an append-only SQLite table.

What an entry is, `core/entry.py` says; the file is `ledger_file.py`'s, questions to it `ledger_queries.py`'s.
Rows go through a bounded queue to one writer thread, so that observing never waits for a disk; several rows
share one synced commit.

What can be lost: rows not yet committed when the process is killed without notice (at most the linger of
the queue plus one commit, about 15 ms on a healthy disk). A disk that is full or locked loses nothing: rows
wait and are tried again, and those over the bound of the queue are written to the log in full, counted, and
can be put back with `restore`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapters.batch_writer import BatchWriter
from gateway.adapters.ledger_file import open_for_writing
from gateway.adapters.ledger_rows import insert
from gateway.core.chain import ChainKey
from gateway.core.entry import Entry, entry_of

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord

log = logging.getLogger(__name__)

WRITTEN_SECONDS = 2.0

SPILLED = "ledger entry not stored, `gateway ledger restore` puts it back: "
"""Begins the log line of an entry that found no room. The entry follows as JSON in base64, which stays whole
whatever a log's format or its collector does to quotes."""
_SPILLED_ENTRY = re.compile(re.escape(SPILLED) + r"([A-Za-z0-9+/=]+)")


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingStatus:
    """How shipping to a shared ledger stands; counts are since the start of the process."""

    backlog: int
    """Entries that are committed here and not there; 0 as long as that was not found out."""
    oldest_at: float | None
    """When the oldest of them was received, seconds since the epoch; None where there is none. Until the
    shared ledger was reached for the first time, the start of the process."""
    shipped: int
    refused: int
    """Entries that the shared ledger cannot hold; they stay in this replica's own."""
    failures: int
    """Times that the shared ledger did not answer, or not well."""

    def lag_seconds(self, now: float) -> float:
        return 0.0 if self.oldest_at is None else max(0.0, now - self.oldest_at)


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
    shipping: ShippingStatus | None = None
    """None where the ledger is not shared."""


class Ledger:
    """`ports.Observer` that writes one row per exchange. Raises `ConfigError` where the file is unusable."""

    def __init__(
        self,
        path: Path,
        *,
        key: bytes = b"",
        limit: int = 50_000,
        linger_seconds: float = 0.005,
        committed: Callable[[], None] = _nothing,
    ) -> None:
        """`key` is that of the chain (`core/chain.py` says what it shows, and what without one). `committed`
        is called after each commit, on the writer's thread."""
        self._key = ChainKey(key)
        self._committed = committed
        self._connection = open_for_writing(path)
        self._stored = 0
        self._spilled = 0
        self._writer: BatchWriter[Entry] = BatchWriter(
            self._store, name="ledger", limit=limit, linger_seconds=linger_seconds, wrote=self._wrote
        )
        self._waiting: deque[tuple[int, float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

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

    async def written(self) -> None:
        """Return once all that was observed until now is committed, or in the log: no later than
        `WRITTEN_SECONDS`, for a disk that is full must not keep reservations open."""
        wanted = self._writer.taken
        if self._writer.done >= wanted:
            return
        loop = self._loop = asyncio.get_running_loop()
        committed = loop.create_future()
        until = loop.time() + WRITTEN_SECONDS
        self._waiting.append((wanted, until, committed))
        if self._timer is None:  # one for all who wait: hardly anybody ever waits for so long
            self._timer = loop.call_at(until, self._give_up, loop)
        self._wake()  # it may have been committed while this was written down
        await committed

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
        if self._writer.ended:  # a thread that hangs on a disk still has it
            self._connection.close()
        return len(left)

    def _wrote(self) -> None:
        """On the writer's thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits on it any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._writer.done:
            self._let_go()

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._waiting[0][1] <= loop.time():
            self._let_go()
        self._timer = loop.call_at(self._waiting[0][1], self._give_up, loop) if self._waiting else None

    def _let_go(self) -> None:
        """Whoever waits for longest."""
        _, _, committed = self._waiting.popleft()
        if not committed.done():
            committed.set_result(None)

    def _store(self, entries: list[Entry]) -> None:
        """One synced commit for all, on the writer's thread. Safe to repeat: ids are unique."""
        try:
            self._stored += insert(self._connection, entries, self._key)
        except sqlite3.OperationalError:
            raise  # full, locked, read-only: a later attempt may do
        except (sqlite3.Error, ValueError, OverflowError):
            # One entry is not storable whatever happens; it must not keep the others waiting for ever.
            for entry in entries:
                self._store_alone(entry)
        self._committed()

    def _store_alone(self, entry: Entry) -> None:
        try:
            self._stored += insert(self._connection, [entry], self._key)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.Error, ValueError, OverflowError):
            self._spill(entry)

    def _spill(self, entry: Entry) -> None:
        self._spilled += 1
        text = base64.b64encode(json.dumps(entry._asdict()).encode()).decode()
        log.critical("%s%s", SPILLED, text)


def restore(path: Path, lines: Iterable[str], key: bytes = b"") -> int:
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
        return insert(connection, entries, ChainKey(key))
