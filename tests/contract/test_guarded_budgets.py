"""What becomes of calls while Redis is away, by the policy of each limit, and how it is booked when it is
back. Each fault is caused in a real server; every decision comes in time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.redis_fence import RedisFence
from gateway.adapters.redis_scripts import Breaker
from gateway.core.bucket import Amounts, Decision, Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import Limit, OnStoreFailure, Period, Scope, Unit
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import bound, reservation, rid, usd
from tests.support.elapsed import elapsed
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer

DEADLINE_SECONDS = 0.5


def money(policy: OnStoreFailure, *, id: str = "money", allowance: int = 0) -> Limit:
    return Limit(
        id=id,
        scope=Scope.ORGANISATION,
        unit=Unit.NANOUSD,
        amount=1_000,
        period=Period.CALENDAR_MONTH,
        on_store_failure=policy,
        allowance=allowance,
    )


CLOSED = money(OnStoreFailure.REFUSE)
OPEN = money(OnStoreFailure.ALLOW)
ALLOWANCE = money(OnStoreFailure.ALLOWANCE, allowance=100)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", append_only=True) as server:
        yield server


@pytest.fixture
async def replicas(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[_Replicas]:
    made = _Replicas(own_redis.url, tmp_path)
    yield made
    for replica in made.all:
        await replica.close()


class _Replicas:
    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self.all: list[BudgetReplica] = []

    async def __call__(self, *limits: Limit, url: str = "") -> BudgetReplica:
        state = self._directory / f"r{len(self.all)}"
        replica = BudgetReplica(url or self._url, state, limits)
        self.all.append(replica)
        await replica.until_open()
        return replica


async def in_time(replica: BudgetReplica, id: str, nanousd: int) -> bool | str:
    """The decision, or the message of a refusal; never later than the deadline and a little."""
    with elapsed() as took:
        try:
            decision: bool | str = await replica.reserve(id, nanousd)
        except StoreUnavailable as error:
            decision = error.message
    assert took.seconds < DEADLINE_SECONDS + 0.15
    return decision


async def end(replica: BudgetReplica, id: str, nanousd: int) -> None:
    """As the pipeline does it: the ledger, then the store, which may be away."""
    replica.write_down(id, nanousd)
    try:
        await replica.settle(id, nanousd)
    except StoreUnavailable:
        assert replica.budgets.owed


async def paid(replica: BudgetReplica) -> None:
    """The store is back, and has all that was owed to it."""
    async with asyncio.timeout(20):
        while True:
            try:
                if await replica.rebuilding.turn() == 1.0:
                    break
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.05)
    assert not replica.budgets.owed


async def test_limits_of_one_call_alone_are_let_go_with_it(replicas: _Replicas) -> None:
    """Those of tags, and of batches, are bound anew for each call."""
    budgets, mine = (await replicas(CLOSED)).budgets, bound(1_000)
    before = sys.getrefcount(mine)
    await budgets.reserve(reservation("a", mine, nanousd=1))
    await budgets.settle(rid("a"), usd(1))

    assert sys.getrefcount(mine) == before


async def test_closed_refuses_while_the_store_is_away_and_goes_on_by_itself(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    replica = await replicas(CLOSED)
    own_redis.stop()
    assert "cannot be used" in str(await in_time(replica, "a", 1))
    assert replica.degraded == [True]
    own_redis.start()
    await paid(replica)

    assert await replica.reserve("b", 1_000)
    assert replica.degraded == [True, False]


async def test_open_admits_and_settles_later_once(own_redis: RedisServer, replicas: _Replicas) -> None:
    replica = await replicas(OPEN)
    assert await replica.reserve("before", 100)
    own_redis.stop()
    assert await in_time(replica, "during", 5_000) is True
    await end(replica, "during", 300)
    await end(replica, "before", 90)
    assert replica.budgets.owed == 2
    own_redis.start()
    await paid(replica)
    await paid(replica)

    assert (await replica.spent(), await replica.set_aside()) == (390, 0)


async def test_an_exchange_that_is_released_after_an_outage_costs_nothing(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    replica = await replicas(OPEN)
    own_redis.stop()
    assert await in_time(replica, "a", 500) is True
    assert await in_time(replica, "b", 500) is True
    with pytest.raises(StoreUnavailable):
        await replica.budgets.release(rid("a"))
    own_redis.start()
    await paid(replica)
    assert (await replica.spent(), await replica.set_aside()) == (0, 500)
    await replica.budgets.release(rid("b"))

    assert (await replica.spent(), await replica.set_aside()) == (0, 0)


async def test_an_allowance_bounds_what_replicas_admit_alone_to_so_much_each(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    """Overshoot of N replicas with an allowance of A: N times A at most."""
    pair = [await replicas(ALLOWANCE), await replicas(ALLOWANCE)]
    assert await pair[0].reserve("all", 1_000)
    await end(pair[0], "all", 1_000)
    own_redis.stop()
    for n, replica in enumerate(pair):
        decisions = [await in_time(replica, f"{n}-{i}", 30) for i in range(5)]
        assert decisions[:3] == [True] * 3
        assert all("used up" in str(decision) for decision in decisions[3:])
        for i in range(3):
            await end(replica, f"{n}-{i}", 30)
        assert await in_time(replica, f"{n}-rest", 10) is True
        await end(replica, f"{n}-rest", 10)
    own_redis.start()
    for replica in pair:
        await paid(replica)

    assert await pair[0].spent() == 1_000 + 2 * 100
    assert await pair[1].reserve("more", 1) is False


async def test_the_next_outage_has_an_allowance_of_its_own(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    replica = await replicas(ALLOWANCE)
    for outage in range(2):
        own_redis.stop()
        assert await in_time(replica, f"a{outage}", 100) is True
        assert "used up" in str(await in_time(replica, f"b{outage}", 1))
        await end(replica, f"a{outage}", 100)
        own_redis.start()
        await paid(replica)

    assert await replica.spent() == 200


async def test_a_limit_that_refuses_refuses_whatever_the_others_allow(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    strict = money(OnStoreFailure.REFUSE, id="strict")
    replica = await replicas(ALLOWANCE, strict)
    own_redis.stop()

    assert "cannot be used" in str(await in_time(replica, "a", 1))
    assert replica.budgets.allowances.used() == {}


@pytest.mark.parametrize("fault", ["frozen", "refused", "blackholed", "read-only", "full", "busy", "paused"])
async def test_every_fault_is_decided_in_half_a_second_and_over_when_it_is_over(
    own_redis: RedisServer, replicas: _Replicas, fault: str
) -> None:
    async with LossyProxy(own_redis.port) as proxy:
        through = fault == "blackholed"
        url = f"redis://127.0.0.1:{proxy.port}/0" if through else ""
        closed = await replicas(CLOSED, url=url)
        allowed = await replicas(ALLOWANCE, url=url)
        undo = _cause(fault, own_redis, proxy)
        assert isinstance(await in_time(closed, "closed", 1), str)
        assert await in_time(allowed, "allowed", 50) is True
        await end(allowed, "allowed", 40)
        undo()
        await paid(closed)
        await paid(allowed)

        assert await closed.reserve("again", 1)
        assert await closed.spent() == 40
        await closed.budgets.close()
        await allowed.budgets.close()


def _cause(fault: str, redis: RedisServer, proxy: LossyProxy) -> Callable[[], object]:
    """Cause it; what to call to end it."""
    match fault:
        case "frozen":
            redis.freeze()
            return redis.thaw
        case "refused":
            redis.stop()
            return redis.start
        case "blackholed":
            proxy.silent = True
            return lambda: setattr(proxy, "silent", False)
        case "read-only":
            redis.command("REPLICAOF", "127.0.0.1", "1")
            return lambda: redis.command("REPLICAOF", "NO", "ONE")
        case "full":
            redis.command("CONFIG", "SET", "maxmemory", "1")
            return lambda: redis.command("CONFIG", "SET", "maxmemory", "0")
        case "paused":
            redis.command("CLIENT", "PAUSE", "2000", "ALL")
            return lambda: None
        case _:
            redis.command("CONFIG", "SET", "busy-reply-threshold", "1")
            redis.send("EVAL", "while true do end", "0")
            return lambda: redis.command("SCRIPT", "KILL")


async def test_an_outage_costs_calls_nothing_once_it_is_known(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    replica = await replicas(OPEN)
    own_redis.freeze()
    for n in range(Breaker.FAILURES):
        assert await in_time(replica, f"first{n}", 1) is True
    with elapsed() as took:
        for n in range(100):
            assert await replica.reserve(f"quick{n}", 1)
    own_redis.thaw()

    assert took.seconds < 0.2


async def test_a_refusal_whose_reservation_may_be_held_gives_it_back(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    """The replies were lost, not the reservation; its caller hears of the refusal, and closes nothing."""
    async with LossyProxy(own_redis.port) as proxy:
        replica = await replicas(CLOSED, url=f"redis://127.0.0.1:{proxy.port}/0")
        await replica.spend("loads the scripts", 0)
        proxy.lose_replies = 2
        assert "cannot be used" in str(await in_time(replica, "a", 400))
        assert await replica.set_aside() == 400
        await paid(replica)

        assert (await replica.spent(), await replica.set_aside()) == (0, 0)
        await replica.budgets.close()


async def test_a_reservation_in_counters_that_turn_out_to_be_gone_is_given_back_when_it_is_refused(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    replica = await replicas(CLOSED)
    fence = _Disturbed(replica.fence)
    guarded = GuardedBudgets(
        replica.redis,
        replica.clock,
        fence=fence,
        fenced=replica.redis.under(lambda: replica.fence.generation),
    )
    with pytest.raises(StoreUnavailable):
        await guarded.reserve(reservation("a", *replica.limits.binding(WHO, MODEL), nanousd=400))
    assert await replica.set_aside() == 400
    fence.away = False
    await guarded.pay()

    assert await replica.set_aside() == 0


class _Disturbed:
    """A fence whose store goes away right after it was reserved in."""

    def __init__(self, real: RedisFence) -> None:
        self.real = real
        self.away = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def disturbed(self) -> bool:
        return self.away or self.real.disturbed()

    async def beat(self) -> None:
        raise StoreUnavailable("away")  # surely did nothing itself


async def test_looking_at_the_fence_and_reserving_have_one_deadline(
    own_redis: RedisServer, replicas: _Replicas
) -> None:
    """Either alone may take all of it, and more is never waited for."""
    replica = await replicas(OPEN)
    guarded = GuardedBudgets(
        _Never(replica.clock), replica.clock, fence=replica.fence, fenced=_Never(replica.clock)
    )
    async with asyncio.timeout(20):
        decision = await guarded.reserve(reservation("a", *replica.limits.binding(WHO, MODEL), nanousd=400))

    assert decision.degraded


class _Never(MemoryBudgets):
    """A store that never answers, and has no deadline of its own."""

    async def reserve(self, reservation: Reservation) -> Decision:
        await asyncio.Event().wait()
        raise AssertionError

    async def settle_known(self, reservation_id: ReservationId, actual: Amounts) -> bool:
        raise AssertionError
