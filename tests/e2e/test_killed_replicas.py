"""Redis is emptied in the moment in which a gateway is killed with calls under way: nobody knows of them any
more but the file that the gateway left, and its next process counts them, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.support.gateways_on_redis import a_call, a_ground, a_replica, billed, counted, entries
from tests.support.process import Running
from tests.support.redis_server import RedisServer

PACING = Pacing(first_byte_seconds=0.1, events_per_second=5)
CALLS = 8


@dataclass(frozen=True, kw_only=True)
class Ground:
    redis: RedisServer
    simulator: Simulator
    folder: Path
    running: AsyncExitStack

    async def start(self, *arguments: str) -> Running:
        return await a_replica(self.folder, "state", self.running, self.redis, *arguments)

    def spent(self) -> int:
        spent, set_aside, _ = counted(self.redis)
        assert set_aside == 0
        return spent

    def booked(self) -> dict[str, list[tuple[str, str, int]]]:
        calls: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
        for call, basis, state, nanousd in entries(self.folder / "state"):
            calls[call].append((basis, state, nanousd))
        return calls


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as running:
        redis = running.enter_context(RedisServer(tmp_path / "redis"))
        simulator = await a_ground(
            tmp_path,
            running,
            redis,
            PACING,
            drain="{announce: 0s, timeout: 5s}",
            workspace="{upstream: default, estimate: strict}",
        )
        yield Ground(redis=redis, simulator=simulator, folder=tmp_path, running=running)


async def eventually(true: Callable[[], bool]) -> None:
    for _ in range(1_200):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never comes true")


async def stream(url: str, call: str, begun: list[str]) -> None:
    """Until it is cut."""
    with suppress(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/messages", **a_call(call, stream=True, words=600)) as answer,
        ):
            assert answer.status == 200
            await answer.content.readany()
            begun.append(call)
            await answer.read()


async def kill(running: Running) -> None:
    """With all its workers, which would drain otherwise."""
    pids = [running.process.pid, *_children(running.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await running.ended()
    await eventually(lambda: not any(map(_lives, pids)))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "two workers"])
async def test_what_ran_when_redis_and_the_gateway_died_is_counted_by_the_next_process(
    ground: Ground, arguments: tuple[str, ...]
) -> None:
    """It has one process, also where workers were killed: their calls are found all the same."""
    first = await ground.start(*arguments)
    begun: list[str] = []
    calls = [f"c{number}" for number in range(CALLS)]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(stream(first.url, call, begun))
        await eventually(lambda: len(begun) == CALLS)
        await kill(first)
    ground.redis.command("FLUSHALL")
    second = await ground.start()
    await eventually(lambda: sum(map(len, ground.booked().values())) == CALLS)
    booked = ground.booked()
    total = sum(nanousd for ((_, _, nanousd),) in booked.values())
    await eventually(lambda: ground.spent() == total)
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0
    await ground.simulator.idle(10)
    bill = {call: sum(lines) for call, lines in billed(ground.simulator).items()}

    assert sorted(booked) == sorted(bill) == calls
    assert {(basis, state) for ((basis, state, _),) in booked.values()} == {("estimated", "lost")}
    assert all(booked[call][0][2] >= bill[call] > 0 for call in calls)
    assert (ground.booked(), ground.spent()) == (booked, total)
