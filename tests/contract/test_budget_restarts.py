"""What a replica had booked and not settled when it died: the next process on its ledger settles it, once,
also where the counters were lost in between, or the store was away when it was admitted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.core.errors import StoreUnavailable
from gateway.core.exchange import ExchangeRecord
from gateway.core.limits import OnStoreFailure
from tests.support.budget_replica import BudgetReplica
from tests.support.budgets import money_a_month, rid
from tests.support.redis_server import RedisServer

MONEY = money_a_month(1_000, OnStoreFailure.ALLOW)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", append_only=True) as server:
        yield server


class _Starts:
    """One process after the other on one ledger."""

    def __init__(self, url: str, state: Path) -> None:
        self._url = url
        self._state = state
        self.open: list[BudgetReplica] = []

    async def __call__(self) -> BudgetReplica:
        replica = BudgetReplica(self._url, self._state, [MONEY])
        self.open.append(replica)
        await replica.until_open()
        return replica


@pytest.fixture
async def start(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[_Starts]:
    starts = _Starts(own_redis.url, tmp_path / "state")
    yield starts
    for replica in starts.open:
        await replica.close()


async def test_what_was_admitted_while_the_store_was_away_is_settled_by_the_next_process_once(
    own_redis: RedisServer, start: _Starts
) -> None:
    one = await start()
    one.clock.jump(100.0)  # long after the counters were made
    own_redis.stop()
    assert await one.reserve("a", 300)
    one.write_down("a", 250, reservation_id="a", store_degraded=True)
    with pytest.raises(StoreUnavailable):
        await one.settle("a", 250)
    await one.die()
    own_redis.start()

    for _ in range(2):
        again = await start()
        await again.settle_found()
        assert (await again.spent(), await again.set_aside()) == (250, 0)


async def test_what_was_paid_before_the_process_died_is_not_settled_again(
    own_redis: RedisServer, start: _Starts
) -> None:
    one = await start()
    own_redis.stop()
    assert await one.reserve("a", 300)
    one.write_down("a", 250, reservation_id="a", store_degraded=True)
    with pytest.raises(StoreUnavailable):
        await one.settle("a", 250)
    own_redis.start()
    await one.until_open()
    assert await one.spent() == 250
    await one.die()

    again = await start()
    await again.settle_found()

    assert (await again.spent(), await again.set_aside()) == (250, 0)


async def test_a_call_that_ran_through_a_flush_is_settled_by_the_next_process_once(
    own_redis: RedisServer, start: _Starts
) -> None:
    """The store has never heard of its id."""
    one = await start()
    assert await one.reserve("a", 300)
    own_redis.command("FLUSHALL")
    await one.until_open()
    one.write_down("a", 250, seconds=3.0, reservation_id="a")
    await one.die()

    for _ in range(2):
        again = await start()
        await again.settle_found()
        assert (await again.spent(), await again.set_aside()) == (250, 0)


async def test_a_call_that_was_settled_after_a_flush_is_not_settled_again(
    own_redis: RedisServer, start: _Starts
) -> None:
    """It came before the counters were there, and was reserved in them: its body took so long."""
    one = await start()
    own_redis.command("FLUSHALL")
    await one.until_open()
    assert await one.reserve("a", 300)
    one.write_down("a", 250, seconds=30.0, reservation_id="a")
    await one.settle("a", 250)
    await one.die()

    again = await start()
    await again.settle_found()

    assert (await again.spent(), await again.set_aside()) == (250, 0)


async def test_what_ended_while_the_counters_were_gathered_is_settled_by_the_next_process(
    own_redis: RedisServer, start: _Starts, tmp_path: Path
) -> None:
    """Its settlement met a store without counters, which so knows its id as closed."""
    one = await start()
    assert await one.reserve("a", 300)
    own_redis.command("FLUSHALL")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await one.settle("a", 250)
    two = BudgetReplica(own_redis.url, tmp_path / "other", [MONEY])
    await two.until_open()  # without the first one's ledger
    one.write_down("a", 250, seconds=3.0, reservation_id="a")
    one.clock.jump(1.0)
    await one.die()
    await two.close()

    again = await start()
    await again.settle_found()

    assert (await again.spent(), await again.set_aside()) == (250, 0)


async def test_what_the_sum_of_a_ledger_has_is_not_settled_again_under_the_other_id(
    own_redis: RedisServer, start: _Starts
) -> None:
    """By the reservation's id, which is not always the exchange's."""
    one = await start()
    assert await one.reserve("a-counted", 300)
    one.write_down("a", 250, seconds=3.0, reservation_id="a-counted")
    await one.written()
    own_redis.command("FLUSHALL")
    await one.until_open()
    assert await one.spent() == 250
    await one.settle("a-counted", 250)
    assert (await one.spent(), await one.set_aside()) == (250, 0)
    await one.die()

    again = await start()
    await again.settle_found()

    assert (await again.spent(), await again.set_aside()) == (250, 0)


class _Slow(LedgerBatchBooks):
    """Books when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def add(self, records: Sequence[ExchangeRecord]) -> int:
        self.asked.set()
        await self.go_on.wait()
        return await super().add(records)


async def test_what_was_presumed_before_a_flush_is_in_the_ledger_before_its_part_is_read(
    own_redis: RedisServer, start: _Starts
) -> None:
    """The sum would lack it otherwise, and counters and ledger be apart for good."""
    one = await start()
    assert (await one.budgets.reserve(one.asking("a", 300, lease_seconds=0.0))).allowed
    books = _Slow(one.path)
    async with asyncio.timeout(20), asyncio.TaskGroup() as both:
        both.create_task(one.sweeping(books).turn())
        await books.asked.wait()
        own_redis.command("FLUSHALL")
        rebuilt = both.create_task(one.until_open())
        await asyncio.wait((rebuilt,), timeout=0.5)
        books.go_on.set()
    await one.budgets.release(rid("a"))

    (drift,) = await one.rebuilding.audit()
    assert (drift.counted, drift.nanousd) == (300, 0)
