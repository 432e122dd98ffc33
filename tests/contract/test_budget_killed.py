"""A replica is killed with a call under way: its next process books the call at what was set aside, and the
counters have it once, whether Redis kept the reservation, lost it, or another replica presumed it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import OnStoreFailure
from tests.support.budget_replica import BudgetReplica, Replicas
from tests.support.budgets import money_a_month, rid, usd
from tests.support.redis_server import RedisServer

MONEY = money_a_month(1_000, OnStoreFailure.ALLOW)
LEASE_SECONDS = 900.0


class _Ground(Replicas):
    async def start(self, name: str = "one", *, alone: bool = True) -> BudgetReplica:
        """As the service does it."""
        replica = self.replica(name, alone=alone)
        sweeping = replica.sweeping(LedgerBatchBooks(replica.path))
        await sweeping.begin()
        await replica.until_open()
        await sweeping.resume()
        return replica

    def booked(self, *names: str) -> list[tuple[str, str, int]]:
        rows = []
        for name in names or ("one",):
            with closing(sqlite3.connect(self.folder / name / "ledger.db")) as ledger:
                rows += ledger.execute("SELECT id, basis, output_nanousd FROM entries ORDER BY id").fetchall()
        return rows


@pytest.fixture
async def ground(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[_Ground]:
    made = _Ground(own_redis, tmp_path, [MONEY])
    yield made
    await made.close()


async def admit(replica: BudgetReplica, id: str, nanousd: int, lease_seconds: float = LEASE_SECONDS) -> None:
    asked = replica.asking(id, nanousd, lease_seconds=lease_seconds, input_tokens=7)
    assert (await replica.budgets.reserve(asked)).allowed


def nothing(_: RedisServer) -> None: ...


def flush(redis: RedisServer) -> None:
    redis.command("FLUSHALL")


def old_snapshot(redis: RedisServer) -> None:
    """Of before the call."""
    redis.stop()
    redis.start()


@pytest.mark.parametrize("loss", [nothing, flush, old_snapshot])
async def test_a_call_that_ran_when_its_replica_was_killed_counts_once_whatever_redis_lost(
    ground: _Ground, loss: Callable[[RedisServer], None]
) -> None:
    one = await ground.start()
    await one.spend("before", 100)
    ground.redis.command("SAVE")
    await admit(one, "a", 300)
    await one.die()
    loss(ground.redis)

    for _ in range(3):
        again = await ground.start()
        assert await again.standing() == (400, 0)
        assert (await again.rebuilding.audit())[0].nanousd == 0
        await again.die()
    assert ground.booked() == [("a", "estimated", 300), ("before", "reported", 100)]


async def test_a_call_of_a_replica_that_is_back_after_others_had_the_counters_rebuilt_is_added_once(
    ground: _Ground,
) -> None:
    one, two = await ground.start(), await ground.start("two")
    await admit(one, "a", 300)
    await one.die()
    flush(ground.redis)
    await two.until_open()
    assert await two.standing() == (0, 0), "nobody knows of it, or this proves nothing"

    for _ in range(2):
        again = await ground.start()
        assert await again.standing() == (300, 0)
        await again.die()
    flush(ground.redis)
    again = await ground.start()
    await two.until_open()

    assert await two.standing() == (300, 0)


async def test_what_another_replica_presumed_of_it_is_taken_back(ground: _Ground) -> None:
    one, two = await ground.start(), await ground.start("two")
    await admit(one, "a", 300, lease_seconds=0.0)
    await one.die()
    await two.sweeping(LedgerBatchBooks(two.path)).turn()
    assert ground.booked("two") == [("a:presumed", "presumed", 300)]

    again = await ground.start()
    await two.sweeping(LedgerBatchBooks(two.path)).turn()

    assert await again.standing() == (300, 0)
    assert ground.booked("one", "two") == [
        ("a", "estimated", 300),
        ("a:corrected", "presumed", -300),
        ("a:presumed", "presumed", 300),
    ]


async def test_a_sweep_finds_nothing_of_what_its_replica_has_booked(ground: _Ground) -> None:
    one = await ground.start()
    await admit(one, "a", 300, lease_seconds=0.0)
    await one.die()
    again = await ground.start()
    await again.sweeping(LedgerBatchBooks(again.path)).turn()

    assert await again.standing() == (300, 0)
    assert ground.booked() == [("a", "estimated", 300)]


async def test_a_call_whose_entry_was_written_before_the_replica_died_is_not_booked_again(
    ground: _Ground,
) -> None:
    """Under the exchange's id, also where it was reserved by another one in the end."""
    one = await ground.start()
    await admit(one, "a-again-1-counted", 300)
    one.write_down("a", 250, reservation_id="a-again-1-counted")
    await one.die()
    flush(ground.redis)

    again = await ground.start()

    assert await again.standing() == (250, 0)
    assert ground.booked() == [("a", "reported", 250)]


async def test_a_call_that_was_admitted_while_the_store_was_away_is_not_forgotten_either(
    ground: _Ground,
) -> None:
    one = await ground.start()
    ground.redis.stop()
    await admit(one, "a", 300)
    await one.die()
    ground.redis.start()

    for _ in range(2):
        again = await ground.start()
        assert await again.standing() == (300, 0)
        await again.die()


async def test_it_is_settled_when_the_store_is_back_and_stays_written_down_until_then(
    ground: _Ground,
) -> None:
    one = await ground.start()
    await admit(one, "a", 300)
    await one.die()
    ground.redis.stop()
    for _ in range(2):  # and is killed again
        again = ground.replica()
        sweeping = again.sweeping(LedgerBatchBooks(again.path))
        await sweeping.begin()
        with pytest.raises(StoreUnavailable):
            await sweeping.resume()
        again.open_calls.close()
        again.ledger.close()
    ground.redis.start()
    flush(ground.redis)

    assert await (await ground.start()).standing() == (300, 0)
    assert ground.booked() == [("a", "estimated", 300)]


async def test_calls_that_ended_are_not_written_down_any_more(ground: _Ground) -> None:
    one = await ground.start()
    await asyncio.gather(*(admit(one, name, 10) for name in "abcd"))
    one.write_down("a", 8)
    await one.settle("a", 8)
    await one.budgets.release(rid("b"))
    flush(ground.redis)
    one.write_down("c", 9)
    await one.written()
    with pytest.raises(StoreUnavailable):
        await one.budgets.settle(rid("c"), usd(9))
    await one.die()

    assert [found.reservation_id for found in one.open_calls.found()] == ["d"]
