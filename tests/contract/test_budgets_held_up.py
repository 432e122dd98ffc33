"""This process stands still for longer than a decision may take, while Redis answers as ever: no outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

from gateway.adapters.clock import SystemClock
from gateway.adapters.guarded_budgets import DECIDE_SECONDS
from gateway.adapters.patience import Patience
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.core.bucket import Decision
from gateway.core.limits import Limit, OnStoreFailure, Period, Scope, Unit
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import bound, reservation
from tests.support.redis_server import RedisServer

MONEY = Limit(
    id="money",
    scope=Scope.WORKSPACE,
    unit=Unit.NANOUSD,
    amount=1_000,
    period=Period.CALENDAR_MONTH,
    on_store_failure=OnStoreFailure.REFUSE,
)


async def stand_still(redis: RedisServer) -> None:
    """Until no time is left for what was asked before, and Redis has answered all of it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DECIDE_SECONDS + 0.1
    while loop.time() < until:
        assert redis.command("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_answers_that_came_while_the_process_stood_still_are_taken(
    own_redis: RedisServer, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    """In either loop: they do not look at timers and sockets in the same order."""
    run(_stand_still_while_asking(own_redis))


async def _stand_still_while_asking(redis: RedisServer) -> None:
    budgets = await RedisBudgets(redis.url, SystemClock()).open()
    limit = bound(100, period=Period.CALENDAR_MONTH)
    await asyncio.gather(*(budgets.reserve(reservation(f"open{n}", limit)) for n in range(8)))
    *decisions, _ = await asyncio.gather(
        *(budgets.reserve(reservation(f"held{n}", limit, nanousd=1)) for n in range(8)),
        stand_still(redis),
    )
    await budgets.close()

    assert all(isinstance(decision, Decision) and decision.allowed for decision in decisions)


async def test_no_call_is_refused_since_the_process_stood_still(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    replica = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    try:
        await replica.until_open()
        await replica.spend("loads the scripts", 0)
        limits = replica.limits.binding(WHO, MODEL)
        decision, _ = await asyncio.gather(
            replica.budgets.reserve(reservation("a", *limits, nanousd=400)), stand_still(own_redis)
        )
    finally:
        await replica.close()

    assert (decision.allowed, decision.degraded) == (True, False)
    assert replica.degraded == []


async def test_patience_ends_where_nothing_comes() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30), Patience(0.05):
            await asyncio.Event().wait()
