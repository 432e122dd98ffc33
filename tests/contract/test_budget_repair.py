"""What a rebuilding of the counters of money leaves alone, and what it does not: rates, tokens and places of
calls that run stay held; counters that no ledger says anything of begin at zero."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters import redis_fence
from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.core.bucket import Amounts, Payer
from gateway.core.limits import Limit, Period, Scope, Unit
from gateway.core.reservations import CLOSED_KEPT_MS, SWEPT_KEPT_MS
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import money_a_month, reservation, rid
from tests.support.redis_server import RedisServer

MONEY = money_a_month(1_000)
PLACES = Limit(id="places", scope=Scope.KEY, unit=Unit.CONCURRENT, amount=1, period=Period.OPEN)
A_DAY = Limit(id="day", scope=Scope.KEY, unit=Unit.REQUESTS, amount=100, period=Period.CALENDAR_DAY)
AN_HOUR = Limit(
    id="hour", scope=Scope.KEY, unit=Unit.OUTPUT_TOKENS, amount=1_000, burst=10_000, period=Period.HOUR
)


@pytest.fixture
async def replica(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[BudgetReplica]:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY, PLACES, A_DAY, AN_HOUR])
    await one.until_open()
    yield one
    await one.close()


async def reserve(replica: BudgetReplica, id: str, *, lease_seconds: float = 60.0) -> bool:
    bound = replica.limits.binding(WHO, MODEL)
    asked = reservation(
        id, *bound, nanousd=300, requests=1, concurrent=1, output_tokens=900, lease_seconds=lease_seconds
    )
    return (await replica.budgets.reserve(asked)).allowed


async def settle(replica: BudgetReplica, id: str) -> None:
    replica.write_down(id, 250, reservation_id=id)
    await replica.budgets.settle(rid(id), Amounts(nanousd=250, requests=1, output_tokens=600))


async def repaired(replica: BudgetReplica) -> None:
    await replica.rebuilding.repair()
    await replica.until_open()


async def standing(replica: BudgetReplica) -> dict[str, tuple[int, int]]:
    """By limit: spent and set aside. What a rate has given back meanwhile, no test waits for."""
    verdicts = await replica.redis.peek(replica.limits.binding(WHO, MODEL))
    return {verdict.bound.limit.id: (verdict.spent, verdict.set_aside) for verdict in verdicts}


async def test_a_repair_gives_back_nothing_of_a_call_that_runs(replica: BudgetReplica) -> None:
    assert await reserve(replica, "a")
    for _ in range(2):
        await repaired(replica)
        stands = await standing(replica)
        assert stands["hour"][0] > 850
        assert (stands["money"], stands["places"], stands["day"]) == ((0, 300), (0, 1), (0, 1))
        assert not await reserve(replica, "b"), "there is one place, and it is taken"

    await settle(replica, "a")

    stands = await standing(replica)
    assert 550 < stands["hour"][0] <= 600
    assert (stands["money"], stands["places"], stands["day"]) == ((250, 0), (0, 0), (1, 0))
    assert await reserve(replica, "c")


async def test_what_is_released_after_a_repair_holds_nothing_anywhere(replica: BudgetReplica) -> None:
    assert await reserve(replica, "a")
    await repaired(replica)
    await replica.budgets.release(rid("a"))

    stands = await standing(replica)
    assert (stands["money"], stands["places"], stands["day"]) == ((0, 0), (0, 0), (0, 0))


async def test_a_call_that_ends_while_counters_are_rebuilt_gives_back_its_place_and_counts_once(
    replica: BudgetReplica,
) -> None:
    assert await reserve(replica, "a")
    await replica.rebuilding.repair()
    await replica.fence.look(replica.identity, (), shared=False)
    replica.write_down("a", 250)
    with pytest.raises(Exception, match="from the ledger"):
        await replica.budgets.settle(rid("a"), Amounts(nanousd=250, requests=1))
    await replica.until_open()

    stands = await standing(replica)
    assert (stands["money"], stands["places"], stands["day"]) == ((250, 0), (0, 0), (1, 0))
    assert not replica.budgets.owed


async def test_a_call_whose_replica_dies_after_a_repair_is_settled_by_the_next_process_once(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    """The store knows its id still, but no dollars under it."""
    one = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY, PLACES, A_DAY, AN_HOUR])
    await one.until_open()
    assert await reserve(one, "a")
    await repaired(one)
    one.write_down("a", 250, reservation_id="a")
    await one.die()

    for _ in range(2):
        again = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY, PLACES, A_DAY, AN_HOUR])
        await again.until_open()
        await again.settle_found()
        stands = await standing(again)
        assert (stands["money"], stands["places"], stands["day"]) == ((250, 0), (0, 0), (1, 0))
        await again.die()


async def test_of_a_dead_replicas_call_no_dollars_are_presumed_after_a_repair(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    """Its place is free again once its lease is over; neither counter nor ledger has any money of it."""
    one = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY, PLACES, A_DAY, AN_HOUR])
    await one.until_open()
    assert await reserve(one, "a", lease_seconds=0.0)
    await one.die()
    await repaired(replica)
    assert (await standing(replica))["places"] == (0, 1)
    await replica.sweeping(LedgerBatchBooks(replica.path)).turn()

    stands = await standing(replica)
    assert (stands["money"], stands["places"], stands["day"]) == ((0, 0), (0, 0), (1, 0))
    assert await replica.rebuilding.audit() == ()
    await replica.redis.settle(rid("a"), Amounts(nanousd=250, requests=1))
    assert (await standing(replica))["money"] == (0, 0)


async def test_a_counter_that_no_ledger_says_anything_of_begins_at_zero(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many other keys there are. What ran is set aside again, and other windows stay as they are."""
    monkeypatch.setattr(redis_fence, "SCAN_BATCH", 10)
    replica = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    await replica.until_open()
    (bound,) = replica.limits.binding(WHO, MODEL)
    for number in range(100):
        own_redis.command("SET", f"of-somebody-else:{number}", "1")
    (span,) = replica.rebuilding._spans()
    now, then = f"{{gw}}:b:{bound.bucket_id}/{span.window.label}", f"{{gw}}:b:{bound.bucket_id}/2001-01-01"
    for key in (now, then):
        own_redis.command("HSET", key, "spent", "777")
    assert await replica.reserve("a", 100)
    await repaired(replica)

    assert (await replica.spent(), await replica.set_aside()) == (0, 100)
    assert own_redis.command("HGET", then, "spent") == b"$3\r\n777\r\n"
    await replica.close()


async def test_tokens_and_rates_that_were_spent_stay_spent(replica: BudgetReplica) -> None:
    assert await reserve(replica, "a")
    await settle(replica, "a")
    await repaired(replica)

    stands = await standing(replica)
    assert (stands["money"], stands["day"]) == ((250, 0), (1, 0))
    assert stands["hour"][0] > 550


@pytest.mark.parametrize(("before_seconds", "is_kept"), [(600.0, True), (0.0, True), (-61.0, False)])
async def test_of_what_was_closed_is_remembered_for_a_day_what_may_be_older_than_its_counters(
    own_redis: RedisServer, replica: BudgetReplica, before_seconds: float, is_kept: bool
) -> None:
    """The next process cannot tell from its ledger in which counters that was reserved. All else is
    remembered for as long as a request can be under way."""
    came_ms = round((replica.fence.opened_at - before_seconds) * 1000)
    asked = reservation("a", *replica.limits.binding(WHO, MODEL), nanousd=300)
    assert (await replica.budgets.reserve(replace(asked, payer=Payer(received_at_ms=came_ms)))).allowed
    await settle(replica, "a")
    kept_ms = int(own_redis.command("PTTL", "{gw}:r:a")[1:])

    assert kept_ms <= (SWEPT_KEPT_MS if is_kept else CLOSED_KEPT_MS)
    assert (kept_ms > CLOSED_KEPT_MS) is is_kept
