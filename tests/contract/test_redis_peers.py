"""What replicas do when Redis misbehaves, or one of them dies: nothing fails, each goes on alone, and they
find each other again. Time is real here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_peers import FAILURES, RedisPeers
from gateway.adapters.redis_peers_talk import MAX_WAITING_BYTES
from gateway.adapters.redis_peers_wire import ENTRY_BYTES, STREAM_ENTRIES
from tests.contract.test_peers import Replica, X, Y, until
from tests.support.elapsed import elapsed
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer

PREFIX = "test"


class Replicas:
    """On one Redis of their own."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.failures: Counter[str] = Counter()
        self._all: list[Replica] = []

    async def join(self, name: str, *, port: int | None = None) -> Replica:
        """One that listens, and is alive to the others."""
        peers = RedisPeers(
            f"redis://127.0.0.1:{port or self.server.port}/0",
            prefix=PREFIX,
            replica=name,
            clock=SystemClock(),
            failed=lambda kind: self.failures.update([kind]),
        )
        replica = Replica(name, peers)
        replica.listen()
        self._all.append(replica)
        await until(lambda: self.listeners() >= len(self._all))
        return replica

    def listeners(self) -> int:
        """Connections that wait for news."""
        return self.server.command("CLIENT", "LIST").count(b"cmd=xread")

    async def close(self) -> None:
        for replica in self._all:
            await replica.deafen()
            await replica.peers.close()


@pytest.fixture
async def replicas(own_redis: RedisServer) -> AsyncIterator[Replicas]:
    replicas = Replicas(own_redis)
    yield replicas
    await replicas.close()
    assert set(replicas.failures) <= set(FAILURES)


async def found_each_other(one: Replica, two: Replica, seconds: float = 30.0) -> float:
    """Until `two` hears `one`; how long it took."""
    two.heard.clear()
    begun = time.monotonic()
    while not any(news == b"back?" for _, news in two.heard):
        assert time.monotonic() - begun < seconds, "it hears nothing"
        one.peers.tell(b"back?")
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


# A replica dies


async def test_a_dead_replica_is_gone_once_and_its_claims_are_free(replicas: Replicas) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    await one.peers.claim([X], "call-1", 15.0)
    one.peers.tell(b"sent")
    await until(lambda: bool(two.heard))
    await one.deafen()  # it beats no more, and says no good-bye
    assert await two.peers.claim([X], "call-2", 15.0) == "call-1"
    with elapsed() as within:
        took = await until(lambda: bool(two.gone))

    assert took > 1.5 and within.seconds < 3.0
    assert await two.peers.claim([X], "call-2", 15.0) is None
    await asyncio.sleep(1.0)
    assert two.gone == ["one"]


async def test_a_replica_that_lives_keeps_its_claims_however_quiet_it_is(replicas: Replicas) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    await one.peers.claim([X], "call-1", 15.0)
    one.peers.tell(b"sent")
    await asyncio.sleep(3.0)

    assert await two.peers.claim([X], "call-2", 15.0) == "call-1"
    assert not two.gone


# Redis misbehaves


async def test_a_frozen_redis_costs_one_claim_its_deadline_and_the_next_nothing(
    replicas: Replicas, own_redis: RedisServer
) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    one.peers.tell(b"before")
    await until(lambda: bool(two.heard))
    own_redis.freeze()
    with elapsed() as first:
        claims = (one.peers.claim([X], f"call-{at}", 5.0) for at in range(50))
        assert await asyncio.gather(*claims) == [None] * 50
    await asyncio.sleep(0.5)  # by then it is clear that Redis is away
    with elapsed() as second:
        assert await one.peers.claim([Y], "call-99", 5.0) is None
    await asyncio.sleep(3.0)
    counted = replicas.failures["claim"]
    own_redis.thaw()
    await found_each_other(one, two)

    assert first.seconds < 0.25 and second.seconds < 0.05
    assert counted == 51
    assert not two.gone, "while nobody could beat, nobody died"
    assert await two.peers.claim([Y], "other", 5.0) in (None, "call-99")


@pytest.mark.parametrize("how", ["restarted", "flushed"])
async def test_replicas_find_each_other_when_redis_lost_its_data(
    replicas: Replicas, own_redis: RedisServer, how: str
) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    await one.peers.claim([X], "call-1", 15.0)
    one.peers.tell(b"before")
    await until(lambda: bool(two.heard))
    if how == "restarted":
        own_redis.stop()
        await asyncio.sleep(1.0)
        one.peers.tell(b"meanwhile")
        assert await one.peers.claim([Y], "call-2", 15.0) is None
        own_redis.start()
        await until(lambda: ("one", b"meanwhile") in two.heard)
    else:
        own_redis.command("FLUSHALL")
        own_redis.command("SCRIPT", "FLUSH")
    await found_each_other(one, two)

    assert await two.peers.claim([X], "call-3", 15.0) is None
    assert await one.peers.claim([X], "call-4", 15.0) == "call-3"
    assert not one.gone and not two.gone


@pytest.mark.parametrize("how", ["full", "read-only"])
async def test_a_redis_that_cannot_be_written_means_going_on_alone(
    replicas: Replicas, own_redis: RedisServer, how: str
) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    one.peers.tell(b"before")
    await until(lambda: bool(two.heard))
    off, on = {
        "full": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        "read-only": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    }[how]
    own_redis.command(*off)
    with elapsed() as took:
        assert await one.peers.claim([X], "call-1", 5.0) is None
    assert took.seconds < 0.25
    one.peers.tell(b"meanwhile")
    await asyncio.sleep(0.3)
    own_redis.command(*on)
    await until(lambda: ("one", b"meanwhile") in two.heard)

    owner: str | None = None
    for number in range(20):  # a claim may find no answer in its time
        names = [bytes([number]) * 8]
        await one.peers.claim(names, "call-2", 5.0)
        owner = owner or await two.peers.claim(names, "call-3", 5.0)
    assert owner == "call-2"
    assert not two.gone


async def test_a_replica_that_has_nothing_to_tell_finds_redis_again(
    replicas: Replicas, own_redis: RedisServer
) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    own_redis.stop()
    for number in range(5):
        assert await one.peers.claim([X], f"call-{number}", 5.0) is None
    own_redis.start()
    deadline = time.monotonic() + 30
    while await two.peers.claim([X], "call-6", 0.05) != "call-5":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
        assert await one.peers.claim([X], "call-5", 5.0) in (None, "call-6")


async def test_news_whose_telling_nobody_confirmed_are_heard_once(
    replicas: Replicas, own_redis: RedisServer
) -> None:
    async with LossyProxy(own_redis.port) as proxy:
        two = await replicas.join("two")
        one = RedisPeers(
            f"redis://127.0.0.1:{proxy.port}/0",
            prefix=PREFIX,
            replica="one",
            clock=SystemClock(),
            failed=lambda kind: None,
        )
        one.tell(b"0")
        await until(lambda: len(two.heard) == 1)
        for number in range(1, 5):
            proxy.lose_replies = 1 + number % 2
            one.tell(b"%d" % number)
            await until(lambda number=number: len(two.heard) > number)  # type: ignore[misc]
        await asyncio.sleep(0.1)
        await one.close()

    assert [news for _, news in two.heard] == [b"0", b"1", b"2", b"3", b"4"]
    assert proxy.lost >= 4


async def test_an_entry_that_is_none_is_skipped_and_counted(
    replicas: Replicas, own_redis: RedisServer
) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    stream = f"{{{PREFIX}}}:news"
    for fields in (("e", "garbage"), ("other", "field"), ("e", "")):
        own_redis.command("XADD", stream, "*", *fields)
    one.peers.tell(b"good")
    await until(lambda: bool(two.heard) and replicas.failures["entry"] >= 6)

    assert two.heard == [("one", b"good")]
    assert replicas.failures == {"entry": 6}, "by either replica"


async def test_a_bug_in_taking_news_in_stops_nothing(replicas: Replicas) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    heard: list[bytes] = []

    def fails(_: str, news: bytes) -> None:
        heard.append(news)
        raise RuntimeError("a bug")

    await two.deafen()
    await until(lambda: replicas.listeners() == 1)
    listening = asyncio.get_running_loop().create_task(two.peers.listen(fails, lambda _: None))
    await until(lambda: replicas.listeners() == 2)
    one.peers.tell(b"1")
    one.peers.tell(b"2")
    await until(lambda: len(heard) == 2)
    listening.cancel()
    await asyncio.wait([listening])

    assert heard == [b"1", b"2"]
    assert replicas.failures == {"entry": 2}


# Bounds


async def test_while_redis_is_down_the_newest_news_are_kept_and_little_is_tried(
    replicas: Replicas, own_redis: RedisServer
) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    own_redis.stop()
    news = [b"%06d" % number + bytes(50_000) for number in range(200)]
    for item in news:
        one.peers.tell(item)
    one.peers.tell(bytes(ENTRY_BYTES + 1))
    await asyncio.sleep(1.0)
    dropped = replicas.failures["tell"]
    tries = replicas.failures["listen"] + replicas.failures["beat"]
    own_redis.start()
    await until(lambda: bool(two.heard) and two.heard[-1] == ("one", news[-1]))

    kept = len(two.heard)
    assert kept + dropped == len(news) + 1
    assert MAX_WAITING_BYTES - 200_000 < kept * 50_006 < MAX_WAITING_BYTES + 200_000
    assert tries < 30
    assert not two.gone


async def test_what_waited_too_long_to_be_told_is_dropped_and_counted(
    replicas: Replicas, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears of it would take it for new, and believe in entries that are gone."""
    monkeypatch.setattr("gateway.adapters.redis_peers_talk.STALE_SECONDS", 1.0)
    one, two = await replicas.join("one"), await replicas.join("two")
    own_redis.stop()
    for news in (b"old 1", b"old 2", b"old 3"):
        one.peers.tell(news)
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.2)
    own_redis.start()
    deadline = time.monotonic() + 30
    while not two.heard:  # on a busy machine the first of them may be too old as well when Redis is back
        assert time.monotonic() < deadline, "it hears nothing"
        one.peers.tell(b"new")
        await asyncio.sleep(0.1)

    assert set(two.heard) == {("one", b"new")}
    assert replicas.failures["tell"] >= 3


async def test_the_stream_is_bounded(replicas: Replicas, own_redis: RedisServer) -> None:
    one, two = await replicas.join("one"), await replicas.join("two")
    told = 0
    while told < STREAM_ENTRIES + 200:
        for _ in range(50):
            one.peers.tell(bytes(40_000))  # no two of them fit into one entry
        told += 50
        await until(lambda: len(two.heard) == told)  # noqa: B023
    length = int(own_redis.command("XLEN", f"{{{PREFIX}}}:news")[1:])

    assert STREAM_ENTRIES <= length <= STREAM_ENTRIES + 10
    assert int(own_redis.command("PTTL", f"{{{PREFIX}}}:news")[1:]) > 0


async def test_all_keys_bear_the_hash_tag_and_no_name_of_a_claim_is_logged(
    replicas: Replicas, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    one = await replicas.join("one")
    await one.peers.claim([X], "call-1", 5.0)
    one.peers.tell(b"news")
    await one.peers.claim([Y], "call-1", 5.0)
    keys = own_redis.command("KEYS", "*").split(b"\r\n")[2::2]
    own_redis.stop()
    await one.peers.claim([X], "call-2", 5.0)
    own_redis.start()

    assert len(keys) == 4
    assert all(key.startswith(b"{test}:") for key in keys)
    assert "goes on alone" in caplog.text
    assert X.hex() not in caplog.text
