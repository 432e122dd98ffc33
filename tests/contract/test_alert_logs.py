"""One suite for every alert log: in memory, in SQLite, in Redis."""

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

from gateway.adapters import alert_log, alert_log_redis
from gateway.adapters.alert_log import MemoryAlertLog, SqliteAlertLog
from gateway.adapters.alert_log_redis import RedisAlertLog
from gateway.core.alerts import (
    KEPT_SECONDS,
    Alert,
    AlertEntry,
    AlertKind,
    Begun,
    Delivery,
    Outcome,
    attempted,
)
from gateway.core.errors import StoreUnavailable
from gateway.ports import AlertLog
from tests.support.place import Place, a_place
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer

NOW = 1_800_000_000.125
DONE = {"people": Outcome(delivered=True, final=True, said="status 200")}


def an_entry(name: str = "threshold/demo/1", at: float = NOW) -> AlertEntry:
    alert = Alert(
        id=name,
        kind=AlertKind.THRESHOLD,
        at=at,
        headline="Größe: 80% spent",
        facts=(("spent", "$8.00"), ("again", "$2.00")),
        amounts=(("spent_nanousd", 2**53 - 1),),
        workspace="demo",
    )
    return AlertEntry(alert=alert, deliveries=(Delivery(target="people"),), due_at=at)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place[AlertLog]]:
    memory, prefix = MemoryAlertLog(), uuid4().hex
    makes: dict[str, Callable[[], AlertLog]] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteAlertLog(tmp_path / "new" / "alerts.sqlite3"),
        "redis": lambda: RedisAlertLog(request.getfixturevalue("redis_server").url, prefix=prefix),
    }
    async with a_place(makes[request.param]) as place:
        yield place


async def test_an_alert_is_begun_once_whoever_begins_it(place: Place[AlertLog]) -> None:
    logs = [place.open() for _ in range(3)]

    begun = await asyncio.gather(*(log.begin(an_entry()) for log in logs for _ in range(4)))

    assert sorted(begun) == [Begun.KNOWN] * 11 + [Begun.NEW]


async def test_what_is_due_is_taken_by_one_and_by_another_once_the_lease_is_over(
    place: Place[AlertLog],
) -> None:
    one, two = place.open(), place.open()
    await one.begin(an_entry())
    assert await one.take(NOW - 1, 60.0, 9) == ()

    taken = await asyncio.gather(one.take(NOW, 60.0, 9), two.take(NOW, 60.0, 9))
    assert sorted(map(len, taken)) == [0, 1]
    assert await two.take(NOW + 59, 60.0, 9) == ()
    (again,) = await two.take(NOW + 60, 60.0, 9)

    assert again.alert == an_entry().alert
    assert again.deliveries == an_entry().deliveries


async def test_what_was_sent_is_not_due_again_and_says_so(place: Place[AlertLog]) -> None:
    log = place.open()
    await log.begin(an_entry())
    (taken,) = await log.take(NOW, 60.0, 9)
    assert await log.waiting() == 1

    assert await log.save(attempted(taken, DONE, NOW + 1, 0.5))

    assert await log.take(NOW + 1e9, 60.0, 9) == ()
    assert await log.waiting() == 0
    (told,) = await log.history(9)
    assert told.due_at is None
    assert told.deliveries[0].said == "status 200"
    assert told.alert == an_entry().alert


async def test_who_lost_the_lease_does_not_overwrite_what_another_wrote(place: Place[AlertLog]) -> None:
    slow, quick = place.open(), place.open()
    await slow.begin(an_entry())
    (lost,) = await slow.take(NOW, 60.0, 9)
    (taken,) = await quick.take(NOW + 61, 60.0, 9)
    assert await quick.save(attempted(taken, DONE, NOW + 62, 0.5))

    late = {"people": Outcome(delivered=False, final=False, said="status 500")}
    assert not await slow.save(attempted(lost, late, NOW + 63, 0.5))

    assert [each.due_at for each in await slow.history(9)] == [None]


async def test_history_is_newest_first_and_what_is_old_is_forgotten(place: Place[AlertLog]) -> None:
    log = place.open()
    for number in range(3):
        await log.begin(an_entry(f"a/{number}", NOW + number))

    assert [each.alert.id for each in await log.history(2)] == ["a/2", "a/1"]
    await log.begin(an_entry("a/new", NOW + 1 + KEPT_SECONDS))
    assert [each.alert.id for each in await log.history(9)] == ["a/new", "a/2", "a/1"]
    assert await log.begin(an_entry("a/0", NOW + KEPT_SECONDS)) is Begun.NEW


async def test_those_due_the_longest_come_first_and_no_more_than_asked(place: Place[AlertLog]) -> None:
    log = place.open()
    for number in (2, 0, 1):
        await log.begin(an_entry(f"a/{number}", NOW + number))

    assert [each.alert.id for each in await log.take(NOW + 9, 60.0, 2)] == ["a/0", "a/1"]
    assert [each.alert.id for each in await log.take(NOW + 9, 60.0, 2)] == ["a/2"]


async def test_beyond_so_many_that_wait_none_is_begun(
    place: Place[AlertLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (alert_log, alert_log_redis):
        monkeypatch.setattr(module, "MOST_OPEN", 2)
    log = place.open()
    for number in range(2):
        assert await log.begin(an_entry(f"a/{number}")) is Begun.NEW

    assert await log.begin(an_entry("a/2")) is Begun.FULL
    (taken,) = await log.take(NOW, 60.0, 1)
    assert await log.save(attempted(taken, DONE, NOW, 0.5))
    assert await log.begin(an_entry("a/2")) is Begun.NEW


async def test_a_change_of_a_lease_is_seen_in_the_revision(place: Place[AlertLog]) -> None:
    log = place.open()
    await log.begin(an_entry())
    (first,) = await log.take(NOW, 1.0, 9)
    (second,) = await log.take(NOW + 1, 1.0, 9)

    assert second.revision > first.revision
    assert replace(second, revision=first.revision, due_at=first.due_at) == first


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_log_that_is_away_is_said_to_be_unavailable(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    log: AlertLog = SqliteAlertLog(tmp_path / "file" / "alerts.sqlite3")
    if kind == "redis":
        log = RedisAlertLog(f"redis://127.0.0.1:{free_port()}/0")

    for ask in (log.begin(an_entry()), log.take(NOW, 1.0, 1), log.history(1), log.waiting()):
        with pytest.raises(StoreUnavailable):
            await ask
    await log.close()


async def test_alerts_in_redis_survive_what_scripts_do_not(redis_server: RedisServer) -> None:
    log = RedisAlertLog(redis_server.url, prefix=uuid4().hex)
    await log.begin(an_entry())
    redis_server.command("SCRIPT", "FLUSH")

    assert [each.alert.id for each in await log.take(NOW, 1.0, 1)] == [an_entry().alert.id]
    await log.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_alert_that_cannot_be_read_keeps_no_other_from_being_sent(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """One that a later version has written, or a hand."""
    path, url, prefix = tmp_path / "a.sqlite3", request.getfixturevalue("redis_server").url, uuid4().hex
    log: AlertLog = SqliteAlertLog(path) if kind == "sqlite" else RedisAlertLog(url, prefix=prefix)
    await log.begin(an_entry("spoilt"))
    await log.begin(an_entry("good"))
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("UPDATE alerts SET text = '{}' WHERE id = 'spoilt'")
            file.commit()
    else:
        async with redis.asyncio.Redis.from_url(url) as server:
            await server.hset(f"{{{prefix}}}:alerts:texts", "spoilt", "{}")

    assert [each.alert.id for each in await log.take(NOW, 60.0, 9)] == ["good"]
    assert await log.take(NOW, 60.0, 9) == (), "both are leased"
    assert [each.alert.id for each in await log.history(9)] == ["good"]
    assert "cannot be read" in caplog.text
    await log.close()
