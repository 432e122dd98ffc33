"""Two replicas on one Redis: one budget, one set of keys; and what they do when it goes away."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from gateway.core.ledger import Dimension
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

ASK: list[Any] = [{"role": "user", "content": "Hello"}]
MODEL = "claude-opus-5-5"
TEN_CALLS = """\
defaults:
  - {id: calls, scope: workspace, unit: requests, amount: 10, per: day, on_store_failure: allow, comment: ten}
"""


async def replicas(stack: AsyncExitStack, redis: RedisServer, folder: Path, limits: str) -> list[Stack]:
    running = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        environ = {"REDIS_URL": redis.url, "GATEWAY_STORE__KIND": "redis"}
        running.append(
            await stack.enter_async_context(a_stack(folder / name, limits=limits, environ=environ))
        )
    return running


async def call(replica: Stack) -> int:
    async with AsyncAnthropic(base_url=replica.url, api_key=replica.keys["demo"], max_retries=0) as client:
        try:
            await client.messages.create(model=MODEL, max_tokens=5, messages=ASK)
        except anthropic.APIStatusError as error:
            return error.status_code
        return 200


async def test_two_replicas_hold_one_budget(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        async with AsyncExitStack() as stack:
            one, two = await replicas(stack, redis, tmp_path, TEN_CALLS)
            statuses = await asyncio.gather(*(call(replica) for replica in [one, two] * 15))
            upstream = len(one.simulator.requests) + len(two.simulator.requests)

            assert sorted(statuses) == [200] * 10 + [429] * 20
            assert upstream == 10
            totals = await one.books(Dimension.WORKSPACE)
            assert totals[0].requests == 15


@pytest.mark.parametrize(("policy", "status"), [("allow", 200), ("refuse", 529)])
async def test_a_dead_redis_is_decided_by_policy_at_once_and_comes_back(
    policy: str, status: int, tmp_path: Path
) -> None:
    limits = TEN_CALLS.replace("on_store_failure: allow", f"on_store_failure: {policy}")
    with RedisServer(tmp_path) as redis:
        async with AsyncExitStack() as stack:
            one, _ = await replicas(stack, redis, tmp_path, limits)
            assert await call(one) == 200
            redis.freeze()
            started = time.monotonic()
            frozen = await call(one)
            took = time.monotonic() - started
            redis.thaw()

            assert frozen == status
            assert took < 3.0
            deadline = time.monotonic() + 30
            while await call(one) != 200:
                assert time.monotonic() < deadline, "it did not come back"
                await asyncio.sleep(0.2)
