"""Single writes that Redis acknowledged and lost, as a failover does with the last moments of the old master:
each is noticed, by whoever made it, and counted once in the end. And what else a rebuilding must not lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import late_settling, ledger_unsettled, redis_fence
from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.late_settling import SetAside
from gateway.core.errors import StoreUnavailable
from gateway.core.exchange import Basis, State
from gateway.core.limits import OnStoreFailure
from tests.support.budget_replica import BudgetReplica
from tests.support.budgets import money_a_month, rid
from tests.support.redis_server import RedisServer

MONEY = money_a_month(100_000)
SOFT = replace(MONEY, on_store_failure=OnStoreFailure.ALLOW)


@pytest.fixture
async def replica(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[BudgetReplica]:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    await one.until_open()
    yield one
    await one.close()


def from_snapshot(redis: RedisServer) -> None:
    redis.stop()
    redis.start()


async def lost(replica: BudgetReplica) -> None:
    """It is noticed before any money is admitted, and rebuilt."""
    with pytest.raises(StoreUnavailable, match="from the ledger"):
        await replica.reserve("refused", 1)
    await replica.until_open()


async def test_a_settlement_over_a_new_connection_is_looked_for_like_any_other(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    own_redis.command("SAVE")
    own_redis.command("CLIENT", "KILL", "TYPE", "normal")
    replica.write_down("a", 250)
    await replica.settle("a", 250)
    assert replica.fence.disturbed()
    from_snapshot(own_redis)

    await lost(replica)
    assert await replica.standing() == (250, 0)


async def test_a_write_is_looked_for_although_the_answer_of_an_earlier_one_came_after_its_own(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    assert await replica.reserve("b", 1)
    own_redis.command("SAVE")
    replica.write_down("a", 250)
    await replica.settle("a", 250)
    replica.fence.acknowledged(rid("b"), closed=False)
    from_snapshot(own_redis)

    await lost(replica)
    assert await replica.standing() == (250, 1)


async def test_a_reservation_that_the_store_forgot_is_noticed_when_it_is_settled(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """Closing an id that is unknown changes nothing in the store: what it cost would be in no counter."""
    assert await replica.reserve("a", 300)
    replica.write_down("a", 250)
    assert own_redis.command("DEL", "{gw}:r:a") == b":1\r\n"
    with pytest.raises(StoreUnavailable, match="from the ledger"):
        await replica.settle("a", 250)
    await replica.until_open()

    assert replica.budgets.owed == 0
    assert await replica.standing() == (250, 0)


async def test_what_was_booked_afterwards_is_looked_for_too(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    assert await replica.reserve("a", 300)
    own_redis.command("FLUSHALL")
    await lost(replica)
    own_redis.command("SAVE")
    replica.write_down("a", 250)
    await replica.settle("a", 250)
    from_snapshot(own_redis)

    await lost(replica)
    assert await replica.standing() == (250, 0)


async def test_a_ledger_whose_part_was_lost_is_added_again(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 300)
    member = ("{gw}:rebuild:ledgers", replica.identity)
    assert own_redis.command("SREM", *member) == b":1\r\n"
    await replica.fence.beat()

    assert not replica.fence.generation
    await replica.until_open()
    assert await replica.standing() == (300, 0)


async def test_what_was_settled_at_a_master_of_the_past_is_in_the_part_that_comes_late(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    """It ended after the counters were opened elsewhere, and its replica takes it for settled."""
    two = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    two.clock.jump(1.0)
    two.write_down("b", 400)
    await two.until_open()

    assert await replica.standing() == (400, 0)
    await two.close()


async def test_what_redis_and_a_replica_forgot_together_is_settled_by_the_next_process(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    one = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await one.until_open()
    own_redis.command("SAVE")
    one.clock.jump(100.0)  # long after the counters were made
    assert await one.reserve("a", 300)
    one.write_down("a", 250, reservation_id="a")
    await one.settle("a", 250)
    await one.die()
    from_snapshot(own_redis)

    for _ in range(2):
        again = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
        again.clock.jump(100.0)
        await again.until_open()
        await again.settle_found()
        assert await again.standing() == (250, 0)
        await again.die()


async def test_a_snapshot_of_earlier_counters_is_noticed(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 300)
    own_redis.command("SAVE")
    await replica.spend("b", 500)
    own_redis.command("FLUSHALL")
    await lost(replica)
    assert await replica.standing() == (800, 0)
    from_snapshot(own_redis)

    await lost(replica)
    assert await replica.standing() == (800, 0)


async def test_an_old_master_that_still_answers_takes_nothing_away_from_the_new_one(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """What is found there belongs to counters that others have followed, and may be taken away only there."""
    await replica.spend("a", 300)
    old = replica.fence.generation
    own_redis.command("FLUSHALL")
    await lost(replica)
    await replica.fence.take_away(old)
    await replica.fence.beat()

    assert replica.fence.found not in ("", old)


async def test_an_answer_that_comes_after_counters_were_rebuilt_is_not_looked_for_in_them(
    own_redis: RedisServer, replica: BudgetReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was another server's, say: nobody would ever find it there, and all would be rebuilt once more."""
    assert await replica.reserve("a", 300)
    late = vars(replica.budgets)["_late"]
    real = vars(late)["_known"].settle_known

    async def slow(*words: Any) -> bool:
        known: bool = await real(*words)
        own_redis.command("FLUSHALL")
        await lost(replica)
        return known

    monkeypatch.setattr(vars(late)["_known"], "settle_known", slow)
    replica.write_down("a", 250)
    await replica.written()
    await replica.settle("a", 250)
    await replica.fence.beat()

    assert replica.fence.generation
    assert await replica.standing() == (250, 0)


async def test_what_is_released_while_others_are_set_aside_again_is_not(
    own_redis: RedisServer, replica: BudgetReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would close it, and the sweep would book it."""
    for id in ("a", "b"):
        assert await replica.reserve(id, 300)
    own_redis.command("FLUSHALL")
    late = vars(replica.budgets)["_late"]
    held: list[str] = []

    async def set_aside_again(aside: SetAside) -> None:
        held.append(aside.reservation.id)
        await late_settling.LateSettling.set_aside_again(late, aside)
        if held == ["a"]:
            await replica.budgets.release(rid("b"))

    monkeypatch.setattr(late, "set_aside_again", set_aside_again)
    await lost(replica)

    assert held[0] == "a"
    assert await replica.standing() == (0, 300)


async def test_refusals_push_nothing_unsettled_out_of_what_the_next_process_settles(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_unsettled, "LAST_ENTRIES", 2)
    one = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await one.until_open()
    assert await one.reserve("a", 300)
    one.write_down("a", 250, reservation_id="a")
    for number in range(3):
        one.write_down(f"refused{number}", 0, basis=Basis.NONE, state=State.REFUSED, status=503)
    await one.die()

    again = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await again.until_open()
    await again.settle_found()
    assert await again.standing() == (250, 0)
    await again.die()


async def test_what_the_store_may_have_forgotten_rightly_is_not_settled_a_day_later(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    one = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await one.until_open()
    await _spend_of(one, "a")
    await one.die()
    assert own_redis.command("DEL", "{gw}:r:a") == b":1\r\n"

    again = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await again.until_open()
    again.clock.jump(90_000.0)
    await again.settle_found()
    assert await again.standing() == (250, 0)
    await again.die()


async def test_a_settlement_that_comes_after_a_flush_counts_beside_what_was_presumed_before(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """The ledger has both, and no store can take the presumed back any more."""
    assert (await replica.budgets.reserve(replica.asking("a", 300, lease_seconds=0.0))).allowed
    await replica.sweeping(LedgerBatchBooks(replica.path)).turn()
    own_redis.command("FLUSHALL")
    await lost(replica)
    replica.write_down("a", 100, reservation_id="a")
    await replica.settle("a", 100)

    await replica.written()
    (drift,) = await replica.rebuilding.audit()
    assert (drift.counted, drift.nanousd) == (400, 0)


async def test_a_sweep_that_the_store_has_forgotten_is_missed_although_the_call_was_settled_since(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """The ledger has what was presumed, and nothing takes that back: the record is closed like any other."""
    assert (await replica.budgets.reserve(replica.asking("a", 300, lease_seconds=0.0))).allowed
    own_redis.command("SAVE")
    await replica.sweeping(LedgerBatchBooks(replica.path)).turn()
    from_snapshot(own_redis)
    replica.write_down("a", 100, reservation_id="a")
    await replica.settle("a", 100)

    await lost(replica)
    await replica.written()
    (drift,) = await replica.rebuilding.audit()
    assert (drift.counted, drift.nanousd) == (400, 0)


async def test_a_correction_goes_to_the_ledger_that_has_what_was_presumed(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """In another one it would be below zero, and a rebuilding without the first would count too little."""
    assert (await replica.budgets.reserve(replica.asking("a", 300, lease_seconds=0.0))).allowed
    (presumed,) = await replica.redis.sweep("one")
    await replica.redis.booked("one", [presumed.id])
    replica.write_down("a", 100)
    await replica.settle("a", 100)

    assert await replica.redis.sweep("two") == ()
    (corrected,) = await replica.redis.sweep("one")
    assert (corrected.taken_back, corrected.nanousd) == (True, -300)


async def test_counters_that_took_long_to_gather_are_gathered_anew(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended long before the opening is taken to be in them: so it must be, whenever a part was read."""
    one, two = (BudgetReplica(own_redis.url, tmp_path / name, [SOFT], alone=False) for name in ("1", "2"))
    await asyncio.gather(one.until_open(), two.until_open())
    for replica in (one, two, one):
        await replica.rebuilding.turn()
    monkeypatch.setattr(redis_fence, "GATHERED_ANEW_MS", 1_000)
    monkeypatch.setattr(late_settling, "SURELY_READ_SECONDS", 2.0)
    own_redis.command("FLUSHALL")
    await two.rebuilding.turn()
    assert two.identity.encode() in own_redis.command("SMEMBERS", "{gw}:rebuild:ledgers")
    assert await two.reserve("a", 700)
    two.write_down("a", 700)
    with pytest.raises(StoreUnavailable):
        await two.settle("a", 700)
    await asyncio.sleep(2.2)
    await asyncio.gather(one.until_open(), two.until_open())
    await two.rebuilding.turn()

    assert two.budgets.owed == 0
    assert await two.standing() == (700, 0)
    for replica in (one, two):
        await replica.close()


async def _spend_of(replica: BudgetReplica, id: str) -> None:
    assert await replica.reserve(id, 300)
    replica.write_down(id, 250, reservation_id=id)
    await replica.settle(id, 250)
