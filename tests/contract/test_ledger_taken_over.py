"""A ledger of an older schema is read as it is, taken over in place, and loses nothing by it."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters.ledger import Ledger, restore
from gateway.adapters.ledger_queries import read_losses, read_totals
from gateway.adapters.ledger_rows import CHAINED
from gateway.core.entry import SCHEMA_VERSION, Entry
from gateway.core.errors import ConfigError
from gateway.core.ledger import Dimension
from tests.support.records import a_record

SCHEMA_1 = (Path(__file__).parents[1] / "support" / "ledger_1.sql").read_text(encoding="utf-8")
"""Written by the version of schema 1 itself: two entries, and the log line of a third."""
ALWAYS = {"start_ms": 0, "end_ms": 2**62}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA_1)
    return path


def _columns(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info('entries')"
        ).fetchall()


def _versions(path: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, schema_version FROM entries ORDER BY sequence").fetchall()


def test_a_ledger_that_was_taken_over_is_like_a_new_one(old: Path, tmp_path: Path) -> None:
    ledger = Ledger(old)
    ledger.observe(a_record(id="new"))
    assert ledger.close() == 0
    Ledger(tmp_path / "new.sqlite3").close()

    assert _columns(old) == _columns(tmp_path / "new.sqlite3")
    assert _versions(old) == [("old-1", 1), ("old-2", 1), ("new", SCHEMA_VERSION)]
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        rows = connection.execute("SELECT cohort, miss_cause, miss_tokens FROM entries").fetchall()
        assert rows == [(None, None, 0), (None, None, 0), ("placed", None, 0)]
        for statement in ("UPDATE entries SET cohort = 'placed'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_taking_over_changes_no_sum(old: Path) -> None:
    by = [Dimension.WORKSPACE, Dimension.MODEL, Dimension.COHORT]
    before = read_totals(old, by, **ALWAYS)
    Ledger(old).close()

    assert read_totals(old, by, **ALWAYS) == before
    (spent,) = (total for total in before if total.cost_nanousd)
    assert spent.group == ("search", "claude-test-1", "-")
    assert (spent.plain_nanousd, spent.paid_nanousd) == (30_000_000, 6_375_001)
    assert (spent.miss_nanousd, spent.shadow_paid_nanousd) == (0, 0)
    assert read_losses(old, [Dimension.WORKSPACE], **ALWAYS) == ()


def test_reading_an_old_ledger_leaves_it_as_it_is(old: Path) -> None:
    read_totals(old, [Dimension.COHORT], **ALWAYS)
    assert read_losses(old, [], **ALWAYS) == ()

    assert "cohort" not in [column[0] for column in _columns(old)]


def test_entries_that_the_old_version_spilled_are_put_back(old: Path) -> None:
    assert restore(old, SCHEMA_1.splitlines()) == 1
    assert restore(old, SCHEMA_1.splitlines()) == 0

    assert _versions(old)[-1] == ("old-3", 1)


def test_an_old_replica_goes_on_writing_beside_a_new_one(old: Path) -> None:
    """In a rolling update the old one names the columns that it knows."""
    known = [name for name in Entry._fields if name not in Entry._field_defaults]
    Ledger(old).close()
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(
            f"INSERT INTO entries ({', '.join(known)}) "
            f"SELECT 'late', {', '.join(known[1:])} FROM entries LIMIT 1"
        )
        connection.commit()

    assert _versions(old)[-1] == ("late", 1)


def test_many_that_open_it_at_once_take_it_over_once(old: Path) -> None:
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            Ledger(old).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert failures == []
    assert [column[0] for column in _columns(old)] == ["sequence", *Entry._fields, *CHAINED]


def test_a_takeover_that_fails_leaves_the_file_as_it_was(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("ALTER TABLE entries ADD COLUMN held_ms INTEGER")  # not ours: it is in the way
    before = _columns(old)

    with pytest.raises(ConfigError, match="held_ms"):
        Ledger(old)
    assert _columns(old) == before
