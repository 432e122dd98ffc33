"""A ledger of each kind that holds given records, and ways to tamper with it that its owner has."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import psycopg

from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_shipping import SharedLedger, Shipper
from gateway.adapters.ledger_source import LedgerSource, PostgresUrl
from gateway.adapters.postgres_ledger import SCHEMA_NAME, PostgresLedger
from gateway.adapters.postgres_ledger_schema import migrate
from gateway.core.chain import ChainKey
from gateway.core.exchange import ExchangeRecord
from tests.support.postgres_server import PostgresServer
from tests.support.records import a_record

ALWAYS = {"start_ms": 0, "end_ms": 2**62}
NOVEMBER = 1_793_491_200.0
"""2026-11-01T00:00:00Z."""
KEY = b"a-test-key-of-thirty-two-bytes.."


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def some_records(count: int, name: str = "e", at: float = NOVEMBER) -> list[ExchangeRecord]:
    """Named e1, e2 and so on, a second apart."""
    return [a_record(id=f"{name}{n + 1}", received_at=at + n) for n in range(count)]


def write(path: Path, records: Iterable[ExchangeRecord], key: bytes = KEY) -> None:
    """Add them to the ledger of a replica, as one that starts and stops does."""
    ledger = Ledger(path, key=key, linger_seconds=0.0)
    for record in records:
        ledger.observe(record)
    assert ledger.close() == 0
    assert ledger.status().spilled == 0


def ship(path: Path, source: PostgresUrl, key: bytes = KEY) -> None:
    """Bring all that is in the outbox to the shared ledger."""

    def connect() -> SharedLedger:
        return PostgresLedger(source)

    shipper = Shipper(path, connect, time.monotonic, key=ChainKey(key), wake=threading.Event())
    shipper.close(20)
    status = shipper.status()
    assert (status.backlog, status.failures, status.refused) == (0, 0, 0)


class Books:
    """One ledger: a file, or a shared one with the outbox of each replica before it."""

    def __init__(self, folder: Path, postgres: PostgresServer | None) -> None:
        self._folder = folder
        self.shared = PostgresUrl(postgres.database()) if postgres is not None else None
        if self.shared is not None:
            migrate(self.shared)

    def outbox(self, replica: str = "a") -> Path:
        return self._folder / f"{replica}.sqlite3"

    @property
    def source(self) -> LedgerSource:
        return self.shared or self.outbox()

    def hold(self, records: Iterable[ExchangeRecord], *, replica: str = "a", key: bytes = KEY) -> None:
        write(self.outbox(replica), records, key)
        if self.shared is not None:
            ship(self.outbox(replica), self.shared, key)

    def execute(self, statement: str) -> None:
        """As its owner, the triggers in force."""
        if self.shared is not None:
            with psycopg.connect(self.shared.url) as connection:
                connection.execute(f"SET search_path = {SCHEMA_NAME}")
                connection.execute(statement)
            return
        with closing(sqlite3.connect(self.outbox())) as file:
            file.execute(statement)

    def tamper(self, *statements: str) -> None:
        """As somebody who owns the table and switches its triggers off."""
        if self.shared is not None:
            with psycopg.connect(self.shared.url) as connection:
                connection.execute(f"SET search_path = {SCHEMA_NAME}")
                connection.execute("SET session_replication_role = replica")
                for statement in statements:
                    connection.execute(statement)
            return
        with closing(sqlite3.connect(self.outbox(), isolation_level=None)) as file:
            for trigger in ("entries_stay", "entries_remain", "anchors_stay", "anchors_remain"):
                file.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                file.execute(statement)
