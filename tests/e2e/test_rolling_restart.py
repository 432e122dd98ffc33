"""Two replicas on one Redis behind a load balancer are replaced one after the other while apps call them: no
call fails, no stream is cut, and afterwards bill, ledgers and counters are one sum."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.support.gateways_on_redis import a_call, a_ground, a_replica, billed, counted, entries
from tests.support.nginx import Nginx
from tests.support.process import Running
from tests.support.redis_server import RedisServer

PACING = Pacing(first_byte_seconds=0.2, events_per_second=25)
CLIENTS = 12
SERVED = 4
"""Calls that each new replica has answered before the next thing happens."""


@dataclass(kw_only=True)
class Ground:
    """What stays while replicas come and go, and what the clients saw."""

    redis: RedisServer
    simulator: Simulator
    folder: Path
    running: AsyncExitStack
    nginx: Nginx
    session: aiohttp.ClientSession
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    answered: Counter[str] = field(default_factory=Counter)
    """Calls, by the address of who answered."""
    failed: list[str] = field(default_factory=list)
    states: list[Path] = field(default_factory=list)
    done: bool = False

    async def replica(self) -> Running:
        state = f"state{len(self.states)}"
        self.states.append(self.folder / state)
        replica = await a_replica(self.folder, state, self.running, self.redis)
        # Nobody reads what it logs otherwise, and a full pipe would stop it.
        assert replica.process.stdout is not None
        self.running.push_async_callback(
            _cancelled, asyncio.get_running_loop().create_task(_drain(replica.process.stdout))
        )
        await self.until_ready(replica, 200)
        return replica

    async def until_ready(self, replica: Running, status: int) -> None:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{replica.admin_url}/readyz") as answer:
                    if answer.status == status:
                        return
                await asyncio.sleep(0.02)

    async def call(self, session: aiohttp.ClientSession, url: str, *, stream: bool) -> None:
        """One call, which must be answered whole."""
        number = next(self.numbers)
        try:
            async with session.post(
                f"{url}/v1/messages", **a_call(f"call-{number}", stream=stream, words=60)
            ) as answer:
                said = await answer.read()
                self.answered[answer.headers.get("x-replica", url)] += 1
                whole = b"event: message_stop" in said if stream else b'"stop_reason"' in said
                if answer.status != 200 or not whole or b"event: error" in said:
                    self.failed.append(f"{number}: {answer.status} {said[-300:]!r}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(f"{number}: {error!r}")

    async def client(self, first: int) -> None:
        """Streamed and plain calls in turn, at once one after the other, until all is done."""
        for turn in itertools.count(first):
            if self.done:
                return
            await self.call(self.session, "http://gateway", stream=turn % 2 == 0)

    async def until_served(self, address: str) -> None:
        for _ in range(3_000):
            if self.answered[address] >= SERVED:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{address} gets no calls")


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as running:
        redis = running.enter_context(RedisServer(tmp_path / "redis"))
        simulator = await a_ground(tmp_path, running, redis, PACING, drain="{announce: 6s, timeout: 30s}")
        nginx = await running.enter_async_context(Nginx(tmp_path / "nginx"))
        # A connection for each call: nginx closes idle ones when it is told of another list.
        connector = aiohttp.UnixConnector(str(nginx.socket), limit=0, force_close=True)
        session = await running.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=45))
        )
        yield Ground(
            redis=redis, simulator=simulator, folder=tmp_path, running=running, nginx=nginx, session=session
        )


@pytest.mark.timeout(300)
async def test_replicas_are_replaced_under_load_without_losing_a_call_or_a_nanodollar(ground: Ground) -> None:
    replicas = list(await asyncio.gather(ground.replica(), ground.replica()))
    await ground.nginx.hand_to([_address(each) for each in replicas])
    async with asyncio.TaskGroup() as group:
        for first in range(CLIENTS):
            group.create_task(ground.client(first))
        for old in list(replicas):
            await ground.until_served(_address(old))
            new = await ground.replica()
            replicas = [each for each in replicas if each is not old] + [new]
            assert await _replace(ground, old, [_address(each) for each in replicas]) == 0
            await ground.until_served(_address(new))
        ground.done = True
    for replica in replicas:
        replica.signal(signal.SIGINT)  # nobody is to be told: there are no calls any more
    assert [await replica.ended() for replica in replicas] == [0, 0]

    assert ground.failed == [], ground.nginx.errors()
    assert len(ground.answered) == 4 + 2, "all replicas served, and two of them a stream while they drained"
    assert ground.answered.total() == next(ground.numbers)
    assert_one_sum(ground)


async def _replace(ground: Ground, old: Running, others: list[str]) -> int:
    """Take a replica out of service when its readiness says so; its exit code. A stream that it has at
    SIGTERM is longer than its announcement."""
    async with asyncio.TaskGroup() as group:
        begun = asyncio.Event()
        group.create_task(_long_stream(ground, old, begun))
        await begun.wait()
        old.signal(signal.SIGTERM)
        await ground.until_ready(old, 503)
        await ground.nginx.hand_to(others)
        return await old.ended(90)


async def _long_stream(ground: Ground, replica: Running, begun: asyncio.Event) -> None:
    """A stream of some nine seconds."""
    number = next(ground.numbers)
    called = a_call(f"call-{number}", stream=True, words=650)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{replica.url}/v1/messages", **called) as answer,
    ):
        said = await answer.content.readany()
        begun.set()
        said += await answer.read()
        ground.answered[replica.url] += 1
        if b"event: message_stop" not in said or b"event: error" in said:
            ground.failed.append(f"{number}: cut after {said[-300:]!r}")


def assert_one_sum(ground: Ground) -> None:
    """Every call is billed once and booked once, at what was billed; the counters come to the same."""
    booked: dict[str, list[int]] = defaultdict(list)
    for state in ground.states:
        for call, basis, _, nanousd in entries(state):
            assert basis == "reported"
            booked[call].append(nanousd)
    spent, set_aside, leases = counted(ground.redis)

    assert booked == billed(ground.simulator)
    assert all(len(amounts) == 1 for amounts in booked.values())
    assert len(booked) == ground.answered.total()
    assert leases == set_aside == 0
    assert spent == sum(sum(each) for each in booked.values()) > 0


def _address(replica: Running) -> str:
    return replica.url.removeprefix("http://")


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
