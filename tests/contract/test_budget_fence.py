"""Counters that were lost: no money is admitted until they are computed again from the ledger, and what ends
meanwhile is booked once. Each loss is caused for real."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, OnStoreFailure, Period, Scope, Unit
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import rid
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
RATE = Limit(id="rate", scope=Scope.KEY, unit=Unit.REQUESTS, amount=100_000, period=Period.HOUR)
SOFT = Limit(
    id="soft",
    scope=Scope.KEY,
    unit=Unit.NANOUSD,
    amount=1_000,
    period=Period.CALENDAR_DAY,
    timezone=zone_at_noon(),
)


@pytest.fixture
async def replica(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[BudgetReplica]:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [HARD, RATE])
    await one.until_open()
    yield one
    await one.close()


async def refused(replica: BudgetReplica, id: str = "refused") -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await replica.reserve(id, 1)
    return caught.value.message


async def _said_to_be_rebuilt(replica: BudgetReplica) -> dict[str, bool]:
    verdicts = await replica.budgets.peek(replica.limits.binding(WHO, MODEL))
    return {verdict.bound.limit.id: verdict.rebuilding for verdict in verdicts}


async def test_after_a_flush_no_money_is_admitted_until_it_is_rebuilt(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 600)
    own_redis.command("FLUSHALL")
    assert "from the ledger" in await refused(replica)
    assert await _said_to_be_rebuilt(replica) == {"money": True, "rate": False}
    await replica.until_open()

    assert await _said_to_be_rebuilt(replica) == {"money": False, "rate": False}
    assert await replica.spent() == 600
    assert not await replica.reserve("b", 401)
    assert await replica.reserve("c", 400)


async def test_rates_and_soft_money_go_on_while_it_is_rebuilt_and_are_counted(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    slow = replace(RATE, amount=60)  # what it gives back in a minute, no test waits for
    one = BudgetReplica(own_redis.url, tmp_path / "one", [SOFT, slow])
    await one.until_open()
    await one.spend("a", 600)
    own_redis.command("FLUSHALL")
    assert await one.reserve("b", 5_000)
    one.write_down("b", 300)
    with pytest.raises(StoreUnavailable):
        await one.settle("b", 300)
    assert one.degraded == [True]
    assert one.budgets.owed == 1
    await one.until_open()

    assert await one.spent("soft") == 900
    assert await one.spent("rate") > 0
    assert one.degraded == [True, False]
    await one.close()


async def test_what_runs_through_a_flush_is_set_aside_again_and_settled_once(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    own_redis.command("FLUSHALL")
    await refused(replica)
    await replica.until_open()
    assert (await replica.spent(), await replica.set_aside()) == (0, 300)

    replica.write_down("a", 250)
    await replica.settle("a", 250)
    await replica.settle("a", 250)

    assert (await replica.spent(), await replica.set_aside()) == (250, 0)


async def test_an_exchange_in_the_ledger_that_settles_after_the_rebuild_counts_once(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """The pipeline writes the ledger first: the sum may have it before the store has heard of it."""
    assert await replica.reserve("a", 300)
    own_redis.command("FLUSHALL")
    replica.write_down("a", 250)
    await replica.until_open()
    assert await replica.spent() == 250
    await replica.settle("a", 250)

    assert (await replica.spent(), await replica.set_aside()) == (250, 0)


async def test_what_waited_since_long_before_the_rebuild_is_in_its_sum_and_not_booked_again(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [SOFT])
    await one.until_open()
    one.clock.ahead = -1_000
    own_redis.stop()
    assert await one.reserve("a", 300)
    one.write_down("a", 250)
    with pytest.raises(StoreUnavailable):
        await one.settle("a", 250)
    one.clock.ahead = 0
    own_redis.start()  # without its data
    await one.until_open()

    assert one.budgets.owed == 0
    assert await one.spent() == 250
    await one.close()


async def test_a_settlement_that_meets_the_flush_first_is_not_lost(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    own_redis.command("FLUSHALL")
    with pytest.raises(StoreUnavailable):
        await replica.settle("a", 250)  # nobody has noticed before; the ledger does not have it yet
    await replica.until_open()

    assert await replica.spent() == 250
    assert replica.budgets.owed == 0


async def test_what_is_released_through_a_flush_holds_nothing(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    assert await replica.reserve("b", 300)
    own_redis.command("FLUSHALL")
    await refused(replica)
    with pytest.raises(StoreUnavailable):
        await replica.budgets.release(rid("b"))
    await replica.until_open()
    assert await replica.set_aside() == 300
    await replica.budgets.release(rid("a"))

    assert (await replica.spent(), await replica.set_aside()) == (0, 0)


async def test_a_restart_from_an_old_snapshot_is_noticed_before_any_money_is_admitted(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    """The snapshot has a generation and counters that look right; the replica knows better."""
    await replica.spend("a", 300)
    assert await replica.reserve("long", 100)
    own_redis.command("SAVE")
    await replica.spend("b", 500)
    replica.write_down("long", 90)
    await replica.settle("long", 90)
    own_redis.stop()
    own_redis.start()
    assert "from the ledger" in await refused(replica)
    await replica.until_open()

    assert (await replica.spent(), await replica.set_aside()) == (890, 0)
    assert not await replica.reserve("c", 111)


async def test_a_failover_to_an_empty_server_gives_no_new_budget(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 600)
    own_redis.stop()
    own_redis.start()
    assert "from the ledger" in await refused(replica)
    await replica.until_open()

    assert await replica.spent() == 600


async def test_two_ledgers_are_added_up_before_the_fence_is_opened(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [HARD], alone=False)
    two = BudgetReplica(own_redis.url, tmp_path / "two", [HARD], alone=False)
    await asyncio.gather(one.until_open(), two.until_open())
    await one.spend("a", 300)
    await two.spend("b", 400)
    await one.rebuilding.turn()  # they know of each other
    own_redis.command("FLUSHALL")
    for _ in range(3):
        await one.rebuilding.turn()
    assert "from the ledger" in await refused(one)
    await asyncio.gather(one.until_open(), two.until_open())

    assert await one.spent() == 700
    assert not await two.reserve("c", 301)
    for replica in (one, two):
        await replica.close()


async def test_a_ledger_that_was_away_is_added_once_when_its_replica_is_back(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [HARD])
    two = BudgetReplica(own_redis.url, tmp_path / "two", [HARD])
    await one.until_open()
    await two.until_open()
    await one.spend("a", 300)
    await two.spend("b", 400)
    await two.close()
    own_redis.command("FLUSHALL")
    await one.until_open(15)
    assert await one.spent() == 300

    for _ in range(2):
        again = BudgetReplica(own_redis.url, tmp_path / "two", [HARD])
        await again.until_open()
        assert await one.spent() == 700
        await again.close()
    await one.close()


async def test_a_corrupted_counter_shows_in_the_audit_and_is_repaired_under_the_fence(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 300)
    (drift,) = await replica.rebuilding.audit()
    assert (drift.counted, drift.nanousd) == (300, 0)
    key = f"{{gw}}:b:{drift.spend.key}"
    assert own_redis.command("HINCRBY", key, "spent", "-200") == b":100\r\n"
    (drift,) = await replica.rebuilding.audit()
    assert (drift.counted, drift.nanousd) == (100, -200)

    await replica.rebuilding.repair()
    assert "from the ledger" in await refused(replica)
    await replica.until_open()

    (drift,) = await replica.rebuilding.audit()
    assert (drift.counted, drift.nanousd) == (300, 0)


async def test_what_runs_through_a_flush_and_a_repair_is_still_settled_once(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """It is held under its other id by then, in counters that are not flushed."""
    assert await replica.reserve("a", 300)
    own_redis.command("FLUSHALL")
    await refused(replica)
    await replica.until_open()
    await replica.rebuilding.repair()
    await replica.until_open()
    assert (await replica.spent(), await replica.set_aside()) == (0, 300)
    replica.write_down("a", 250)
    await replica.settle("a", 250)

    assert (await replica.spent(), await replica.set_aside()) == (250, 0)


async def test_a_ledger_that_cannot_be_read_keeps_the_fence_closed(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 300)
    await replica.written()
    shutil.move(replica.path, replica.path.with_suffix(".away"))
    own_redis.command("FLUSHALL")
    assert not await replica.rebuilding.open(0.5)
    assert "from the ledger" in await refused(replica)
    shutil.move(replica.path.with_suffix(".away"), replica.path)
    await replica.until_open(15)

    assert await replica.spent() == 300


@pytest.mark.parametrize("seed", range(4))
async def test_flushes_under_load_lose_and_double_nothing(
    own_redis: RedisServer, tmp_path: Path, seed: int
) -> None:
    """Two replicas spend as fast as they can while everything is flushed again and again. In the end the
    counter is the sum of both ledgers, and no admission ever led over the limit by more than what was
    open when a flush came."""
    rng = random.Random(seed)
    big = Limit(
        id="money", scope=Scope.ORGANISATION, unit=Unit.NANOUSD, amount=10**9, period=Period.CALENDAR_MONTH
    )
    replicas = [BudgetReplica(own_redis.url, tmp_path / f"r{n}", [big, RATE], alone=False) for n in range(2)]
    await asyncio.gather(*(replica.until_open() for replica in replicas))
    for replica in replicas:
        replica.run()
    cost: dict[str, int] = {}
    stop = asyncio.Event()

    async def client(replica: BudgetReplica, name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            id, amount = f"{name}-{number}", rng.randrange(1, 1000)
            await replica.reserve(id, rng.randrange(1, 1000))
            await asyncio.sleep(rng.random() * 0.02)
            if rng.random() < 0.1:
                await close(partial(replica.budgets.release, rid(id)))
                continue
            cost[id] = amount
            replica.write_down(id, amount)
            await asyncio.sleep(rng.random() * 0.02)
            await close(partial(replica.settle, id, amount))

    clients = [
        asyncio.get_running_loop().create_task(client(replica, f"{n}-{c}"))
        for n, replica in enumerate(replicas)
        for c in range(8)
    ]
    for _ in range(3):
        await asyncio.sleep(0.3 + rng.random() * 0.4)
        own_redis.command("FLUSHALL")
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*clients)
    for replica in replicas:
        await replica.until_open(15)
        assert not replica.budgets.owed

    assert len(cost) > 100
    spent, set_aside = await replicas[0].spent(), await replicas[0].set_aside()
    assert (spent, set_aside) == (sum(cost.values()), 0), _seen(own_redis, cost)
    for replica in replicas:
        await replica.close()


def _seen(redis: RedisServer, cost: dict[str, int]) -> list[tuple[str, int, bytes, bytes]]:
    """Of each exchange that the store has not closed for good: its cost, and its record under either id."""
    states = {}
    for id, nanousd in cost.items():
        own, late = (
            redis.command("HMGET", f"{{gw}}:r:{name}", "state", "closed_in") for name in (id, f"{id}-late")
        )
        states[id] = (id, nanousd, own, late)
    odd = [seen for seen in states.values() if seen[2].count(b"closed") + seen[3].count(b"closed") == 0]
    return odd or list(states.values())


async def close(attempt: Callable[[], Awaitable[None]]) -> None:
    """As the pipeline does: it may fail, and somebody else sees to it then."""
    with contextlib.suppress(StoreUnavailable):
        await attempt()
