"""A batch is settled by whichever replica finds it ended: what is held for it is nobody's memory, and it
counts once, also in counters that were lost since."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.core.bucket import Held
from gateway.core.endpoints import Endpoint
from gateway.core.limits import Limit, OnStoreFailure, Period, Scope, Unit
from tests.support.budget_replica import BudgetReplica
from tests.support.budgets import money_a_month, rid, usd
from tests.support.redis_server import RedisServer

MONEY = money_a_month(1_000, OnStoreFailure.ALLOW)
ITEMS = Limit(
    id="items", scope=Scope.ORGANISATION, unit=Unit.REQUESTS, amount=1_000, period=Period.CALENDAR_DAY
)
COST = replace(usd(250), requests=1)
LEASE_SECONDS = 60.0


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", append_only=True) as server:
        yield server


@pytest.fixture
async def pair(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[list[BudgetReplica]]:
    made = [BudgetReplica(own_redis.url, tmp_path / name, [MONEY, ITEMS]) for name in ("one", "two")]
    for replica in made:
        await replica.until_open()
    yield made
    for replica in made:
        await replica.close()


async def created(replica: BudgetReplica) -> Held | None:
    """A batch, kept: how it is held."""
    assert await replica.reserve("b", 300)
    held = replica.budgets.held(rid("b"))
    replica.budgets.hand_over(rid("b"))
    return held


async def flushed(own_redis: RedisServer, pair: list[BudgetReplica]) -> None:
    own_redis.command("FLUSHALL")
    for replica in pair:
        await replica.until_open()


async def test_who_created_it_forgets_it_and_who_settles_it_closes_it(pair: list[BudgetReplica]) -> None:
    one, two = pair
    held = await created(one)
    for _ in range(2):
        await two.budgets.settle_held(rid("b"), held, COST)

    assert (await one.spent(), await one.set_aside()) == (250, 0)
    assert one.budgets.held(rid("b")) is None


async def test_who_created_it_does_not_set_it_aside_again_after_a_flush(
    own_redis: RedisServer, pair: list[BudgetReplica]
) -> None:
    one, two = pair
    held = await created(one)
    await two.budgets.settle_held(rid("b"), held, COST)
    two.write_down("b-0", 250, reservation_id="b", endpoint=Endpoint.BATCHES)
    await two.written()
    await flushed(own_redis, pair)

    assert (await one.spent(), await one.set_aside()) == (250, 0)


async def test_it_is_set_aside_again_when_it_is_looked_at_after_a_flush_and_settled_once(
    own_redis: RedisServer, pair: list[BudgetReplica]
) -> None:
    one = pair[0]
    held = await created(one)
    await flushed(own_redis, pair)
    for replica in pair:
        await replica.budgets.renew_held(rid("b"), held, LEASE_SECONDS)
    assert (await one.spent(), await one.set_aside()) == (0, 300)

    for replica in pair:
        await replica.budgets.settle_held(rid("b"), held, COST)
    assert (await one.spent(), await one.set_aside()) == (250, 0)


async def test_it_is_booked_where_nobody_looked_at_it_since_the_flush(
    own_redis: RedisServer, pair: list[BudgetReplica]
) -> None:
    one, two = pair
    held = await created(one)
    await flushed(own_redis, pair)
    for _ in range(2):
        await two.budgets.settle_held(rid("b"), held, COST)

    assert (await one.spent(), await one.set_aside()) == (250, 0)


async def test_one_that_was_in_the_ledger_already_counts_once(
    own_redis: RedisServer, pair: list[BudgetReplica]
) -> None:
    """Booked, then the counters were lost, then it is settled: it had ended long before both."""
    one, two = pair
    held = await created(one)
    two.clock.ahead = -7_200
    two.write_down("b-0", 250, reservation_id="b", endpoint=Endpoint.BATCHES)
    two.clock.ahead = 0
    await two.written()
    await flushed(own_redis, pair)
    assert await one.spent() == 250
    await one.budgets.settle_held(rid("b"), held, COST)

    assert (await one.spent(), await one.set_aside()) == (250, 0)


async def test_one_that_another_replica_set_aside_before_the_ledger_came_counts_once(
    own_redis: RedisServer, pair: list[BudgetReplica]
) -> None:
    one, two = pair
    held = await created(one)
    two.write_down("b-0", 250, reservation_id="b", endpoint=Endpoint.BATCHES)
    await two.written()
    own_redis.command("FLUSHALL")
    await one.until_open(15)
    await one.budgets.renew_held(rid("b"), held, LEASE_SECONDS)
    assert (await one.spent(), await one.set_aside()) == (0, 300)
    await two.until_open()

    assert (await one.spent(), await one.set_aside()) == (250, 0)
    await two.budgets.settle_held(rid("b"), held, COST)
    assert (await one.spent(), await one.set_aside()) == (250, 0)


async def test_one_that_was_created_while_the_store_was_away_is_settled_by_another_replica_once(
    own_redis: RedisServer, pair: list[BudgetReplica]
) -> None:
    one, two = pair
    own_redis.stop()
    held = await created(one)
    own_redis.start()
    for replica in pair:
        await replica.until_open()
    assert await one.set_aside() == 0
    await two.budgets.renew_held(rid("b"), held, LEASE_SECONDS)
    assert await one.set_aside() == 300
    for replica in pair:
        await replica.budgets.settle_held(rid("b"), held, COST)

    assert (await one.spent(), await one.set_aside()) == (250, 0)
    assert await one.spent("items") == 1
