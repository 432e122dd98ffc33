"""Failovers one soon after the other, and what they bring back: whatever Redis or a replica remembers of the
time in between, each entry of a ledger is in the counters once in the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import redis_fence
from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.core.bucket import Decision, Reservation
from gateway.core.endpoints import Endpoint
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Period, Scope, Unit
from tests.support.budget_replica import BudgetReplica, Replicas
from tests.support.budgets import money_a_month, rid, usd
from tests.support.redis_server import RedisServer

MONEY = money_a_month(100_000)

PLACES = Limit(id="places", scope=Scope.KEY, unit=Unit.CONCURRENT, amount=100, period=Period.OPEN)


class _Ground(Replicas):
    """Those that wait for others do so for a second."""

    def replica(self, name: str = "one", *, alone: bool = True) -> BudgetReplica:
        replica = super().replica(name, alone=alone)
        vars(replica.fence)["_gather_most_ms"] = 1_000
        return replica

    async def open(self, *names: str, alone: bool = True) -> list[BudgetReplica]:
        made = [self.replica(name, alone=alone) for name in names]
        await asyncio.gather(*(replica.until_open() for replica in made))
        for replica in made:  # so that all know of each other
            await replica.rebuilding.turn()
        return made

    def go_back(self) -> None:
        """To what was saved."""
        self.redis.stop()
        self.redis.start()


@pytest.fixture
async def ground(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[_Ground]:
    made = _Ground(own_redis, tmp_path, [MONEY])
    yield made
    await made.close()


async def apart(*replicas: BudgetReplica) -> int:
    """By how much the counter is above the sum of the ledgers; nothing may be set aside."""
    for replica in replicas:
        await replica.until_open()
        await replica.written()
        assert not replica.budgets.owed
    drifts = [drift for replica in replicas for drift in await replica.rebuilding.audit()]
    assert drifts, "no ledger says anything"
    spent, set_aside = await replicas[0].standing()
    assert set_aside == 0
    return spent - sum(drift.spend.nanousd for drift in drifts)


async def test_what_was_gathered_before_counters_that_are_lost_is_gathered_anew(
    own_redis: RedisServer, ground: _Ground
) -> None:
    """A failover goes back to the middle of a rebuilding, whose end was acknowledged, and followed."""
    one, two = await ground.open("1", "2", alone=False)
    own_redis.command("FLUSHALL")
    await two.rebuilding.turn()
    assert two.identity.encode() in own_redis.command("SMEMBERS", "{gw}:rebuild:ledgers")
    own_redis.command("SAVE")
    await asyncio.gather(one.until_open(), two.until_open())
    await two.spend("a", 500)
    ground.go_back()
    await asyncio.gather(one.until_open(), two.until_open())

    assert await one.standing() == (500, 0)


async def test_a_part_that_comes_after_a_later_one_was_announced_is_not_taken(
    own_redis: RedisServer, ground: _Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one names what ended meanwhile, so that nothing books it: it must be in the sum then."""
    (replica,) = await ground.open("one")
    late: list[tuple[Any, Any]] = []
    scripts = vars(replica.fence)["_scripts"]
    real, adds = scripts.run, vars(replica.fence)["_lua"]["rebuild_add"]

    async def slow(script: Any, keys: Any, args: Any) -> Any:
        if script is not adds:
            return await real(script, keys, args)
        if not late:
            late.append((keys, args))
            raise StoreUnavailable("no answer in time")
        await real(script, *late[0])
        return await real(script, keys, args)

    await replica.spend("a", 300)
    assert await replica.reserve("b", 200)
    own_redis.command("FLUSHALL")
    monkeypatch.setattr(scripts, "run", slow)
    with pytest.raises(StoreUnavailable, match="in time"):
        await replica.rebuilding.turn()
    replica.write_down("b", 100)
    with pytest.raises(StoreUnavailable):
        await replica.settle("b", 100)
    await replica.written()
    await replica.until_open()

    assert await replica.standing() == (400, 0)


async def test_counters_that_were_taken_away_are_not_trusted_when_a_failover_brings_them_back(
    own_redis: RedisServer, ground: _Ground
) -> None:
    """Nobody has followed others since, and what was written under these was forgotten with them."""
    (one,) = await ground.open("one")
    own_redis.command("SAVE")
    await one.spend("a", 300)
    await one.rebuilding.repair()
    await one.fence.beat()
    ground.go_back()

    assert await apart(one) == 0
    assert await one.spent() == 300


async def test_a_loss_that_was_noticed_is_not_forgotten_when_the_next_failover_loses_the_notice(
    own_redis: RedisServer, ground: _Ground
) -> None:
    (one,) = await ground.open("one")
    own_redis.command("SAVE")
    await one.spend("a", 300)
    ground.go_back()
    await one.fence.beat()
    assert not one.fence.found
    ground.go_back()

    assert await apart(one) == 0
    assert await one.spent() == 300


async def test_parts_that_another_replica_opened_anew_are_not_joined_by_who_has_spent_since(
    own_redis: RedisServer, ground: _Ground
) -> None:
    """A failover goes back to a gathering that was waiting for somebody; he is back first, and knows of
    nothing that came after it."""
    one, two, three = await ground.open("one", "two", "three", alone=False)
    own_redis.command("FLUSHALL")
    for replica in (one, two, one, two):
        await replica.rebuilding.turn()
    assert not one.fence.found
    own_redis.command("SAVE")
    await asyncio.gather(*(replica.until_open() for replica in (one, two, three)))
    await two.spend("a", 500)
    await three.die()
    ground.go_back()
    (three,) = await ground.open("three", alone=False)
    assert await three.spent() == 0, "it knows of nothing, or this proves nothing"

    assert await apart(one, two, three) == 0
    assert await one.spent() == 500


async def test_what_is_presumed_in_counters_that_a_ledger_is_not_in_yet_counts_once(
    own_redis: RedisServer, ground: _Ground
) -> None:
    """The replica has slept while they were made, and its sweep is there before it hears of them."""
    one, two = await ground.open("one", "two")
    own_redis.command("FLUSHALL")
    await two.until_open()
    assert (await two.budgets.reserve(two.asking("a", 300, lease_seconds=0.0))).allowed
    assert not one.budgets.is_rebuilding
    await one.sweeping(LedgerBatchBooks(one.path)).turn()
    await one.until_open()
    await one.sweeping(LedgerBatchBooks(one.path)).turn()

    assert await apart(one, two) == 0
    assert await one.spent() == 300


async def test_a_sweep_that_the_store_and_a_replica_forgot_together_is_in_one_ledger(
    own_redis: RedisServer, ground: _Ground
) -> None:
    """Its ledger has it, and the next who sweeps would have the store presume it once more."""
    dead, one, two = await ground.open("dead", "one", "two")
    assert (await dead.budgets.reserve(dead.asking("a", 300, lease_seconds=0.0))).allowed
    await dead.die()
    own_redis.command("SAVE")
    await one.sweeping(LedgerBatchBooks(one.path)).turn()
    await one.die()
    ground.go_back()
    again = ground.replica("one")
    await again.until_open()
    await again.settle_found()
    await two.until_open()
    await two.sweeping(LedgerBatchBooks(two.path)).turn()

    assert await apart(again, two) == 0
    assert await again.spent() >= 300


async def test_what_is_booked_afterwards_is_not_lost_between_its_reservation_and_its_settlement(
    own_redis: RedisServer, ground: _Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await ground.open("one")
    assert await one.reserve("a", 300)
    held = one.budgets.held(rid("a"))
    one.budgets.hand_over(rid("a"))
    own_redis.command("FLUSHALL")
    await one.until_open()
    own_redis.command("SAVE")
    one.write_down("a-0", 250, reservation_id="a", endpoint=Endpoint.BATCHES)
    await one.written()
    fenced = vars(vars(one.budgets)["_late"])["_fenced"]
    real = fenced.reserve

    async def lost(asked: Reservation) -> Decision:
        decision: Decision = await real(asked)
        ground.go_back()
        return decision

    with monkeypatch.context() as failover:
        failover.setattr(fenced, "reserve", lost)
        with contextlib.suppress(StoreUnavailable):
            await one.budgets.settle_held(rid("a"), held, usd(250))
    await one.until_open()
    await one.budgets.settle_held(rid("a"), held, usd(250))

    assert await apart(one) == 0
    assert await one.spent() == 250


async def test_what_a_worker_settled_at_the_old_master_is_in_counters_for_which_another_read_their_ledger(
    own_redis: RedisServer, ground: _Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one replica's workers one is at the new master already."""
    one, two = await ground.open("both", "both")
    sweeping = one.sweeping(LedgerBatchBooks(one.path))
    one.on_joined = sweeping.look_again
    assert await one.reserve("a", 300)
    own_redis.command("FLUSHALL")
    await two.fence.beat()
    await two.rebuilding.turn()
    known = vars(vars(one.budgets)["_late"])["_known"]

    async def acknowledged(*_: Any) -> bool:
        return True

    one.write_down("a", 250, reservation_id="a")
    await one.written()
    with monkeypatch.context() as old_master:
        old_master.setattr(known, "settle_known", acknowledged)
        await one.settle("a", 250)
    await asyncio.gather(one.until_open(), two.until_open())
    for _ in range(2):
        await sweeping.turn()

    assert await apart(one) == 0
    assert await one.spent() == 250


async def test_a_lease_that_is_renewed_while_counters_are_gathered_twice_does_not_become_longer_than_ever(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its replica may die, and its place be taken for good."""
    monkeypatch.setattr(redis_fence, "RESET_BATCH", 1)
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY, PLACES])
    await one.until_open()
    for id, lease_seconds in (("a", 50.0), ("b", 60.0)):
        asked = one.asking(id, 300, lease_seconds=lease_seconds, concurrent=1)
        assert (await one.budgets.reserve(asked)).allowed
    await one.rebuilding.repair()
    await one.fence.look(one.identity, (), shared=False)
    await one.budgets.renew(rid("b"), 60.0)
    await one.rebuilding.repair()
    await one.until_open()

    lease = own_redis.command("ZSCORE", "{gw}:leases", "b").split()[-1]
    assert abs(float(lease) / 1000 - one.clock.now() - 60.0) < 30.0
    await one.close()
