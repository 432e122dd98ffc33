"""Live calls of several replicas on one Redis: whoever is asked knows all of them, says whose each is and who
is missing, and pays nothing while nobody looks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from gateway.adapters import replicas_live
from gateway.adapters.clock import SystemClock
from gateway.adapters.live_calls import LiveCalls
from gateway.adapters.replicas_live import MOST_CALLS, ReplicasLive, replica_name
from gateway.core.exchange import Timings
from gateway.core.worker import Worker
from gateway.tasks import TaskSet
from tests.support.records import a_record
from tests.support.redis_groups import SentinelGroup
from tests.support.redis_server import RedisServer

CLOCK = SystemClock()


@dataclass
class Replica:
    live: ReplicasLive
    own: LiveCalls

    def ends(self, call_id: str) -> None:
        self.own.observe(a_record(id=call_id, received_at=CLOCK.now(), timings=Timings(total_seconds=0.0)))


@dataclass
class Ground:
    redis: RedisServer | SentinelGroup
    running: AsyncExitStack
    prefix: str = field(default_factory=lambda: uuid4().hex)

    async def replica(self, name: str, worker: Worker | None = None, *, shares: bool = True) -> Replica:
        own = LiveCalls(list, CLOCK, name)
        url = self.redis.url if shares else None
        live = ReplicasLive(own, worker, clock=CLOCK, url=url, prefix=self.prefix)
        loops = TaskSet()
        await live.start()
        live.run(loops)

        async def stop() -> None:
            await loops.drain(0.0)
            await live.close()

        self.running.push_async_callback(stop)
        return Replica(live, own)

    async def listens(self, *names: str) -> None:
        """Until Redis has a listener for each of them."""
        async with Redis.from_url(self.redis.url) as redis:

            async def there() -> bool:
                found: Any = await redis.pubsub_channels(f"{{{self.prefix}}}:live:*")
                return {each.decode().rpartition(":live:")[2] for each in found} >= {*names}

            await until(there)

    async def nobody_at(self, name: str) -> None:
        """A replica that is there, and answers nothing."""
        redis = Redis.from_url(self.redis.url)
        self.running.push_async_callback(redis.aclose)
        hearing = redis.pubsub()
        self.running.push_async_callback(hearing.aclose)
        await hearing.subscribe(f"{{{self.prefix}}}:live:{name}")
        await self.listens(name)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = CLOCK.monotonic() + 30
    while not await holds():
        assert CLOCK.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.02)


@pytest.fixture
async def ground(redis_server: RedisServer) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as running:
        yield Ground(redis_server, running)


@pytest.fixture
async def apart(own_redis: RedisServer) -> AsyncIterator[Ground]:
    """On a Redis that nobody else uses."""
    async with AsyncExitStack() as running:
        yield Ground(own_redis, running)


async def test_whoever_is_asked_tells_of_all_and_whose_each_call_is(ground: Ground) -> None:
    replicas = [await ground.replica(name) for name in ("one", "two", "three")]
    await ground.listens("one", "two", "three")
    for number, each in enumerate(replicas):
        each.ends(f"call {number}")

    for each, name in zip(replicas, ("one", "two", "three"), strict=True):
        live = await each.live.live()
        assert {(call.id, call.replica) for call in live.told.calls} == {
            ("call 0", "one"),
            ("call 1", "two"),
            ("call 2", "three"),
        }
        assert live.replicas[0] == name
        assert (sorted(live.replicas), live.silent, live.trouble) == (["one", "three", "two"], [], "")


async def test_a_replica_that_does_not_answer_is_named_and_the_others_are_shown(ground: Ground) -> None:
    one, two = await ground.replica("one"), await ground.replica("two")
    await ground.nobody_at("frozen")
    await ground.listens("one", "two")
    two.ends("of two")
    live = await one.live.live()

    assert (live.silent, live.replicas) == (["frozen"], ["one", "two"])
    assert [call.id for call in live.told.calls] == ["of two"]


async def test_a_replica_that_has_left_is_missed_by_nobody(ground: Ground) -> None:
    one = await ground.replica("one")
    async with AsyncExitStack() as shorter:
        await Ground(ground.redis, shorter, ground.prefix).replica("two")
        await ground.listens("one", "two")

    async def alone() -> bool:
        return (await one.live.live()).replicas == ["one"]

    await until(alone)
    assert (await one.live.live()).silent == []


async def test_a_replica_tells_another_of_so_many_calls_and_says_from_when_on_these_are_all(
    ground: Ground,
) -> None:
    one, two = await ground.replica("one"), await ground.replica("two")
    await ground.listens("one", "two")
    for number in range(MOST_CALLS + 50):
        two.ends(str(number))
    mine, theirs = await two.live.live(), await one.live.live()

    assert len(mine.told.calls) == MOST_CALLS + 50
    assert [call.id for call in theirs.told.calls] == [str(n) for n in range(MOST_CALLS + 49, 49, -1)]
    assert theirs.told.whole_since == mine.told.calls[MOST_CALLS].ended_at


async def test_nothing_is_said_while_nobody_looks_and_nothing_stays_behind(
    apart: Ground, own_redis: RedisServer
) -> None:
    one, _ = await apart.replica("one"), await apart.replica("two")
    await apart.listens("one", "two")
    assert b"cmdstat_publish" not in own_redis.command("INFO", "commandstats")

    assert len((await one.live.live()).replicas) == 2
    assert b"cmdstat_publish" in own_redis.command("INFO", "commandstats")
    assert own_redis.command("DBSIZE") == b":0\r\n"


async def test_without_redis_the_own_calls_are_shown_and_why_others_are_not(
    apart: Ground, own_redis: RedisServer
) -> None:
    one, _ = await apart.replica("one"), await apart.replica("two")
    await apart.listens("one", "two")
    one.ends("mine")
    own_redis.stop()
    live = await one.live.live()

    assert [call.id for call in live.told.calls] == ["mine"]
    assert live.trouble.startswith("Redis cannot be asked: ")

    own_redis.start()

    async def both() -> bool:
        return len((await one.live.live()).replicas) == 2

    await until(both)


async def test_a_redis_that_hangs_is_given_up_on(apart: Ground, own_redis: RedisServer) -> None:
    one = await apart.replica("one")
    await apart.listens("one")
    own_redis.freeze()
    live = await one.live.live()
    own_redis.thaw()

    assert (live.replicas, live.silent) == (["one"], [])
    assert "Redis" in live.trouble


async def test_after_a_failover_they_find_each_other_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was the master still takes messages, which nobody hears there; nothing fails."""
    monkeypatch.setattr(replicas_live, "QUIET_SECONDS", 0.5)
    with SentinelGroup(tmp_path) as group:
        async with AsyncExitStack() as running:
            ground = Ground(group, running)
            one, _ = await ground.replica("one"), await ground.replica("two")

            async def both() -> bool:
                return (await one.live.live()).replicas == ["one", "two"]

            await until(both)
            group.fail_over()
            await until(both)


async def test_of_several_workers_the_first_answers_and_all_may_ask(ground: Ground, tmp_path: Path) -> None:
    with socket.socket() as listening:
        workers = [
            Worker(number=number, count=2, folder=str(tmp_path), listening=listening.fileno())
            for number in (0, 1)
        ]
        machine = [await ground.replica("machine", worker) for worker in workers]
        other = await ground.replica("other")
        await ground.listens("machine", "other")
        for number, each in enumerate([*machine, other]):
            each.ends(f"call {number}")

        for each in (*machine, other):
            live = await each.live.live()
            assert sorted(call.id for call in live.told.calls) == ["call 0", "call 1", "call 2"]
            assert (sorted(live.replicas), live.silent) == (["machine", "other"], [])
    assert len({replica_name("unique to a process", worker) for worker in workers}) == 1


async def test_replicas_with_stores_of_their_own_ask_nobody(ground: Ground) -> None:
    one, _ = await ground.replica("one", shares=False), await ground.replica("two", shares=False)
    one.ends("mine")
    live = await one.live.live()

    assert ([call.id for call in live.told.calls], live.replicas, live.shared) == (["mine"], ["one"], False)
