"""What the budget file's writer remembers is never older than the file, and never more."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.sqlite_budgets import BUSY_OPEN, SqliteBudgets
from gateway.adapters.sqlite_cache import SqliteCache
from gateway.adapters.sqlite_tables import begin, open_database
from gateway.core.bucket import Level
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.reservations import Record, State
from tests.support.budgets import bound, reservation, rid, usd

LIMIT = bound(1_000_000_000)


def spent_in(path: Path) -> tuple[int, int]:
    """As another program finds it in the file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        row: tuple[int, int] = connection.execute("SELECT spent, set_aside FROM bucket").fetchone()
    connection.close()
    return row


async def test_two_that_share_a_file_see_each_other_at_once(tmp_path: Path) -> None:
    one = await SqliteBudgets(tmp_path / "b.db", SystemClock()).open()
    two = await SqliteBudgets(tmp_path / "b.db", SystemClock()).open()
    for number in range(20):
        await (one, two)[number % 2].reserve(reservation(f"r{number}", LIMIT, nanousd=10))
    for number in range(10):  # by the other one than made it
        await (two, one)[number % 2].settle(rid(f"r{number}"), usd(3))
    for store in (one, two):
        (verdict,) = await store.peek([LIMIT])
        assert (verdict.spent, verdict.set_aside) == (30, 100)
    await one.close()
    await two.close()


async def test_what_was_answered_is_in_the_file(tmp_path: Path) -> None:
    store = await SqliteBudgets(tmp_path / "b.db", SystemClock()).open()
    await asyncio.gather(*(store.reserve(reservation(f"r{n}", LIMIT, nanousd=10)) for n in range(50)))
    assert spent_in(tmp_path / "b.db") == (0, 500)

    await asyncio.gather(*(store.settle(rid(f"r{n}"), usd(4)) for n in range(50)))
    assert spent_in(tmp_path / "b.db") == (200, 0)
    await store.close()


async def test_a_settlement_that_waits_for_company_comes_before_who_asks_next(tmp_path: Path) -> None:
    """It may linger while others are open; whoever reserves meanwhile finds it settled."""
    limit = bound(100)
    store = await SqliteBudgets(tmp_path / "b.db", SystemClock()).open()
    for number in range(BUSY_OPEN + 1):
        assert (await store.reserve(reservation(f"r{number}", limit, nanousd=20))).allowed
    settling = asyncio.create_task(store.settle(rid("r0"), usd(0)))  # noqa: TID251
    await asyncio.sleep(0)

    assert (await store.reserve(reservation("next", limit, nanousd=20))).allowed
    await settling
    await store.close()


async def test_lingering_settlements_are_written_at_the_close(tmp_path: Path) -> None:
    store = await SqliteBudgets(tmp_path / "b.db", SystemClock()).open()
    for number in range(9):
        await store.reserve(reservation(f"r{number}", LIMIT, nanousd=10))
    settling = asyncio.create_task(store.settle(rid("r0"), usd(7)))  # noqa: TID251
    await asyncio.sleep(0)
    await store.close()
    await settling

    assert spent_in(tmp_path / "b.db") == (7, 80)


async def test_what_was_rolled_back_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    store = await SqliteBudgets(path, SystemClock()).open()
    await store.reserve(reservation("a", LIMIT, nanousd=10))
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON reservation BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    with pytest.raises(StoreUnavailable):
        await store.reserve(reservation("b", LIMIT, nanousd=10))
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DROP TRIGGER full")
    other.close()

    (verdict,) = await store.peek([LIMIT])
    assert (verdict.spent, verdict.set_aside) == (0, 10)
    assert (await store.reserve(reservation("b", LIMIT, nanousd=10))).allowed
    assert spent_in(path) == (0, 20)
    await store.close()


def test_within_a_transaction_it_finds_what_it_has_not_written_yet(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "b.db", "normal")
    cache, known = SqliteCache(connection), ReservationId("r")
    begin(connection)
    cache.begin()
    cache.keep_level("bucket", Level(set_aside=3))
    cache.put_record(known, Record(State.OPEN, until_ms=5))
    assert cache.level("bucket") == Level(set_aside=3)
    assert list(cache.due(9, 10)) == [known]  # asked of the file

    cache.drop_level("bucket")
    cache.put_record(known, Record(State.CLOSED, until_ms=7))
    assert cache.level("bucket") is None
    cache.flush()
    connection.execute("COMMIT")
    assert connection.execute("SELECT count(*) FROM bucket").fetchone() == (0,)
    record = cache.record(known)
    assert record is not None
    assert record.state is State.CLOSED
    connection.close()
