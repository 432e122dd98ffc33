"""One suite for the replicas' view of each other: over Redis, over a socket of the same machine, and the one
in memory that other tests use; where it says so, also for a replica that has no peers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.local_peers import LocalPeers
from gateway.adapters.no_peers import NoPeers
from gateway.adapters.redis_peers import RedisPeers
from gateway.adapters.workers_hub import WorkersHub
from gateway.ports import Peers
from tests.support.peers import Hub

X, Y, Z = (bytes([number]) * 8 for number in (1, 2, 3))
TELLER = "teller-"


@dataclass
class Replica:
    """One replica that listens, and writes down what it hears."""

    name: str
    peers: Peers
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    tellers: list[str] = field(default_factory=list)
    """What it heard of those who only find out whether it hears."""
    task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        work = self.peers.listen(self._heard, self._gone)
        self.task = asyncio.get_running_loop().create_task(work)

    def _heard(self, name: str, news: bytes) -> None:
        if name.startswith(TELLER):
            self.tellers.append(name)
        else:
            self.heard.append((name, news))

    def _gone(self, name: str) -> None:
        if not name.startswith(TELLER):
            self.gone.append(name)

    async def deafen(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            assert self.task.cancelled(), "listening raises nothing"


class Place:
    """Where replicas meet."""

    def __init__(self, make: Callable[[str, Callable[[str], None]], Peers]) -> None:
        self._make = make
        self._replicas: list[Replica] = []
        self.failures: Counter[str] = Counter()

    async def join(self, name: str, *, listening: bool = True) -> Replica:
        replica = Replica(name, self._make(name, lambda kind: self.failures.update([kind])))
        self._replicas.append(replica)
        if listening:
            replica.listen()
            await self.until_it_hears(replica)
        return replica

    async def until_it_hears(self, replica: Replica) -> None:
        """What was told before it listened is not for it: so something is told until it is heard."""
        name = TELLER + replica.name
        teller = self._make(name, lambda kind: None)
        deadline = time.monotonic() + 30
        while name not in replica.tellers and not isinstance(teller, NoPeers):
            assert time.monotonic() < deadline, "it does not hear"
            teller.tell(b"do you hear?")
            await asyncio.sleep(0.01)
        await teller.close()

    async def close(self) -> None:
        for replica in self._replicas:
            await replica.deafen()
            await replica.peers.close()


async def until(happened: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait for it; how long it took."""
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < seconds, "it did not happen"
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


@pytest.fixture
async def socket_of_the_hub(tmp_path: Path) -> AsyncIterator[str]:
    hub = WorkersHub(str(tmp_path / "hub"), SystemClock())
    await hub.start()
    yield str(tmp_path / "hub")
    await hub.close()


@pytest.fixture(params=["memory", "redis", "local"])
async def place(request: pytest.FixtureRequest, socket_of_the_hub: str) -> AsyncIterator[Place]:
    hub, prefix = Hub(SystemClock()), uuid4().hex

    def over_redis(name: str, failed: Callable[[str], None]) -> Peers:
        url = request.getfixturevalue("redis_server").url
        return RedisPeers(url, prefix=prefix, replica=name, clock=SystemClock(), failed=failed)

    def local(name: str, failed: Callable[[str], None]) -> Peers:
        return LocalPeers(socket_of_the_hub, replica=name, failed=failed)

    makes = {"redis": over_redis, "local": local, "memory": lambda name, _: hub.join(name)}
    place = Place(makes[request.param])
    yield place
    await place.close()
    assert not place.failures


@pytest.fixture(params=["none", "memory", "redis", "local"])
async def alone(request: pytest.FixtureRequest, socket_of_the_hub: str) -> AsyncIterator[Peers]:
    """The only replica."""
    if request.param == "none":
        place = Place(lambda name, failed: NoPeers())
    elif request.param == "memory":
        hub = Hub(SystemClock())
        place = Place(lambda name, failed: hub.join(name))
    elif request.param == "local":
        place = Place(lambda name, failed: LocalPeers(socket_of_the_hub, replica=name, failed=failed))
    else:
        url = request.getfixturevalue("redis_server").url
        prefix = uuid4().hex
        place = Place(
            lambda name, failed: RedisPeers(
                url, prefix=prefix, replica=name, clock=SystemClock(), failed=failed
            )
        )
    yield (await place.join("one")).peers
    await place.close()


# Alone


async def test_who_is_alone_gets_whatever_it_claims(alone: Peers) -> None:
    assert await alone.claim([X, Y], "call-1", 5.0) is None
    assert await alone.claim([X, Y], "call-1", 5.0) is None
    assert await alone.claim([Z], "call-2", 5.0) is None


async def test_claiming_nothing_is_granted(alone: Peers) -> None:
    assert await alone.claim([], "call-1", 5.0) is None


async def test_giving_up_what_was_never_claimed_does_nothing(alone: Peers) -> None:
    alone.give_up("call-1")
    alone.tell(b"news")

    assert await alone.claim([X], "call-2", 5.0) is None


async def test_closing_twice_is_closing_once_and_nothing_raises_afterwards(alone: Peers) -> None:
    await alone.close()
    await alone.close()
    alone.tell(b"news")
    alone.give_up("call-1")

    assert await alone.claim([X], "call-1", 5.0) is None


# Claims


async def test_one_of_two_replicas_gets_a_name_and_the_other_learns_who_has_it(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    first, second = await asyncio.gather(
        one.peers.claim([X], "call-1", 5.0), two.peers.claim([X], "call-2", 5.0)
    )

    assert (first, second) in [(None, "call-1"), ("call-2", None)]


async def test_of_a_herd_on_two_replicas_exactly_one_goes_first(place: Place) -> None:
    replicas = [await place.join("one"), await place.join("two")]
    answers = await asyncio.gather(
        *(replicas[at % 2].peers.claim([X, Y], f"call-{at}", 5.0) for at in range(300))
    )
    (leader,) = {answer for answer in answers if answer is not None}

    assert answers.count(None) == 1
    assert answers[int(leader.removeprefix("call-"))] is None


async def test_all_names_are_claimed_or_none(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    await one.peers.claim([Y], "call-1", 5.0)

    assert await two.peers.claim([X, Y, Z], "call-2", 5.0) == "call-1"
    assert await one.peers.claim([X, Z], "call-3", 5.0) is None


async def test_claims_of_two_calls_of_one_replica_exclude_each_other(place: Place) -> None:
    one = await place.join("one")
    await one.peers.claim([X], "call-1", 5.0)

    assert await one.peers.claim([X], "call-2", 5.0) == "call-1"


async def test_a_claim_runs_out_by_itself(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    await one.peers.claim([X], "call-1", 1.0)
    assert await two.peers.claim([X], "call-2", 5.0) == "call-1"
    await asyncio.sleep(1.02)

    assert await two.peers.claim([X], "call-2", 5.0) is None


async def test_claiming_again_prolongs(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    await one.peers.claim([X], "call-1", 0.1)
    await one.peers.claim([X], "call-1", 5.0)
    await asyncio.sleep(0.12)

    assert await two.peers.claim([X], "call-2", 5.0) == "call-1"


async def test_what_is_given_up_is_free_and_nothing_else(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    await one.peers.claim([X], "call-1", 5.0)
    await one.peers.claim([Y], "call-1", 5.0)
    await one.peers.claim([Z], "call-2", 5.0)
    one.peers.give_up("call-1")
    assert await one.peers.claim([X, Y], "call-3", 5.0) is None, "no claim overtakes a letting go"

    assert await two.peers.claim([X], "call-4", 5.0) == "call-3"
    assert await two.peers.claim([Z], "call-4", 5.0) == "call-2"


async def test_giving_up_late_does_not_take_what_another_holds_by_now(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    await one.peers.claim([X], "call-1", 0.05)
    await asyncio.sleep(0.07)
    await two.peers.claim([X], "call-2", 5.0)
    one.peers.give_up("call-1")
    assert await one.peers.claim([Y], "call-3", 5.0) is None  # what was said before is done

    assert await one.peers.claim([X], "call-3", 5.0) == "call-2"


async def test_a_claim_whose_call_was_cancelled_can_be_given_up(place: Place) -> None:
    """Whatever the cancellation interrupted: the asking, the answer on its way, or nothing any more."""
    one, two = await place.join("one"), await place.join("two")
    for turns in range(8):
        asking = asyncio.get_running_loop().create_task(one.peers.claim([X], f"call-{turns}", 5.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        one.peers.give_up(f"call-{turns}")
        await one.peers.claim([Y], "barrier", 5.0)

        assert await two.peers.claim([X], f"other-{turns}", 5.0) is None, turns
        two.peers.give_up(f"other-{turns}")
        await two.peers.claim([Z], "barrier", 5.0)


# News


async def test_news_are_heard_by_all_others_in_order_and_once(place: Place) -> None:
    one, two, three = [await place.join(name) for name in ("one", "two", "three")]
    told = [b"%d" % number for number in range(500)]
    for at, news in enumerate(told):
        one.peers.tell(news)
        if at % 100 == 0:
            await asyncio.sleep(0.01)
    two.peers.tell(b"from two")
    await until(lambda: len(two.heard) >= 500 and len(three.heard) >= 501 and len(one.heard) >= 1)

    assert two.heard == [("one", news) for news in told]
    assert [news for name, news in three.heard if name == "one"] == told
    assert one.heard == [("two", b"from two")], "nobody hears its own"


async def test_news_from_before_somebody_listened_are_not_for_it(place: Place) -> None:
    one = await place.join("one")
    one.peers.tell(b"early")
    await one.peers.claim([X], "call-1", 5.0)  # what was said before is done
    two = await place.join("two")
    one.peers.tell(b"late")
    await until(lambda: bool(two.heard))

    assert two.heard == [("one", b"late")]


async def test_what_a_failed_call_claimed_is_free_once_its_failure_is_heard(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    for number in range(20):
        await one.peers.claim([X], f"call-{number}", 5.0)
        one.peers.tell(b"failed")
        one.peers.give_up(f"call-{number}")
        await until(lambda number=number: len(two.heard) > number)  # type: ignore[misc]

        assert await two.peers.claim([X], f"other-{number}", 5.0) is None
        two.peers.give_up(f"other-{number}")
        await two.peers.claim([Y], "barrier", 5.0)


async def test_who_gets_a_claim_has_heard_all_that_was_told_before(place: Place) -> None:
    """Or two replicas would write a prefix of which one has not heard yet that the other wrote it."""
    one, two = await place.join("one"), await place.join("two")
    for number in range(20):
        name = b"%d" % number
        assert await one.peers.claim([name], f"call-{number}", 5.0) is None
        one.peers.tell(name)
        one.peers.give_up(f"call-{number}")
        assert await one.peers.claim([b"barrier"], "barrier", 5.0) is None  # what was said before is done
        one.peers.give_up("barrier")

        assert await two.peers.claim([name], f"other-{number}", 5.0) is None
        assert ("one", name) in two.heard


async def test_binary_and_empty_news_come_as_they_were_told(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    for news in (b"", bytes(range(256)), b"x" * 60_000):
        one.peers.tell(news)
    await until(lambda: len(two.heard) == 3)

    assert [news for _, news in two.heard] == [b"", bytes(range(256)), b"x" * 60_000]


async def test_who_closes_has_told_everything_and_is_gone_at_once(place: Place) -> None:
    one, two = await place.join("one"), await place.join("two")
    one.peers.tell(b"first")
    one.peers.tell(b"last")
    await one.deafen()
    await one.peers.close()
    took = await until(lambda: bool(two.gone))

    assert two.heard == [("one", b"first"), ("one", b"last")]
    assert two.gone == ["one"]
    assert took < 1.5, "who is not heard of is gone after two seconds"
