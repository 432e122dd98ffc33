"""One suite for every store of batches: in memory, in SQLite, in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import redis.asyncio

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.batch_store import UNREADABLE_SECONDS, MemoryBatchStore, SqliteBatchStore
from gateway.adapters.batch_store_redis import RedisBatchStore
from gateway.adapters.ledger import Ledger
from gateway.core.batch import KeptBatch, Settled
from gateway.core.batch_records import batch_records
from gateway.core.batch_shares import Share
from gateway.core.bucket import Amounts
from gateway.core.errors import StoreUnavailable
from gateway.core.exchange import Basis
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.usage import Usage
from gateway.ports import BatchStore
from tests.support.place import a_place

SHARE = Share(
    model="claude", items=2, usage=Usage(output_tokens=7), cost=Cost(output_nanousd=9, price_id="p")
)


def a_batch(number: int, next_at: float = 100.25) -> KeptBatch:
    return KeptBatch(
        id=f"msgbatch_{number}",
        exchange_id=f"gw_{number}",
        principal=Principal(workspace=WorkspaceId("demo"), key_id=KeyId("k"), key_name="Größe"),
        route="default",
        version_headers=(("anthropic-version", "2023-06-01"),),
        tags=(("x-team", "a"),),
        created_at=1.5,
        items=2,
        presumed=(SHARE,),
        presumed_amounts=Amounts(requests=2, nanousd=9),
        reservation_id=None,
        next_at=next_at,
    )


SETTLED = Settled(
    basis=Basis.REPORTED,
    ended_at=2.5,
    amounts=Amounts(requests=2, nanousd=9),
    shares=(SHARE,),
    ledger="one",
    at=3.0,
)

Open = Callable[[], BatchStore]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Each call gives another process's view of the same batches."""
    memory, prefix = MemoryBatchStore(), f"t{uuid4().hex}"
    makes: dict[str, Open] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteBatchStore(tmp_path / "b.sqlite3"),
        "redis": lambda: RedisBatchStore(request.getfixturevalue("redis_server").url, prefix=prefix),
    }
    async with a_place(makes[request.param]) as place:
        yield place.open


async def test_keeps_what_it_is_given_for_everybody(open_store: Open) -> None:
    one, two = open_store(), open_store()
    await one.keep(a_batch(1))
    assert await two.find("msgbatch_1") == a_batch(1)
    assert await two.find("msgbatch_2") is None


async def test_keeping_again_changes_nothing(open_store: Open) -> None:
    store = open_store()
    await store.keep(a_batch(1))
    await store.keep(replace(a_batch(1), route="other", next_at=1.0))
    assert await store.find("msgbatch_1") == a_batch(1)
    assert await store.due(50.0, 10) == ()


async def test_says_what_is_due_the_longest_overdue_first(open_store: Open) -> None:
    store = open_store()
    for number, next_at in ((1, 30.0), (2, 10.0), (3, 20.0), (4, 99.0)):
        await store.keep(a_batch(number, next_at))
    assert [batch.id for batch in await store.due(30.0, 10)] == ["msgbatch_2", "msgbatch_3", "msgbatch_1"]
    assert [batch.id for batch in await store.due(30.0, 1)] == ["msgbatch_2"]
    assert await store.due(5.0, 10) == ()


async def test_of_two_who_change_one_revision_one_does(open_store: Open) -> None:
    one, two = open_store(), open_store()
    await one.keep(a_batch(1))
    changes = (
        store.change(replace(a_batch(1), next_at=500.0 + n, settled=SETTLED))
        for n, store in enumerate([one, two] * 5)
    )
    changed = [each for each in await asyncio.gather(*changes) if each is not None]
    assert len(changed) == 1
    assert changed[0].revision == 1
    assert await two.find("msgbatch_1") == changed[0]
    assert changed[0].settled == SETTLED
    assert await one.due(400.0, 10) == ()
    assert await one.due(600.0, 10) == (changed[0],)


async def test_what_is_forgotten_is_neither_due_nor_changed(open_store: Open) -> None:
    one, two = open_store(), open_store()
    await one.keep(a_batch(1))
    await two.forget("msgbatch_1")
    await two.forget("msgbatch_1")
    assert await one.due(1e9, 10) == ()
    assert await one.change(a_batch(1)) is None
    assert await one.find("msgbatch_1") is None


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_batch_that_cannot_be_read_keeps_no_other_waiting(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """One that a later version has written, or a hand."""
    spoilt, good, path = b'{"id":"msgbatch_1"}', a_batch(2, 20.0), tmp_path / "b.sqlite3"
    url, prefix = request.getfixturevalue("redis_server").url, f"t{uuid4().hex}"
    store: BatchStore = SqliteBatchStore(path) if kind == "sqlite" else RedisBatchStore(url, prefix=prefix)
    await store.keep(a_batch(1, 10.0))
    await store.keep(good)
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("UPDATE batches SET batch = ? WHERE id = 'msgbatch_1'", (spoilt.decode(),))
            file.commit()
    else:
        async with redis.asyncio.Redis.from_url(url) as server:
            await server.hset(f"{{{prefix}}}:batches", "msgbatch_1", spoilt)

    assert await store.due(30.0, 1) == ()
    assert await store.due(30.0, 1) == (good,), "it is put off, and not in the way any more"
    assert await store.due(30.0 + UNREADABLE_SECONDS, 10) == (good,)
    assert [each.split(":")[0] for each in caplog.messages] == ["batch msgbatch_1 is passed over"] * 2
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await store.find("msgbatch_1")
    await store.close()


async def test_a_store_that_is_away_says_so_in_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, though as long as one might be" * 100)
    nowhere = RedisBatchStore("redis://127.0.0.1:1/0")
    for store in (SqliteBatchStore(tmp_path / "file"), nowhere):
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await store.keep(a_batch(1))
            with pytest.raises(StoreUnavailable):
                await store.due(1.0, 1)
    await nowhere.close()


async def test_books_beside_the_ledgers_own_writer_and_each_entry_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    books = LedgerBatchBooks(path)
    records = batch_records(a_batch(1), SETTLED)
    ledger.observe(batch_records(a_batch(2), SETTLED)[0])
    assert [await books.add(records), await LedgerBatchBooks(path).add(records)] == [1, 0]
    assert books.name == LedgerBatchBooks(path).name != LedgerBatchBooks(tmp_path / "other").name
    await asyncio.to_thread(ledger.close)
    with pytest.raises(StoreUnavailable):
        await LedgerBatchBooks(tmp_path).add(records)
