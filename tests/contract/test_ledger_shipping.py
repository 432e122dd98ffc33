"""From the outbox to the shared ledger: each entry once, whoever dies and however long the other is away."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.adapters import ledger_shipping as module
from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_shipping import SharedLedger, ShippedLedger, Shipper
from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.ledger_verify import verify
from gateway.adapters.postgres_ledger import PostgresLedger
from gateway.adapters.postgres_ledger_schema import migrate
from gateway.core.chain import ChainKey
from gateway.core.errors import StoreUnavailable
from gateway.settings.gateway import LEDGER_KEY_FILE
from gateway.settings.load import load_settings
from gateway.stores import ledger_source, open_ledger
from tests.support.ledgers import KEY, Books, ship, until, write
from tests.support.postgres_server import PostgresServer
from tests.support.records import a_record

ROOT = Path(__file__).parents[2]
KEYS = [ChainKey(KEY)]


@pytest.fixture
def shared(postgres: PostgresServer) -> PostgresUrl:
    source = PostgresUrl(postgres.database())
    migrate(source)
    return source


def _shipped(path: Path, source: PostgresUrl, now: float = 0.0) -> ShippedLedger:
    def connect() -> SharedLedger:
        return PostgresLedger(source)

    committed = threading.Event()
    ledger = Ledger(path, key=KEY, linger_seconds=0.0, committed=committed.set)
    return ShippedLedger(ledger, Shipper(path, connect, lambda: now, key=ChainKey(KEY), wake=committed))


def _ids(source: PostgresUrl) -> list[str]:
    with psycopg.connect(source.url) as connection:
        rows = connection.execute("SELECT id FROM gateway_ledger.entries ORDER BY chain, position")
        return [entry_id for (entry_id,) in rows]


DYING = """
import os, signal, sys, threading
from pathlib import Path
from gateway.adapters.ledger_shipping import Shipper
from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters import ledger_shipping
from gateway.adapters.postgres_ledger import PostgresLedger
from gateway.core.chain import ChainKey
from gateway.core.errors import StoreUnavailable
from tests.support.ledgers import KEY, write
from tests.support.records import a_record

path, url, when, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
ledger_shipping.BATCH = 100

class Dying(PostgresLedger):
    batches = 0
    def add(self, rows):
        self.batches += 1
        if self.batches == 3 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        added = super().add(rows)
        if self.batches == 3 and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return added

write(path, [a_record(id=f"{name}{n}") for n in range(450)])
Shipper(path, lambda: Dying(PostgresUrl(url)), lambda: 0.0, key=ChainKey(KEY), wake=threading.Event())
threading.Event().wait(40)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_between_outbox_and_shared_ledger_books_each_entry_once(
    tmp_path: Path, shared: PostgresUrl, when: str
) -> None:
    path = tmp_path / "a.sqlite3"
    arguments = [sys.executable, "-c", DYING, str(path), shared.url, when]
    first = subprocess.run([*arguments, "x"], cwd=ROOT, timeout=120, check=False)
    there = len(_ids(shared))
    second = subprocess.run([*arguments, "y"], cwd=ROOT, timeout=120, check=False)
    ship(path, shared)

    assert (first.returncode, second.returncode) == (-signal.SIGKILL, -signal.SIGKILL)
    assert there == (200 if when == "before" else 300)
    assert _ids(shared) == [f"{name}{n}" for name in "xy" for n in range(450)]
    assert verify(shared, KEYS).findings == ()


def test_a_database_that_is_away_delays_entries_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_RETRY_SECONDS", 0.1)
    with PostgresServer() as server:
        source = PostgresUrl(server.database())
        migrate(source)
        received = a_record().received_at
        ledger = _shipped(tmp_path / "a.sqlite3", source, now=received + 7_200)

        def shipping() -> Any:
            return ledger.status().shipping

        ledger.observe(a_record(id="e0"))
        until(lambda: shipping().shipped == 1)
        until(lambda: shipping().oldest_at is None)
        server.stop()
        with caplog.at_level(logging.WARNING):
            for n in range(1, 50):
                ledger.observe(a_record(id=f"e{n}"))
            until(lambda: shipping().backlog == 49)
            assert shipping().lag_seconds(received + 7_200) == 7_200
            until(lambda: shipping().failures > 0)
            for n in range(50, 60):
                ledger.observe(a_record(id=f"e{n}"))
            until(lambda: shipping().backlog == 59)
            server.start()
            until(lambda: shipping().shipped == 60)
            until(lambda: shipping().backlog == 0)
        assert ledger.close() == 0

        assert _ids(source) == [f"e{n}" for n in range(60)]
        assert verify(source, KEYS).findings == ()
    assert len([line for line in caplog.messages if "wait in the outbox" in line]) == 1


def test_closing_ends_in_time_with_the_database_away_and_the_next_start_ships(
    tmp_path: Path, shared: PostgresUrl
) -> None:
    path = tmp_path / "a.sqlite3"
    nowhere = _shipped(path, PostgresUrl("postgresql://ledger@127.0.0.1:1/none"))
    nowhere.observe(a_record(id="e1"))
    assert nowhere.close(timeout_seconds=2) == 0
    status = nowhere.status()
    assert status.stored == 1
    assert status.shipping
    assert status.shipping.shipped == 0

    ledger = _shipped(path, shared)
    ledger.observe(a_record(id="e2"))
    assert ledger.close() == 0
    assert _ids(shared) == ["e1", "e2"]


class _Flaky:
    """Fails once after each commit, as where the acknowledgement is lost."""

    def __init__(self, real: SharedLedger) -> None:
        self._real = real
        self.reached, self.add_anchors, self.close = real.reached, real.add_anchors, real.close

    def add(self, rows: Sequence[tuple[Any, ...]]) -> int:
        self._real.add(rows)
        raise StoreUnavailable("the connection was lost")


def test_a_lost_acknowledgement_does_not_book_twice(
    tmp_path: Path, shared: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 10)
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.01)
    path = tmp_path / "a.sqlite3"
    write(path, [a_record(id=f"e{n}") for n in range(35)])
    shipper = Shipper(
        path, lambda: _Flaky(PostgresLedger(shared)), lambda: 0.0, key=ChainKey(KEY), wake=threading.Event()
    )
    until(lambda: shipper.status().failures == 4 and shipper.status().oldest_at is None)
    shipper.close(5)

    assert _ids(shared) == [f"e{n}" for n in range(35)]


class _Picky:
    """Refuses one entry."""

    def __init__(self, real: SharedLedger) -> None:
        self._real = real
        self.reached, self.add_anchors, self.close = real.reached, real.add_anchors, real.close

    def add(self, rows: Sequence[tuple[Any, ...]]) -> int:
        if any(row[0] == "e7" for row in rows):
            raise module.Refused("no such thing")
        return self._real.add(rows)


def test_an_entry_that_cannot_be_shipped_does_not_hold_up_the_others(
    tmp_path: Path, shared: PostgresUrl, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sqlite3"
    write(path, [a_record(id=f"e{n}") for n in range(10)])
    with caplog.at_level(logging.CRITICAL):
        shipper = Shipper(
            path,
            lambda: _Picky(PostgresLedger(shared)),
            lambda: 0.0,
            key=ChainKey(KEY),
            wake=threading.Event(),
        )
        shipper.close(10)

    assert _ids(shared) == [f"e{n}" for n in range(10) if n != 7]
    assert (shipper.status().shipped, shipper.status().refused) == (9, 1)
    assert "entry e7" in caplog.text


def test_text_that_a_database_cannot_hold_is_not_in_an_entry(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    books = Books(tmp_path, postgres)
    books.hold([a_record(id="e1", model="nul\0in it", tags=(("a\0", "b\0"),), upstream_error_type="\0")])

    assert verify(books.source, KEYS).entries == 1


def test_who_ships_needs_no_right_but_to_read_and_to_insert(
    tmp_path: Path, postgres: PostgresServer, shared: PostgresUrl
) -> None:
    name = shared.url.rpartition("/")[2]
    with psycopg.connect(shared.url) as connection:
        connection.execute(f"CREATE ROLE shipper_{name} LOGIN")
        for grant in (
            "USAGE ON SCHEMA gateway_ledger",
            "SELECT, INSERT ON ALL TABLES IN SCHEMA gateway_ledger",
        ):
            connection.execute(f"GRANT {grant} TO shipper_{name}")
    limited = PostgresUrl(postgres.url(name, f"shipper_{name}"))
    path = tmp_path / "a.sqlite3"
    write(path, [a_record(id=f"e{n}", received_at=1_795_000_000 + n * 40 * 86_400) for n in range(3)])
    ship(path, limited)

    assert verify(limited, KEYS).entries == 3
    with psycopg.connect(limited.url) as connection:
        for statement in (
            "UPDATE gateway_ledger.entries SET status = 1",
            "DROP TABLE gateway_ledger.entries",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
            connection.rollback()


FULL_OUTBOX = """
import resource, sys, threading, time
from pathlib import Path
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_shipping import ShippedLedger, Shipper
from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.postgres_ledger import PostgresLedger
from gateway.core.chain import ChainKey
from gateway.core.errors import StoreUnavailable
from tests.support.ledgers import KEY, until
from tests.support.records import a_record

path, source = Path(sys.argv[1]), PostgresUrl(sys.argv[2])
committed = threading.Event()
ledger = ShippedLedger(
    Ledger(path, key=KEY, committed=committed.set),
    Shipper(path, lambda: PostgresLedger(source), time.time, key=ChainKey(KEY), wake=committed),
)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
ledger.observe(a_record(id="e0"))
until(lambda: ledger.status().shipping.shipped == 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the file cannot grow: as good as a full disk
for n in range(1, 500):
    ledger.observe(a_record(id=f"e{n}"))
until(lambda: ledger.status().write_failures >= 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert ledger.close(20) == 0
status = ledger.status()
assert (status.stored, status.spilled, status.shipping.shipped) == (500, 0, 500), status
"""


def test_a_full_disk_under_the_outbox_delays_entries_and_loses_none(
    tmp_path: Path, shared: PostgresUrl
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_OUTBOX, str(tmp_path / "a.sqlite3"), shared.url],
        check=False,
        capture_output=True,
        timeout=120,
        text=True,
        cwd=ROOT,
        env={**os.environ},
    )

    assert run.returncode == 0, run.stderr
    assert _ids(shared) == [f"e{n}" for n in range(500)]
    assert verify(shared, KEYS).findings == ()


def test_a_damaged_outbox_is_said_and_does_not_end_the_thread(
    tmp_path: Path, shared: PostgresUrl, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sqlite3"
    path.write_bytes(b"this is no database" * 1000)
    with caplog.at_level(logging.WARNING):
        shipper = Shipper(
            path, lambda: PostgresLedger(shared), lambda: 0.0, key=ChainKey(KEY), wake=threading.Event()
        )
        until(lambda: shipper.status().failures >= 2)
    shipper.close(5)

    assert "not a database" in caplog.text
    with closing(PostgresLedger(shared)) as reached, pytest.raises(sqlite3.Error):
        module.shipped_up_to(path, reached)


def test_the_ledger_that_settings_name_ships_and_is_read_where_it_went(
    tmp_path: Path, shared: PostgresUrl
) -> None:
    (tmp_path / "key").write_bytes(KEY)
    environ = {
        "GATEWAY_STATE__DIRECTORY": str(tmp_path / "state"),
        "GATEWAY_LEDGER__KIND": "postgres",
        "GATEWAY_LEDGER__KEY": f"{{file: {tmp_path / 'key'}}}",
        "LEDGER_URL": shared.url,
    }
    settings = load_settings(ROOT / "config", environ)
    ledger = open_ledger(settings.gateway, settings, SystemClock())
    ledger.observe(a_record(id="e1"))
    until(lambda: ledger.status().stored == 1)
    assert ledger.close() == 0

    source = ledger_source(settings.gateway, settings)
    assert source == shared
    assert verify(source, KEYS).entries == 1
    alone = load_settings(ROOT / "config", {"GATEWAY_STATE__DIRECTORY": str(tmp_path / "other")})
    own = open_ledger(alone.gateway, alone, SystemClock())
    own.observe(a_record(id="e2"))
    assert own.close() == 0
    key = ChainKey((tmp_path / "other" / LEDGER_KEY_FILE).read_bytes())
    assert verify(ledger_source(alone.gateway, alone), [key]).entries == 1
