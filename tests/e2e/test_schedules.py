"""Schedules in front of the simulated API: they warm what calls then read, and two replicas fire once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.adapters.clock import SystemClock
from gateway.adapters.no_peers import NoPeers
from gateway.adapters.redis_peers import RedisPeers
from gateway.core.schedule import Firing, FiringState, Schedule
from gateway.ports import Peers
from gateway.workers.prompt_warmer import PromptWarmer
from gateway.workers.schedules import Schedules
from tests.e2e.whole.calls import LONG, MODEL, call
from tests.support.clock import FakeClock
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

QUARTER_TO_NINE = datetime(2026, 11, 23, 8, 45, tzinfo=UTC).timestamp()
PROMPT = {
    "model": MODEL,
    "max_tokens": 40,
    "system": LONG * 2,
    "messages": [{"role": "user", "content": "warmup"}],
}


class Replica:
    """Schedules with a clock of their own, which warm through a gateway."""

    def __init__(
        self, stack: Stack, folder: Path, clock: FakeClock, peers: Peers, name: str, jitter: float
    ) -> None:
        prompts = folder / "prompts.jsonl"
        prompts.write_text(json.dumps(PROMPT) + "\n")
        prewarmer = stack.service.warming.prewarmer
        self.firings: list[Firing] = []
        self.schedules = Schedules(
            [
                Schedule(
                    name="morning",
                    cron="45 8 * * *",
                    timezone="UTC",
                    workspace="demo",
                    prompts=str(prompts),
                )
            ],
            PromptWarmer(prewarmer.warm, clock, per_minute=6_000),
            clock=clock,
            peers=peers,
            replica=name,
            random=lambda: jitter,
            reads=prewarmer.book.reads_of,
            fired=self.firings.append,
        )


@asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    tasks = [asyncio.get_running_loop().create_task(replica.schedules.run()) for replica in replicas]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool], clock: FakeClock, sleepers: int = 1) -> None:
    """Let time pass whenever all who live by this clock are asleep."""
    async with asyncio.timeout(60):
        while not condition():
            if clock.sleeping >= sleepers:
                clock.advance(1.0)
            await asyncio.sleep(0.001)


async def test_a_prompt_is_warm_when_people_come_to_work(tmp_path: Path) -> None:
    clock = FakeClock(QUARTER_TO_NINE - 20)
    async with a_stack(tmp_path / "stack") as stack:
        replica = Replica(stack, tmp_path, clock, NoPeers(), "one", 0.5)
        async with running(replica):
            await until(lambda: bool(replica.firings), clock)
        question = {**PROMPT, "messages": [{"role": "user", "content": "Good morning?"}]}
        usage = (await call(stack, question)).json["usage"]

    (firing,) = replica.firings
    assert firing.state is FiringState.DONE
    assert usage["cache_read_input_tokens"] == firing.written_tokens > 1_000


async def test_two_replicas_on_one_redis_fire_once(tmp_path: Path) -> None:
    clock = FakeClock(QUARTER_TO_NINE - 20)
    failures: list[str] = []
    with RedisServer(tmp_path / "redis") as redis:
        async with a_stack(tmp_path / "stack") as stack, contextlib.AsyncExitStack() as open_:
            replicas = []
            for name in ("one", "two"):
                peers = RedisPeers(
                    redis.url, prefix="cgw", replica=name, clock=SystemClock(), failed=failures.append
                )
                open_.push_async_callback(peers.close)
                listening = asyncio.get_running_loop().create_task(
                    peers.listen(lambda who, news: None, lambda who: None)
                )
                open_.callback(listening.cancel)
                replicas.append(Replica(stack, tmp_path, clock, peers, name, 0.5))
            async with running(*replicas):
                await until(lambda: all(replica.firings for replica in replicas), clock)
            requests = len(stack.simulator.requests)

    states = sorted(firing.state for replica in replicas for firing in replica.firings)
    assert failures == []
    assert states == [FiringState.DONE, FiringState.ELSEWHERE]
    assert requests == 1
