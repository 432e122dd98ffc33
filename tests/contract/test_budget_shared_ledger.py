"""Counters that were lost, where replicas share a ledger: its sum and what each had not shipped yet, nothing
twice, and nothing that a replica which is gone had shipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.ledger_spend import read_part
from gateway.adapters.postgres_ledger_schema import migrate
from gateway.workers.rebuild import Rebuilding
from tests.support.budget_replica import BudgetReplica
from tests.support.budgets import money_a_month
from tests.support.ledgers import ship
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer

MONEY = money_a_month(10_000)


@pytest.fixture
def shared(postgres: PostgresServer) -> PostgresUrl:
    source = PostgresUrl(postgres.database())
    migrate(source)
    return source


class _Replicas:
    def __init__(self, redis: RedisServer, shared: PostgresUrl, directory: Path) -> None:
        self.redis = redis
        self.shared = shared
        self.directory = directory
        self.made: list[BudgetReplica] = []

    def __call__(self, name: str) -> BudgetReplica:
        replica = BudgetReplica(self.redis.url, self.directory / name, [MONEY])
        replica.rebuilding = Rebuilding(
            guard=replica.budgets,
            read=partial(read_part, replica.path),
            read_shared=partial(read_part, self.shared),
            rules=lambda: replica.rules,
            clock=replica.clock,
            fence=replica.fence,
            ledger=replica.identity,
            written=replica.written,
        )
        self.made.append(replica)
        return replica

    async def ship(self, replica: BudgetReplica) -> None:
        await replica.written()
        await asyncio.to_thread(ship, replica.path, self.shared)


@pytest.fixture
async def replicas(own_redis: RedisServer, shared: PostgresUrl, tmp_path: Path) -> AsyncIterator[_Replicas]:
    made = _Replicas(own_redis, shared, tmp_path)
    yield made
    for replica in made.made:
        await replica.close()


async def test_what_is_shipped_and_what_is_not_yet_count_once_each(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    one, two = replicas("one"), replicas("two")
    await asyncio.gather(one.until_open(), two.until_open())
    await one.spend("a", 100)
    await two.spend("b", 1_000)
    await replicas.ship(one)
    await replicas.ship(two)
    await one.spend("c", 10)  # in the outbox only
    await one.written()
    own_redis.command("FLUSHALL")
    await asyncio.gather(one.until_open(), two.until_open())

    assert await one.spent() == 1_110
    assert [(drift.counted, drift.nanousd) for drift in await one.rebuilding.audit()] == [(1_110, 0)]


async def test_what_a_replica_that_is_gone_with_its_disk_had_shipped_is_there(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    one, two = replicas("one"), replicas("two")
    await asyncio.gather(one.until_open(), two.until_open())
    await two.spend("b", 1_000)
    await replicas.ship(two)
    await two.die()
    own_redis.command("FLUSHALL")
    await one.until_open()

    assert await one.spent() == 1_000


async def test_what_was_shipped_after_the_sum_was_made_is_brought_once_by_who_wrote_it(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    """A replica that was down meanwhile: the shared ledger has its entry by then, the counters have not."""
    one, two = replicas("one"), replicas("two")
    await asyncio.gather(one.until_open(), two.until_open())
    await two.spend("a", 100)
    await replicas.ship(two)
    await two.spend("b", 1_000)
    await two.die()
    own_redis.command("FLUSHALL")
    await one.until_open()
    assert await one.spent() == 100

    await asyncio.to_thread(ship, two.path, replicas.shared)
    for _ in range(2):
        again = replicas("two")
        await again.until_open()
        assert await one.spent() == 1_100


async def test_money_stays_refused_while_the_shared_ledger_cannot_be_read(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    one = replicas("one")
    await one.until_open()
    replicas.shared = PostgresUrl("postgresql://nobody@127.0.0.1:1/none")
    away = replicas("away")
    own_redis.command("FLUSHALL")

    assert not await away.rebuilding.open(0.3)
    assert not away.fence.generation
