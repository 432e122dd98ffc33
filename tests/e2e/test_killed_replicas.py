"""Redis is emptied in the moment in which a gateway is killed with calls under way: nobody knows of them any
more but the file that the gateway left, and its next process counts them, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis as sync_redis

from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.settings import packaged_directory
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.support.process import Running, a_gateway_process
from tests.support.redis_server import RedisServer
from tests.support.stack import UPSTREAM_CREDENTIAL, a_simulator

PACING = Pacing(first_byte_seconds=0.1, events_per_second=5)
CALLS = 8
KEY, RECORD = mint_key(
    random_bytes=bytes(RANDOM_BYTES), name="app", workspace=WorkspaceId("demo"), created_at=0.0
)
GATEWAY = """\
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
store: {{kind: redis}}
prefixes: {{secret: {{env: PREFIX_SECRET}}}}
upstreams: {{default: {{base_url: "{url}", credential: {{env: UPSTREAM_KEY}}}}}}
placement: {{policy: rules}}
tags: {{headers: [x-call]}}
drain: {{announce: 0s, timeout: 5s}}
"""
LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}
"""
_ENTRIES = """
SELECT tags, basis, state, uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd
    + cache_write_1h_nanousd + output_nanousd + server_tools_nanousd
FROM entries
"""


@dataclass(frozen=True, kw_only=True)
class Ground:
    redis: RedisServer
    simulator: Simulator
    folder: Path
    running: AsyncExitStack

    async def start(self, *arguments: str) -> Running:
        environ = {
            "REDIS_URL": self.redis.url,
            "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more",
            "UPSTREAM_KEY": UPSTREAM_CREDENTIAL,
        }
        given = ("--config", str(self.folder / "config"), *arguments)
        return await self.running.enter_async_context(
            a_gateway_process(self.folder / "state", *given, environ=environ)
        )

    def spent(self) -> int:
        store: Any = sync_redis.Redis(port=self.redis.port, decode_responses=True)
        with closing(store):
            buckets = [store.hgetall(key) for key in store.scan_iter("{cgw}:b:*")]
        assert all(int(bucket.get("set_aside", 0)) == 0 for bucket in buckets)
        return sum(int(bucket["spent"]) for bucket in buckets)

    def booked(self) -> dict[str, list[tuple[str, str, int]]]:
        calls: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
        with closing(sqlite3.connect(self.folder / "state" / LEDGER_FILE)) as ledger:
            for tags, *rest in ledger.execute(_ENTRIES):
                calls[json.loads(tags)["x-call"]].append(tuple(rest))
        return calls

    def billed(self) -> dict[str, int]:
        of = {
            received.request_id: json.loads(received.body)["metadata"]["user_id"]
            for received in self.simulator.requests
        }
        return {of[line.request_id]: line.cost_nanousd for line in self.simulator.bill.lines}


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as running:
        redis = running.enter_context(RedisServer(tmp_path / "redis"))
        keys = RedisKeyStore(redis.url)
        await keys.put(RECORD)
        await keys.close()
        simulator = a_simulator(PACING)
        await simulator.start()
        running.push_async_callback(simulator.stop)
        config = tmp_path / "config"
        config.mkdir()
        (config / "gateway.yaml").write_text(GATEWAY.format(url=simulator.url))
        workspaces = "workspaces: {demo: {upstream: default, estimate: strict}}\n"
        (config / "workspaces.yaml").write_text(workspaces)
        (config / "limits.yaml").write_text(LIMITS)
        (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
        yield Ground(redis=redis, simulator=simulator, folder=tmp_path, running=running)


async def eventually(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never comes true")


async def stream(url: str, call: str, begun: list[str]) -> None:
    """Until it is cut."""
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 1_000,
        "stream": True,
        "metadata": {"user_id": call},
        "messages": [{"role": "user", "content": "Write 600 words about the sea."}],
    }
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "x-call": call}
    with suppress(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{url}/v1/messages", json=body) as answer,
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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "two workers"])
async def test_what_ran_when_redis_and_the_gateway_died_is_counted_by_the_next_process(
    ground: Ground, arguments: tuple[str, ...]
) -> None:
    """It has one process, also where workers were killed: their calls are found all the same."""
    first = await ground.start(*arguments)
    begun: list[str] = []
    calls = [f"c{number}" for number in range(CALLS)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
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
    billed = ground.billed()

    assert sorted(booked) == sorted(billed) == calls
    assert {(basis, state) for ((basis, state, _),) in booked.values()} == {("estimated", "lost")}
    assert all(booked[call][0][2] >= billed[call] > 0 for call in calls)
    assert (ground.booked(), ground.spent()) == (booked, total)
