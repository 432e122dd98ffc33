"""The ledger's file: nothing observed is lost without a trace, nothing is counted twice, reports add up."""

from __future__ import annotations

import base64
import json
import logging
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters import ledger_file as module
from gateway.adapters.ledger import SPILLED, Ledger, restore
from gateway.adapters.ledger_file import SCHEMA
from gateway.adapters.ledger_queries import read_totals
from gateway.adapters.ledger_rows import CHAINED
from gateway.core.entry import Entry, entry_of
from gateway.core.errors import ConfigError
from gateway.core.exchange import Basis, State
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.ledger import Dimension
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from tests.support.records import a_record, a_refused_record

ALWAYS = {"start_ms": 0, "end_ms": 2**62}


def _rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        columns = ", ".join(Entry._fields)
        return connection.execute(f"SELECT {columns} FROM entries ORDER BY sequence").fetchall()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_what_is_observed_is_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    records = [a_record(id=f"e{n}", tags=(("team", "straße"),)) for n in range(50)]
    records.append(a_refused_record(principal=records[0].principal))
    for record in records:
        ledger.observe(record)

    assert ledger.close() == 0
    assert _rows(path) == [tuple(entry_of(record)) for record in records]


def test_calls_without_a_known_key_cannot_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    for _ in range(100):
        ledger.observe(a_refused_record())

    assert ledger.status().backlog == 0
    assert ledger.close() == 0
    assert _rows(path) == []


def test_columns_are_the_fields_of_an_entry_in_order() -> None:
    body = SCHEMA[SCHEMA.index("(") : SCHEMA.index(") STRICT")]
    columns = re.findall(r"^ {4}(\w+) (?:INTEGER|TEXT|REAL|BLOB)", body, re.MULTILINE)

    assert columns == ["sequence", *Entry._fields, *CHAINED]


def test_an_exchange_is_stored_once_however_often_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    for _ in range(2):
        ledger = Ledger(path)
        ledger.observe(a_record())
        ledger.observe(a_record(status=500))
        ledger.close()

    assert [row[Entry._fields.index("status")] for row in _rows(path)] == [200]


def test_entries_can_be_neither_changed_nor_deleted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    ledger.observe(a_record())
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        for statement in ("UPDATE entries SET status = 1", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_a_locked_ledger_delays_entries_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for n in range(20):
            ledger.observe(a_record(id=f"e{n}"))
        _until(lambda: ledger.status().write_failures >= 2)
        assert ledger.status().backlog == 20
        assert ledger.status().lag_seconds > 0
        other.execute("ROLLBACK")
    _until(lambda: ledger.status().stored == 20)

    assert ledger.status().backlog == 0
    assert ledger.close() == 0
    assert len(_rows(path)) == 20


def test_over_the_bound_and_at_the_end_entries_go_to_the_log_and_can_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path, limit=10)
    records = [a_record(id=f"e{n}", model='a "quoted"\nmodel') for n in range(30)]
    with closing(sqlite3.connect(path, isolation_level=None)) as other, caplog.at_level(logging.CRITICAL):
        other.execute("BEGIN IMMEDIATE")
        for record in records:
            ledger.observe(record)
        spilled_before = ledger.status().spilled
        left = ledger.close(timeout_seconds=0.2)
        ledger.observe(late := a_record(id="late"))
    # as a collector may wrap them
    lines = [json.dumps({"level": "CRITICAL", "message": line}) for line in caplog.messages]

    assert spilled_before >= 10
    assert spilled_before + left == 30
    assert ledger.status().spilled == 31
    assert not [file for file in Path("/proc/self/fd").iterdir() if file.resolve() == path]  # it is closed
    assert _rows(path) == []
    assert restore(path, [*lines, "another line"]) == 31
    assert restore(path, lines) == 0
    assert sorted(_rows(path)) == sorted(tuple(entry_of(record)) for record in [*records, late])


def test_one_entry_that_cannot_be_stored_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    with caplog.at_level(logging.CRITICAL):
        ledger.observe(a_record(id="e1"))
        ledger.observe(a_record(id="e2", model="\udc80"))  # no UTF-8
        ledger.observe(a_record(id="e3", request_bytes=2**70))  # no 64-bit integer
        ledger.observe(a_record(id="e4"))
        assert ledger.close() == 0

    assert [row[0] for row in _rows(path)] == ["e1", "e4"]
    assert [_spilled_id(line) for line in caplog.messages] == ["e2", "e3"]


def _spilled_id(line: str) -> str:
    return str(json.loads(base64.b64decode(line.removeprefix(SPILLED)))["id"])


def test_a_log_line_that_was_cut_is_refused_and_nothing_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    entry = json.dumps(entry_of(a_record())._asdict()).encode()
    whole = SPILLED + base64.b64encode(entry).decode()
    for cut in (whole[:-400], whole[:-399], SPILLED + base64.b64encode(b'{"id": "e1"}').decode()):
        with pytest.raises((ValueError, TypeError)):
            restore(path, [whole, cut])

    assert restore(path, [whole]) == 1


FULL_DISK = """
import resource, sys, threading, time
from pathlib import Path
from gateway.adapters.ledger import Ledger
from tests.support.records import a_record
ledger = Ledger(Path(sys.argv[1]))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # the file cannot grow: as good as a full disk
for n in range(500):
    ledger.observe(a_record(id=f"e{n}"))
deadline = time.monotonic() + 20
while ledger.status().write_failures < 2:
    assert time.monotonic() < deadline
    threading.Event().wait(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert ledger.close(20) == 0
status = ledger.status()
assert (status.stored, status.spilled) == (500, 0), status
"""


def test_a_full_disk_delays_entries_and_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        check=False,
        capture_output=True,
        timeout=120,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    assert run.returncode == 0, run.stderr
    assert len(_rows(path)) == 500


def test_a_file_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.sqlite3"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    later = tmp_path / "later.sqlite3"
    Ledger(later).close()
    with closing(sqlite3.connect(later)) as connection:
        connection.execute("PRAGMA user_version = 99")
    damaged = tmp_path / "damaged.sqlite3"
    damaged.write_bytes(b"this is no database" * 1000)

    for path, words in [
        (foreign, "something else"),
        (later, "later version"),
        (damaged, "not a database"),
        (tmp_path / "nowhere" / "ledger.sqlite3", "cannot be opened"),
    ]:
        with pytest.raises(ConfigError, match=words):
            Ledger(path)
    for path in (damaged, foreign, tmp_path / "missing.sqlite3"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_totals(path, [], **ALWAYS)


def test_totals_equal_a_plain_sum_over_the_records(tmp_path: Path) -> None:
    chance = random.Random(7)
    records = []
    for n in range(300):
        record = a_refused_record() if chance.random() < 0.1 else a_record()
        records.append(
            replace(
                record,
                id=f"e{n}",
                received_at=1_793_491_200 + chance.randrange(-86_400 * 40, 86_400 * 40),
                basis=chance.choice(list(Basis)),
                state=chance.choice([State.ANSWERED, State.CUT_BY_CLIENT, State.REFUSED]),
                model=chance.choice(["m1", "m2", None]),
                principal=Principal(
                    workspace=WorkspaceId(chance.choice(["search", "chat"])),
                    key_id=KeyId("k1"),
                    key_name="app",
                ),
                cost=Cost(
                    output_nanousd=chance.randrange(10**12),
                    cache_read_nanousd=chance.randrange(10**6),
                    fallback=chance.random() < 0.5,
                ),
            )
        )
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    for record in records:
        ledger.observe(record)
    ledger.close()

    start_ms, end_ms = 1_793_491_200_000, 1_796_083_200_000  # November 2026
    found = read_totals(
        path, [Dimension.WORKSPACE, Dimension.MODEL, Dimension.DAY], start_ms=start_ms, end_ms=end_ms
    )
    expected_costs: Counter[tuple[str, str, str]] = Counter()
    expected_guesses: Counter[tuple[str, str, str]] = Counter()
    expected_fallbacks: Counter[tuple[str, str, str]] = Counter()
    expected_requests: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        if not start_ms <= record.received_at * 1000 < end_ms:
            continue
        assert record.principal
        assert record.cost
        day = f"2026-11-{int(record.received_at - 1_793_491_200) // 86_400 + 1:02d}"
        group = (record.principal.workspace, record.model or "-", day)
        expected_requests[group] += 1
        expected_costs[group] += record.cost.total_nanousd
        guessed = record.basis in (Basis.PARTIAL, Basis.ESTIMATED, Basis.PRESUMED)
        expected_guesses[group] += record.cost.total_nanousd * guessed
        expected_fallbacks[group] += record.cost.total_nanousd * record.cost.fallback

    assert {total.group: total.requests for total in found} == expected_requests
    assert {total.group: total.cost_nanousd for total in found} == dict(expected_costs)
    assert {total.group: total.guessed_nanousd for total in found} == dict(expected_guesses)
    assert {total.group: total.fallback_nanousd for total in found} == dict(expected_fallbacks)
    (overall,) = read_totals(path, [], start_ms=start_ms, end_ms=end_ms)
    assert overall.requests == expected_requests.total()
    assert read_totals(path, [], start_ms=0, end_ms=1) == ()


def test_an_entry_at_the_edge_of_two_months_is_in_the_later_one_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    ledger.observe(a_record(received_at=1_793_491_200.0))  # 2026-11-01T00:00:00Z
    ledger.close()

    edge = 1_793_491_200_000
    assert read_totals(path, [], start_ms=0, end_ms=edge) == ()
    (total,) = read_totals(path, [Dimension.MONTH], start_ms=edge, end_ms=edge + 1)
    assert total.group == ("2026-11",)


def test_reading_runs_beside_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path, linger_seconds=0.0)
    ledger.observe(a_record())
    _until(lambda: ledger.status().stored == 1)

    (overall,) = read_totals(path, [], **ALWAYS)
    ledger.observe(a_record(id="e2"))
    assert overall.requests == 1
    assert ledger.close() == 0
