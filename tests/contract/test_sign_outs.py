"""One suite for every store of who has signed out of the page: in memory, in SQLite, in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.adapters.sign_outs import MemorySignOuts, RedisSignOuts, SqliteSignOuts
from gateway.core.errors import StoreUnavailable
from gateway.web.page.session import SignOuts
from tests.support.place import a_place
from tests.support.redis_server import RedisServer

Open = Callable[[], SignOuts]
AT = 1_800_000_000.0


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Each is another process's view of the same."""
    memory, prefix = MemorySignOuts(), uuid4().hex
    makes: dict[str, Open] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteSignOuts(tmp_path / "signed-out.sqlite3"),
        "redis": lambda: RedisSignOuts(request.getfixturevalue("redis_server").url, prefix=prefix),
    }
    async with a_place(makes[request.param]) as place:
        yield place.open


async def test_what_one_was_told_all_know(another: Open) -> None:
    one, two = another(), another()
    await one.add("session", at=AT, until=AT + 60)

    assert await two.has("session")
    assert not await two.has("another")


async def test_signing_out_twice_is_signing_out(another: Open) -> None:
    one = another()
    for later in (0.0, 1.0):
        await one.add("session", at=AT + later, until=AT + 60)

    assert await one.has("session")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_could_not_be_used_any_more_is_forgotten(tmp_path: Path, kind: str) -> None:
    one = MemorySignOuts() if kind == "memory" else SqliteSignOuts(tmp_path / "signed-out.sqlite3")
    await one.add("old", at=AT, until=AT + 60)
    await one.add("new", at=AT + 61, until=AT + 120)

    assert [await one.has(each) for each in ("old", "new")] == [False, True]


async def test_redis_keeps_it_until_the_session_would_have_ended(own_redis: RedisServer) -> None:
    one = RedisSignOuts(own_redis.url, prefix="p")
    await one.add("session", at=AT, until=AT + 59.5)
    await one.add("over", at=AT, until=AT - 5)
    await one.close()

    assert own_redis.command("PTTL", "{p}:signed-out:session") <= b":60000\r\n"
    assert own_redis.command("PERSIST", "{p}:signed-out:session") == b":1\r\n"


async def test_a_store_that_is_away_says_so(own_redis: RedisServer) -> None:
    one = RedisSignOuts(own_redis.url)
    own_redis.stop()
    with pytest.raises(StoreUnavailable, match="who has signed out"):
        await one.add("session", at=AT, until=AT + 60)
    with pytest.raises(StoreUnavailable):
        await one.has("session")
    await one.close()
