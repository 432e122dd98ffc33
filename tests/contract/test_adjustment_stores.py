"""One suite for every store of adjustments: in memory, in SQLite, in Redis."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.adapters import adjustment_store, adjustment_store_redis
from gateway.adapters.adjustment_store import MemoryAdjustmentStore, SqliteAdjustmentStore
from gateway.adapters.adjustment_store_mirrored import MirroredAdjustmentStore
from gateway.adapters.adjustment_store_redis import RedisAdjustmentStore
from gateway.core.adjustments import (
    EXPIRED_KEPT_SECONDS,
    Adjustment,
    Author,
    Freeze,
    FreezeScope,
    Grant,
    LogEntry,
    Override,
    TakenBack,
    Target,
)
from gateway.core.errors import StoreUnavailable, TooManyAdjustments
from gateway.core.limits import Period, Scope, Unit
from gateway.ports import AdjustmentStore
from tests.support.place import Place, a_place
from tests.support.redis_server import RedisServer

NOW = 1_800_000_000.25
ANN = Author(name="Änn", via="by the admin token")
TARGET = Target(
    limit="month", subject="démo", scope=Scope.WORKSPACE, unit=Unit.NANOUSD, period=Period.CALENDAR_MONTH
)
BACK = TakenBack(reason="no longer", by=Author(name="bob", via="here"), at=NOW + 1)


def an_override(id: str = "override1", at: float = NOW) -> Override:
    return Override(id=id, target=TARGET, amount=2**53 - 2, reason="Größe", by=ANN, at=at)


def a_grant(id: str = "grant001", *, until: float = NOW + 60.5, at: float = NOW) -> Grant:
    return Grant(
        id=id, target=TARGET, extra=5, from_at=NOW + 10, until_at=until, reason="more", by=ANN, at=at
    )


def a_freeze(id: str = "freeze01") -> Freeze:
    return Freeze(id=id, scope=FreezeScope.TEAM, subject="t", reason="stop", by=ANN, at=NOW)


@pytest.fixture(params=["memory", "sqlite", "redis", "mirrored"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place[AdjustmentStore]]:
    memory, prefix = MemoryAdjustmentStore(), uuid4().hex
    makes: dict[str, Callable[[], AdjustmentStore]] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteAdjustmentStore(tmp_path / "new" / "adjustments.sqlite3"),
        "redis": lambda: RedisAdjustmentStore(request.getfixturevalue("redis_server").url, prefix=prefix),
        "mirrored": lambda: MirroredAdjustmentStore(
            RedisAdjustmentStore(request.getfixturevalue("redis_server").url, prefix=prefix),
            SqliteAdjustmentStore(tmp_path / f"{uuid4().hex}.sqlite3"),
        ),
    }
    async with a_place(makes[request.param]) as place:
        yield place


async def test_a_new_store_is_empty(place: Place[AdjustmentStore]) -> None:
    store = place.open()

    assert await store.load(NOW) == ()
    assert await store.history(before=None, at_most=10) == ()
    assert await store.find("override1") is None
    assert await store.take_back("override1", BACK) is None


async def test_what_one_replica_adds_another_sees_as_it_was_in_the_order_of_the_log(
    place: Place[AdjustmentStore],
) -> None:
    made: list[Adjustment] = [a_grant(), an_override(), a_freeze()]
    store = place.open()

    entries = [await store.add(each) for each in made]

    assert entries == [LogEntry(number=n, adjustment=each) for n, each in enumerate(made, 1)]
    assert await place.open().load(NOW) == tuple(made)


async def test_adding_twice_is_adding_once_and_the_first_is_what_is_kept(
    place: Place[AdjustmentStore],
) -> None:
    store = place.open()
    first = await store.add(a_grant())

    assert await store.add(a_grant(until=NOW + 999)) == first
    assert await place.open().history(before=None, at_most=10) == (first,)


async def test_what_is_taken_back_holds_nowhere_and_stays_in_the_log(place: Place[AdjustmentStore]) -> None:
    store, other = place.open(), place.open()
    made = await store.add(a_freeze())

    taken = await other.take_back("freeze01", BACK)

    assert taken == LogEntry(number=2, adjustment=a_freeze(), taken_back=BACK)
    assert await store.load(NOW) == ()
    assert await store.find("freeze01") == taken
    assert await store.history(before=None, at_most=10) == (taken, made)


async def test_the_first_to_take_back_is_the_one_that_is_kept(place: Place[AdjustmentStore]) -> None:
    store = place.open()
    await store.add(a_freeze())
    first = await store.take_back("freeze01", BACK)
    again = TakenBack(reason="again", by=ANN, at=NOW + 50)

    assert await place.open().take_back("freeze01", again) == first
    assert len(await store.history(before=None, at_most=10)) == 2


async def test_what_was_taken_back_does_not_come_back_by_being_added_again(
    place: Place[AdjustmentStore],
) -> None:
    store = place.open()
    made = await store.add(a_freeze())
    await store.take_back("freeze01", BACK)

    assert await store.add(a_freeze()) == made
    assert await store.load(NOW) == ()


async def test_a_grant_is_loaded_until_its_end(place: Place[AdjustmentStore]) -> None:
    store = place.open()
    await store.add(a_grant(until=NOW + 60.5))
    await store.add(an_override())

    assert len(await store.load(NOW + 60.25)) == 2
    assert await store.load(NOW + 60.5) == (an_override(),)


async def test_history_is_paged_newest_first_without_gaps(place: Place[AdjustmentStore]) -> None:
    store = place.open()
    for number in range(7):
        await store.add(a_freeze(f"freeze{number:02}"))
    pages = []
    before: int | None = None
    while page := await store.history(before=before, at_most=3):
        pages.append([entry.number for entry in page])
        before = page[-1].number

    assert pages == [[7, 6, 5], [4, 3, 2], [1]]
    assert await store.history(before=999, at_most=1) == await store.history(before=None, at_most=1)


async def test_many_writers_lose_nothing_and_number_without_gaps(place: Place[AdjustmentStore]) -> None:
    made = [a_freeze(f"freeze{number:02}") for number in range(12)]
    await asyncio.gather(*(place.open().add(each) for each in made))
    await asyncio.gather(*(place.open().take_back(each.id, BACK) for each in made for _ in range(2)))

    entries = await place.open().history(before=None, at_most=100)

    assert [entry.number for entry in entries] == list(range(24, 0, -1))
    assert {entry.adjustment.id for entry in entries if entry.taken_back} == {each.id for each in made}


async def test_there_is_an_end_to_how_many_hold_at_once(
    place: Place[AdjustmentStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (adjustment_store, adjustment_store_redis):
        monkeypatch.setattr(module, "MAX_IN_FORCE", 3)
    store = place.open()
    for number in range(2):
        await store.add(a_freeze(f"freeze{number:02}"))
    await store.add(a_grant("grant001", until=NOW + 60))
    with pytest.raises(TooManyAdjustments):
        await store.add(a_freeze("freeze99"))

    assert (await store.add(a_freeze("freeze00"))).number == 1, "what is there is no new one"
    await store.take_back("freeze00", BACK)
    await store.add(an_override("override1"))
    with pytest.raises(TooManyAdjustments):
        await store.add(an_override("override2"))
    later = NOW + 60 + EXPIRED_KEPT_SECONDS  # the grant is over for all clocks
    assert (await store.add(an_override("override3", at=later))).number == 6


async def test_a_redis_that_is_down_or_silent_is_unavailable_in_time(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        store = RedisAdjustmentStore(server.url, timeout_seconds=0.2)
        await store.add(a_freeze())
        server.freeze()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.load(NOW)
        assert time.monotonic() - begun < 2
        server.thaw()
        server.stop()
        for work in (
            store.load(NOW),
            store.add(a_grant()),
            store.take_back("freeze01", BACK),
            store.find("freeze01"),
            store.history(before=None, at_most=1),
        ):
            with pytest.raises(StoreUnavailable):
                await work
        await store.close()


async def test_a_line_that_cannot_be_read_is_an_error_and_not_overlooked(redis_server: RedisServer) -> None:
    """It may be a freeze."""
    prefix = uuid4().hex
    store = RedisAdjustmentStore(redis_server.url, prefix=prefix)
    await store.add(a_freeze())
    redis_server.command("HSET", f"{{{prefix}}}:adjustments:log", "1", '{"kind": "new"}')

    with pytest.raises(StoreUnavailable, match="newer version"):
        await store.load(NOW)
    await store.close()


async def test_the_log_on_disk_can_be_neither_changed_nor_shortened(tmp_path: Path) -> None:
    path = tmp_path / "adjustments.sqlite3"
    await SqliteAdjustmentStore(path).add(a_freeze())

    with closing(sqlite3.connect(path)) as connection:
        for statement in ("DELETE FROM adjustments", "UPDATE adjustments SET text = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                connection.execute(statement)


async def test_a_file_that_is_no_database_is_unavailable_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "adjustments.sqlite3"
    path.write_text("not a database, whatever its name says " * 100)
    before = path.read_bytes()

    with pytest.raises(StoreUnavailable, match=r"adjustments\.sqlite3"):
        await SqliteAdjustmentStore(path).load(NOW)
    assert path.read_bytes() == before
