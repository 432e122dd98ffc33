"""One suite for both shelves: a value comes back whole, or not at all."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.adapters import shelf as module
from gateway.adapters.shelf import PIECE_BYTES, FileShelf, RedisShelf
from gateway.core.errors import StoreUnavailable
from tests.support.redis_server import RedisServer

VALUES = [b"", b"one", bytes(range(256)) * 10, os.urandom(3 * PIECE_BYTES + 17), bytes(PIECE_BYTES)]


class Room:
    """Where the value is; `open` is another process's view of it, `spoil` changes what is there."""

    def __init__(self, path: Path, redis: RedisServer | None) -> None:
        self._path, self._redis, self._prefix = path, redis, uuid4().hex
        self._opened: list[FileShelf | RedisShelf] = []

    def open(self) -> FileShelf | RedisShelf:
        shelf = FileShelf(self._path) if self._redis is None else RedisShelf(self._redis.url, self._prefix)
        self._opened.append(shelf)
        return shelf

    def spoil(self, how: str) -> None:
        if self._redis is not None:
            key = f"{{{self._prefix}}}:shelf"
            commands = {
                "cut off": ("HDEL", key, "2"),
                "a middle part lost": ("HDEL", key, "1"),
                "another kind": ("HSET", key, "0", "something else"),
                "damaged": ("HSET", key, "1", "x" * PIECE_BYTES),
            }
            self._redis.command(*commands[how])
            return
        whole = self._path.read_bytes()
        spoilt = {
            "cut off": whole[:-1],
            "a middle part lost": whole[:PIECE_BYTES] + whole[2 * PIECE_BYTES :],
            "another kind": b"something else",
            "damaged": whole[:-1] + bytes([whole[-1] ^ 1]),
        }
        self._path.write_bytes(spoilt[how])

    async def close(self) -> None:
        for shelf in self._opened:
            await shelf.close()


@pytest.fixture(params=["file", "redis"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    redis = request.getfixturevalue("redis_server") if request.param == "redis" else None
    room = Room(tmp_path / "new" / "learned.bin", redis)
    yield room
    await room.close()


async def test_nothing_was_saved_yet(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    assert await room.open().load() is None
    assert not caplog.records, "which is no fault"


@pytest.mark.parametrize("value", VALUES, ids=[f"{len(value)} bytes" for value in VALUES])
async def test_what_was_saved_comes_back_in_another_process(room: Room, value: bytes) -> None:
    await room.open().save(value)

    assert await room.open().load() == value


async def test_the_last_value_replaces_the_others_whole(room: Room) -> None:
    shelf = room.open()
    for value in (*VALUES, b"short"):
        await shelf.save(value)

    assert await room.open().load() == b"short"


async def test_of_two_that_save_at_once_one_wins_whole(room: Room) -> None:
    shelf, values = room.open(), [bytes([number]) * (2 * PIECE_BYTES) for number in range(6)]
    await asyncio.gather(*(shelf.save(value) for value in values))

    assert await room.open().load() in values


@pytest.mark.parametrize("how", ["cut off", "a middle part lost", "another kind", "damaged"])
async def test_what_is_not_as_it_was_saved_counts_as_nothing_and_is_logged(
    room: Room, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    await room.open().save(os.urandom(2 * PIECE_BYTES + 1000))
    room.spoil(how)

    assert await room.open().load() is None
    assert len(caplog.records) == 1
    await room.open().save(b"a new one")
    assert await room.open().load() == b"a new one"


async def test_too_large_a_value_is_refused_and_the_old_one_stays(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    shelf = room.open()
    await shelf.save(b"x" * 1000)
    with pytest.raises(StoreUnavailable, match="1,001"):
        await shelf.save(b"y" * 1001)

    assert await shelf.load() == b"x" * 1000


# In a file


async def test_the_file_is_its_owners_alone_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    aside = tmp_path / "learned.bin.new"
    aside.write_bytes(b"of a process that was killed")
    aside.chmod(0o666)
    await FileShelf(path).save(b"one")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["learned.bin"]


async def test_a_write_that_fails_leaves_the_old_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = FileShelf(tmp_path / "learned.bin")
    await shelf.save(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space"):
        await shelf.save(b"new")

    assert await shelf.load() == b"old"
    assert os.listdir(tmp_path) == ["learned.bin"]


async def test_a_folder_in_its_place_is_unavailable_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "learned.bin"
    path.mkdir()

    assert await FileShelf(path).load() is None
    with pytest.raises(StoreUnavailable):
        await FileShelf(path).save(b"one")


# In Redis


async def test_a_redis_that_is_down_or_full_is_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path / "redis") as server:
        shelf = RedisShelf(server.url, "test", timeout_seconds=0.2)
        await shelf.save(b"one")
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="memory"):
            await shelf.save(b"two")
        server.command("CONFIG", "SET", "maxmemory", "0")
        server.freeze()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await shelf.save(b"three")
        assert await shelf.load() is None
        assert time.monotonic() - begun < 2
        assert "cannot be read" in caplog.text
        server.thaw()
        assert await shelf.load() in (b"one", b"three")
        await shelf.close()


async def test_what_a_dead_replica_had_begun_to_save_is_deleted_by_itself(redis_server: RedisServer) -> None:
    for _ in range(10):  # on a machine that stalls, a save may have ended before it is cut
        prefix = uuid4().hex
        shelf = RedisShelf(redis_server.url, prefix)
        saving = asyncio.get_running_loop().create_task(shelf.save(bytes(40 * PIECE_BYTES)))
        key = f"{{{prefix}}}:shelf"
        deadline = time.monotonic() + 30
        while (left := redis_server.command("KEYS", f"{key}:*")) == b"*0\r\n" and not saving.done():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)
        saving.cancel()
        await asyncio.wait([saving])
        name = "none" if left == b"*0\r\n" else left.split(b"\r\n")[2].decode()
        lives, saved = int(redis_server.command("TTL", name)[1:]), await shelf.load()
        redis_server.command("DEL", name, key)
        await shelf.close()
        if saved is None:
            break

    assert saved is None
    assert 0 < lives <= module.UNFINISHED_SECONDS
