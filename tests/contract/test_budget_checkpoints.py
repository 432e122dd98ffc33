"""The log of the budget file: carried over beside the writer, bounded, and gone after the close."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters import sqlite_budgets, sqlite_tables
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.adapters.sqlite_tables import changes_seen, checkpoint, open_database, open_for_checkpoints
from tests.support.budgets import bound, reservation
from tests.support.clock import FakeClock

PAGE = 4096


def beat(connection: sqlite3.Connection, times: int) -> None:
    for _ in range(times):
        connection.execute("UPDATE heartbeat SET beats = beats + 1")


def log_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def test_the_writer_never_carries_the_log_over_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "budgets.db"
    writer = open_database(path, "normal")
    before = path.stat().st_mtime_ns
    beat(writer, 1500)  # SQLite would by itself, at 1000 pages

    assert log_size(path) > 1500 * PAGE
    assert path.stat().st_mtime_ns == before
    writer.close()


def test_a_log_that_was_carried_over_is_written_anew_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "budgets.db"
    writer, second = open_database(path, "normal"), open_for_checkpoints(path, "normal")
    seen = changes_seen(second)
    beat(writer, 100)
    assert changes_seen(second) != seen
    size = log_size(path)
    checkpoint(second)
    beat(writer, 50)

    assert log_size(path) == size
    writer.close()
    second.close()


@pytest.mark.parametrize(("commits", "held_up"), [(90, False), (110, True)])
def test_only_a_long_log_is_carried_over_with_writers_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: int, held_up: bool
) -> None:
    """What is committed while a log is being carried over would keep it from starting again for ever."""
    monkeypatch.setattr(sqlite_tables, "LONG_WAL_PAGES", 100)
    path = tmp_path / "budgets.db"
    writer, second = open_database(path, "normal"), open_for_checkpoints(path, "normal")
    beat(writer, 1)
    checkpoint(second)
    beat(writer, commits)
    said: list[str] = []
    second.set_trace_callback(said.append)
    checkpoint(second)

    assert ["RESTART" in statement for statement in said] == [False, True][: 1 + held_up]
    writer.close()
    second.close()


async def test_after_the_close_no_log_is_left_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_budgets, "CHECKPOINT_SECONDS", 0.001)  # also while it is written
    path = tmp_path / "budgets.db"
    store = await SqliteBudgets(path, FakeClock()).open()
    limit = bound(1000)
    for i in range(200):
        await store.reserve(reservation(f"r{i}", limit, nanousd=1))
    await store.close()

    assert os.listdir(tmp_path) == ["budgets.db"]
    with closing(sqlite3.connect(path)) as file, file:
        assert file.execute("SELECT sum(set_aside) FROM bucket").fetchone() == (200,)
    file.close()


async def test_a_log_that_grows_fast_is_carried_over_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole second of it at once kept the loop from its only core for milliseconds."""
    monkeypatch.setattr(sqlite_budgets, "CHECKPOINT_SECONDS", 60.0)
    path = tmp_path / "budgets.db"
    store = await SqliteBudgets(path, FakeClock()).open()
    limit = bound(1000)

    async def carried_over_after(operations: int) -> bool:
        for i in range(operations):
            await store.reserve(reservation(f"r{operations}-{i}", limit, nanousd=1))
        for _ in range(100):  # the other thread's turn
            if path.stat().st_size > before:
                return True
            await asyncio.sleep(0.01)
        return False

    before = path.stat().st_size
    few = sqlite_budgets.CHECKPOINT_JOBS - 1
    assert not await carried_over_after(few)
    assert await carried_over_after(1)
    await store.close()
