"""What a replica takes for data that went back in time, and what not: beats, and a forgotten sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.redis_fence import RedisFence
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, OnStoreFailure, Period, Scope, Unit
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import reservation
from tests.support.clock import zone_at_noon
from tests.support.redis_server import RedisServer

HARD = Limit(
    id="money",
    scope=Scope.ORGANISATION,
    unit=Unit.NANOUSD,
    amount=1_000,
    period=Period.CALENDAR_MONTH,
    timezone=zone_at_noon(),
    on_store_failure=OnStoreFailure.REFUSE,
)


@pytest.fixture
async def replica(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[BudgetReplica]:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [HARD])
    await one.until_open()
    yield one
    await one.close()


@pytest.mark.parametrize("frozen", [True, False])
async def test_a_beat_that_redis_forgot_of_a_replica_that_was_silent_for_long_fences_nobody(
    own_redis: RedisServer, replica: BudgetReplica, frozen: bool
) -> None:
    """Of one that beat a moment ago it is missed: then the data went back in time."""
    await replica.spend("a", 300)
    await replica.rebuilding.turn()
    assert own_redis.command("DEL", "{gw}:budgets:beats") == b":1\r\n"
    replica.clock.jump(4_000.0 if frozen else 60.0)
    await replica.fence.beat()

    assert bool(replica.fence.generation) is frozen


async def test_a_sweep_that_the_store_forgot_is_noticed_once_a_ledger_was_told(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """It would be open again, and settled, beside what the ledger presumes; nothing else was lost."""
    asked = reservation("a", *replica.limits.binding(WHO, MODEL), nanousd=300)
    assert (await replica.budgets.reserve(replace(asked, lease_seconds=0.0))).allowed
    own_redis.command("SAVE")
    (presumed,) = await replica.budgets.sweep("ledger")
    assert presumed.nanousd == 300
    own_redis.stop()
    own_redis.start()

    with pytest.raises(StoreUnavailable, match="from the ledger"):
        await replica.reserve("refused", 1)


async def test_a_beat_that_comes_after_later_ones_fences_nobody(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """Nobody waited for it any more when a server that had been frozen read it."""
    name = vars(replica.fence)["_replica"]
    late = RedisFence(replica.redis, replica.clock, replica=name)  # knows of no beat before it
    for _ in range(3):
        await replica.fence.beat()
    await late.beat()
    await replica.fence.beat()

    assert replica.fence.generation
