"""Two replicas on one Redis behind a load balancer are replaced one after the other while apps call them: no
call fails, no stream is cut, and afterwards bill, ledgers and counters are one sum."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
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
from tests.support.nginx import Nginx
from tests.support.process import Running, a_gateway_process
from tests.support.redis_server import RedisServer
from tests.support.stack import UPSTREAM_CREDENTIAL, a_simulator

PACING = Pacing(first_byte_seconds=0.2, events_per_second=25)
TAG = "{cgw}"
CLIENTS = 12
SERVED = 4
"""Calls that each new replica has answered before the next thing happens."""
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
drain: {{announce: 6s, timeout: 30s}}
"""
LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}
"""
_ENTRIES = """
SELECT tags, basis, uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd
    + cache_write_1h_nanousd + output_nanousd + server_tools_nanousd
FROM entries
"""


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
        state = self.folder / f"state{len(self.states)}"
        self.states.append(state)
        environ = {
            "REDIS_URL": self.redis.url,
            "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more",
            "UPSTREAM_KEY": UPSTREAM_CREDENTIAL,
        }
        replica = await self.running.enter_async_context(
            a_gateway_process(state, "--config", str(self.folder / "config"), environ=environ)
        )
        # Nobody reads what it logs otherwise, and a full pipe would stop it.
        assert replica.process.stdout is not None
        self.running.push_async_callback(
            _cancelled, asyncio.get_running_loop().create_task(_drain(replica.process.stdout))
        )
        await self.until_ready(replica, 200)
        return replica

    async def until_ready(self, replica: Running, status: int) -> None:
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{replica.admin_url}/readyz") as answer:
                    if answer.status == status:
                        return
                await asyncio.sleep(0.02)

    async def call(self, session: aiohttp.ClientSession, url: str, *, stream: bool) -> None:
        """One call, which must be answered whole."""
        number = next(self.numbers)
        try:
            async with session.post(f"{url}/v1/messages", **_call(number, stream=stream)) as answer:
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
        for _ in range(1_500):
            if self.answered[address] >= SERVED:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{address} gets no calls")


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
        (config / "workspaces.yaml").write_text("workspaces: {demo: {upstream: default}}\n")
        (config / "limits.yaml").write_text(LIMITS)
        (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
        nginx = await running.enter_async_context(Nginx(tmp_path / "nginx"))
        # A connection for each call: nginx closes idle ones when it is told of another list.
        connector = aiohttp.UnixConnector(str(nginx.socket), limit=0, force_close=True)
        session = await running.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=45))
        )
        yield Ground(
            redis=redis, simulator=simulator, folder=tmp_path, running=running, nginx=nginx, session=session
        )


@pytest.mark.timeout(180)
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
        return await old.ended(40)


async def _long_stream(ground: Ground, replica: Running, begun: asyncio.Event) -> None:
    """A stream of some nine seconds."""
    number = next(ground.numbers)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{replica.url}/v1/messages", **_call(number, stream=True, words=650)) as answer,
    ):
        said = await answer.content.readany()
        begun.set()
        said += await answer.read()
        ground.answered[replica.url] += 1
        if b"event: message_stop" not in said or b"event: error" in said:
            ground.failed.append(f"{number}: cut after {said[-300:]!r}")


def assert_one_sum(ground: Ground) -> None:
    """Every call is billed once and booked once, at what was billed; the counters come to the same."""
    billed: dict[str, list[int]] = defaultdict(list)
    calls = {
        received.request_id: json.loads(received.body)["metadata"]["user_id"]
        for received in ground.simulator.requests
    }
    for line in ground.simulator.bill.lines:
        billed[calls[line.request_id]].append(line.cost_nanousd)
    booked: dict[str, list[int]] = defaultdict(list)
    for state in ground.states:
        with closing(sqlite3.connect(state / LEDGER_FILE)) as connection:
            for tags, basis, nanousd in connection.execute(_ENTRIES):
                assert basis == "reported"
                booked[json.loads(tags)["x-call"]].append(nanousd)
    store: Any = sync_redis.Redis(port=ground.redis.port, decode_responses=True)
    buckets = [store.hgetall(key) for key in store.scan_iter(f"{TAG}:b:*")]
    open_reservations = store.zcard(f"{TAG}:leases")
    store.close()

    assert booked == billed
    assert all(len(amounts) == 1 for amounts in booked.values())
    assert len(booked) == ground.answered.total()
    assert open_reservations == sum(int(bucket.get("set_aside", 0)) for bucket in buckets) == 0
    assert sum(int(bucket["spent"]) for bucket in buckets) == sum(sum(each) for each in booked.values()) > 0


def _call(number: int, *, stream: bool, words: int = 60) -> Any:
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 1_000,
        "stream": stream,
        "metadata": {"user_id": f"call-{number}"},
        "messages": [{"role": "user", "content": f"Write {words} words about number {number}."}],
    }
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "x-call": f"call-{number}"}
    return {"json": body, "headers": headers}


def _address(replica: Running) -> str:
    return replica.url.removeprefix("http://")


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
