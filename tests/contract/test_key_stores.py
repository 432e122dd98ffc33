"""One suite for every key store: in memory, in SQLite, in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from hashlib import sha512
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.adapters.key_store import MemoryKeyStore, SqliteKeyStore
from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import RANDOM_BYTES, KeyRecord, Keyring, mint_key
from gateway.ports import KeyStore
from tests.support.place import Place, a_place
from tests.support.redis_server import RedisServer

DEMO = WorkspaceId("demo")


def minted(seed: int, created_at: float = 0.0) -> tuple[str, KeyRecord]:
    return mint_key(
        random_bytes=sha512(bytes([seed])).digest()[:RANDOM_BYTES],
        name=f"Größe {seed}",
        workspace=DEMO,
        created_at=created_at,
        created_by="somebody",
        expires_at=2_000_000_000.25,
    )


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place[KeyStore]]:
    memory, prefix = MemoryKeyStore(), uuid4().hex
    makes: dict[str, Callable[[], KeyStore]] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteKeyStore(tmp_path / "new" / "keys.sqlite3"),
        "redis": lambda: RedisKeyStore(request.getfixturevalue("redis_server").url, prefix=prefix),
    }
    async with a_place(makes[request.param]) as place:
        yield place


async def test_a_new_store_is_empty(place: Place[KeyStore]) -> None:
    assert await place.open().load() == ()


async def test_records_come_back_as_they_were_put_oldest_first(place: Place[KeyStore]) -> None:
    (_, young), (_, old) = minted(1, created_at=20.5), minted(2, created_at=10.125)
    bare = replace(minted(3)[1], created_at=30.0, expires_at=None)
    store = place.open()
    for record in (young, old, bare):
        await store.put(record)

    assert await place.open().load() == (old, young, bare)


async def test_what_one_replica_revokes_opens_nothing_on_another(place: Place[KeyStore]) -> None:
    text, record = minted(1)
    store, other = place.open(), place.open()
    await store.put(record)
    assert Keyring(await other.load(), {DEMO: "acme"}).identify(text, 1.0)

    assert await store.revoke(record.id, 5.0)

    (loaded,) = await other.load()
    assert loaded == replace(record, revoked_at=5.0)


async def test_the_first_revocation_is_the_one_that_is_kept(place: Place[KeyStore]) -> None:
    _, record = minted(1)
    store = place.open()
    await store.put(record)

    assert await store.revoke(record.id, 5.0, "Ada")
    assert await store.revoke(record.id, 9.0, "Grace")
    await store.put(replace(record, revoked_at=9.0, revoked_by="Grace"))

    (loaded,) = await store.load()
    assert (loaded.revoked_at, loaded.revoked_by) == (5.0, "Ada")


async def test_a_file_from_before_revocations_had_a_name_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE virtual_keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, workspace TEXT NOT NULL, "
            "digest BLOB NOT NULL, created_at REAL NOT NULL, expires_at REAL, revoked_at REAL, "
            "created_by TEXT NOT NULL, last4 TEXT NOT NULL) STRICT"
        )
        connection.execute(
            "INSERT INTO virtual_keys VALUES ('old00000', 'a', 'demo', x'00', 1.0, NULL, 2.0, '', '')"
        )
    store = SqliteKeyStore(path)
    _, record = minted(1)
    await store.put(record)
    assert await store.revoke(record.id, 5.0, "Ada")

    assert [(each.revoked_at, each.revoked_by) for each in await store.load()] == [(5.0, "Ada"), (2.0, "")]


async def test_putting_a_record_again_does_not_undo_its_revocation(place: Place[KeyStore]) -> None:
    _, record = minted(1)
    store = place.open()
    await store.put(record)
    await store.revoke(record.id, 5.0)

    await store.put(replace(record, name="again"))

    (loaded,) = await store.load()
    assert (loaded.name, loaded.revoked_at) == ("again", 5.0)


async def test_a_record_can_be_put_revoked(place: Place[KeyStore]) -> None:
    """So that a key which the configuration declares can be revoked by the store."""
    store = place.open()
    await store.put(replace(minted(1)[1], revoked_at=7.5))

    (loaded,) = await store.load()
    assert loaded.revoked_at == 7.5


async def test_putting_twice_is_putting_once(place: Place[KeyStore]) -> None:
    _, record = minted(1)
    store = place.open()
    await store.put(record)
    await store.put(record)

    assert await store.load() == (record,)


async def test_an_unknown_key_cannot_be_revoked(place: Place[KeyStore]) -> None:
    store = place.open()

    assert not await store.revoke(KeyId("unknown0"), 5.0)
    assert await store.load() == ()


async def test_many_writers_lose_nothing(place: Place[KeyStore]) -> None:
    records = [minted(seed, created_at=float(seed))[1] for seed in range(20)]
    work: list[Awaitable[object]] = [place.open().put(record) for record in records]
    await asyncio.gather(*work)
    await asyncio.gather(*(place.open().revoke(record.id, 5.0) for record in records[::2]))

    loaded = await place.open().load()

    assert [record.id for record in loaded] == [record.id for record in records]
    assert [record.revoked_at for record in loaded] == [5.0, None] * 10


async def test_a_redis_that_is_down_or_silent_is_unavailable_in_time(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        store = RedisKeyStore(server.url, timeout_seconds=0.2)
        await store.put(minted(1)[1])
        server.freeze()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.load()
        assert time.monotonic() - begun < 2
        server.thaw()
        assert len(await store.load()) == 1
        server.stop()
        for work in (store.load, lambda: store.put(minted(2)[1]), lambda: store.revoke(KeyId("x"), 1.0)):
            with pytest.raises(StoreUnavailable):
                await work()
        await store.close()


async def test_foreign_data_under_the_prefix_is_an_error_not_a_missing_key(redis_server: RedisServer) -> None:
    prefix = uuid4().hex
    redis_server.command("HSET", f"{{{prefix}}}:keys", "x", "{}")
    store = RedisKeyStore(redis_server.url, prefix=prefix)

    with pytest.raises(StoreUnavailable, match="prefix"):
        await store.load()
    await store.close()


async def test_a_file_that_is_no_database_is_unavailable_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite3"
    path.write_text("not a database, whatever its name says " * 100)
    before = path.read_bytes()

    with pytest.raises(StoreUnavailable, match=r"keys\.sqlite3"):
        await SqliteKeyStore(path).load()
    assert path.read_bytes() == before
