"""Somebody else writes over what Redis keeps for the budgets: a reservation is then lost like any other that
is not found, and a settlement that is refused keeps none waiting behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, OnStoreFailure, Unit
from gateway.core.windows import windows_around
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import money_a_month, reservation
from tests.support.redis_server import RedisServer

MONEY = money_a_month(100_000, OnStoreFailure.ALLOW)
REQUESTS = replace(MONEY, id="requests", unit=Unit.REQUESTS)


@pytest.fixture
async def replica(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[BudgetReplica]:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY, REQUESTS])
    await one.until_open()
    yield one
    await one.close()


async def test_a_reservation_that_somebody_wrote_over_is_settled_in_counters_that_are_computed_anew(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    assert await replica.reserve("b", 20)
    replica.write_down("a", 250)
    assert own_redis.command("SET", "{gw}:r:a", "of somebody else") == b"+OK\r\n"
    with pytest.raises(StoreUnavailable, match="from the ledger"):
        await replica.settle("a", 250)
    await replica.until_open()

    assert replica.budgets.owed == 0
    assert await replica.standing() == (250, 20)


async def test_it_is_noticed_while_the_call_runs(own_redis: RedisServer, replica: BudgetReplica) -> None:
    assert await replica.reserve("a", 300)
    generation = replica.fence.generation
    own_redis.command("SET", "{gw}:r:a", "of somebody else")
    await replica.until_open()
    assert replica.fence.generation not in ("", generation)

    assert await replica.standing() == (0, 300)


async def test_leases_behind_a_reservation_that_somebody_wrote_over_are_swept(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    for name in ("a", "b"):
        asked = reservation(name, *replica.limits.binding(WHO, MODEL), nanousd=10)
        await replica.redis.reserve(structs.replace(asked, lease_seconds=0.0))
    own_redis.command("SET", "{gw}:r:a", "of somebody else")

    await replica.sweeping(LedgerBatchBooks(replica.path)).turn()

    assert await replica.spent() == 10
    assert own_redis.command("ZCARD", "{gw}:leases") == b":0\r\n"


async def test_a_counter_of_money_that_somebody_wrote_over_is_computed_anew(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 100)
    assert await replica.reserve("b", 300)
    replica.write_down("b", 250)
    own_redis.command("SET", _counter(replica, MONEY), "of somebody else")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await replica.settle("b", 250)
    await replica.until_open()

    assert replica.budgets.owed == 0
    assert await replica.standing() == (350, 0)


async def test_settlements_behind_one_that_is_refused_go_on_and_so_does_that_in_the_end(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """Its counter of requests is no counter any more, and cannot be computed anew."""
    counter, both = _counter(replica, REQUESTS), replica.limits.binding(WHO, MODEL)
    own_redis.command("SET", counter, "of somebody else")
    own_redis.freeze()  # so that they are booked afterwards
    for name, limits in (("a", both), ("b", both[:1])):
        asked = reservation(name, *limits, nanousd=300, requests=1)
        assert (await replica.budgets.reserve(asked)).allowed
        replica.write_down(name, 250)
        with pytest.raises(StoreUnavailable):
            await replica.settle(name, 250)
    own_redis.thaw()
    for _ in range(3):
        await replica.until_open()
        assert replica.budgets.owed == 1

    own_redis.command("DEL", counter)
    await replica.until_open()
    of_money, of_requests = await replica.redis.peek(replica.limits.binding(WHO, MODEL))

    assert replica.budgets.owed == 0
    assert (of_money.spent, of_requests.spent) == (500, 1)


def _counter(replica: BudgetReplica, limit: Limit) -> str:
    (bound,) = (bound for bound in replica.limits.binding(WHO, MODEL) if bound.limit is limit)
    _, current, _ = windows_around(limit.period, limit.timezone, round(replica.clock.now() * 1000))
    return f"{{gw}}:b:{bound.bucket_id}/{current.label}"
