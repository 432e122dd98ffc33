"""Two replicas that share one Redis act as one: a cold prefix is written once, whichever of them is asked,
and what one replica had begun when it was killed, the other finishes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.sim.faults import Fault, FaultKind
from gateway.sim.records import Received
from gateway.sim.server import Simulator
from tests.support.elapsed import elapsed
from tests.support.process import a_gateway_process
from tests.support.redis_server import RedisServer
from tests.support.stack import UPSTREAM_CREDENTIAL, Stack, a_simulator, a_stack

MODEL = "claude-opus-5-5"
SYSTEM = "You are brief and kind, and you know the handbook. " * 400
SETTINGS = """\
store: {kind: redis}
placement: {policy: learned, share: true}
prefixes: {secret: {env: PREFIX_SECRET}}
"""
LIMITS = """\
defaults:
  - {id: rate, scope: workspace, unit: requests, amount: 999, per: day, on_store_failure: allow,
     comment: test}
"""
HOLD_SECONDS = 8.0
KEY, RECORD = mint_key(
    random_bytes=bytes(RANDOM_BYTES), name="both", workspace=WorkspaceId("demo"), created_at=0.0
)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A Redis, a simulator, and what a gateway needs to know of them."""

    redis: RedisServer
    simulator: Simulator
    folder: Path
    running: AsyncExitStack

    @property
    def environ(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.redis.url,
            "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more",
            "UPSTREAM_KEY": UPSTREAM_CREDENTIAL,
            "OTHER_KEY": "sk-test-other",
        }

    async def replica(self, name: str) -> Stack:
        return await self.running.enter_async_context(
            a_stack(
                self.folder / name,
                environ=self.environ,
                settings=SETTINGS,
                limits=LIMITS,
                simulator=self.simulator,
            )
        )

    async def client(self, url: str) -> aiohttp.ClientSession:
        """Not the SDK: a hundred of its requests at once keep a process busy for a second."""
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        return await self.running.enter_async_context(aiohttp.ClientSession(url, headers=headers))

    def writes(self, since: int) -> list[Received]:
        """Requests that wrote a prefix as long as the system prompt."""
        return [
            request
            for request in list(self.simulator.requests)[since:]
            if (request.usage or {}).get("cache_creation_input_tokens", 0) > 1_000
        ]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def ground(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Ground]:
    keys = RedisKeyStore(redis.url)
    await keys.put(RECORD)
    await keys.close()
    simulator = a_simulator()
    await simulator.start()
    async with AsyncExitStack() as running:
        yield Ground(redis=redis, simulator=simulator, folder=tmp_path, running=running)
    await simulator.stop()


async def ask(client: aiohttp.ClientSession, number: int, system: str) -> None:
    question = f"Question {number}: what of item {number * 7919}?"
    body = {
        "model": MODEL,
        "max_tokens": 1,
        "system": system,
        "messages": [{"role": "user", "content": question}],
    }
    async with client.post("/v1/messages", json=body) as answer:
        assert answer.status == 200, await answer.text()


async def teach(clients: Sequence[aiohttp.ClientSession]) -> None:
    """That prompts of this kind are shared."""
    for number in range(12):
        await ask(clients[number % len(clients)], number, SYSTEM)


async def test_a_herd_over_two_replicas_writes_a_cold_prefix_once(ground: Ground) -> None:
    clients = [await ground.client((await ground.replica(name)).url) for name in ("one", "two")]
    await teach(clients)
    assert len(ground.writes(0)) == 1, "what one replica wrote, the other knows of"
    ground.simulator.cache.clear()
    before = len(ground.simulator.requests)
    ground.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=1.0))  # whoever comes first
    await asyncio.gather(*(ask(clients[at % 2], at, SYSTEM + "Answer in French.") for at in range(100)))

    assert len(ground.simulator.requests) == before + 100
    assert len(ground.writes(before)) == 1


async def test_a_replica_that_is_killed_lets_go_of_those_who_wait_for_its_call(ground: Ground) -> None:
    two = await ground.client((await ground.replica("two")).url)
    config = str(ground.folder / "two" / "config")
    async with a_gateway_process(ground.folder / "one", "--config", config, environ=ground.environ) as doomed:
        one = await ground.client(doomed.url)
        await teach([one, two])
        ground.simulator.cache.clear()
        before = len(ground.simulator.requests)
        ground.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=None))
        system = SYSTEM + "Answer in Dutch."
        spawn = asyncio.get_running_loop().create_task
        leader = spawn(ask(one, 0, system))
        await until_upstream_has(ground.simulator, before + 1)
        followers = [spawn(ask(two, at, system)) for at in range(1, 21)]
        await asyncio.sleep(1.0)
        assert len(ground.simulator.requests) == before + 1, "they are held"
        doomed.signal(signal.SIGKILL)
        with elapsed() as took:
            await asyncio.gather(*followers)
        with pytest.raises(aiohttp.ClientError):
            await leader

    assert took.seconds < HOLD_SECONDS / 2
    assert len(ground.simulator.requests) == before + 21
    assert len(ground.writes(before + 1)) == 1


async def until_upstream_has(simulator: Simulator, requests: int) -> None:
    deadline = time.monotonic() + 30
    while len(simulator.requests) < requests:
        assert time.monotonic() < deadline, "it was not sent"
        await asyncio.sleep(0.01)
