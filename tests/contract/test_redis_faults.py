"""What the budgets do when Redis misbehaves: an answer that is right, or `StoreUnavailable`, within half a
second or so; never a wrong answer. Here time is real: these stores run the scripts that ship."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_scripts import Breaker
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.limits import BoundLimit, Period
from tests.support.budgets import bound, reservation, rid, sweep, usd
from tests.support.clock import FakeClock
from tests.support.elapsed import elapsed
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer

LIMIT = bound(100, period=Period.CALENDAR_MONTH)
RATE = bound(100, id="rate", period=Period.HOUR)


@pytest.fixture
async def budgets(own_redis: RedisServer) -> AsyncIterator[RedisBudgets]:
    store = await RedisBudgets(own_redis.url, SystemClock()).open()
    yield store
    await store.close()


async def unavailable(budgets: RedisBudgets, id: str = "x") -> StoreUnavailable:
    """The error of a reserve, which must come in time."""
    with elapsed() as took, pytest.raises(StoreUnavailable) as caught:
        await budgets.reserve(reservation(id, LIMIT, nanousd=1))

    assert took.seconds < 0.8
    return caught.value


async def through(proxy: LossyProxy) -> RedisBudgets:
    """Budgets whose scripts Redis knows already: what gets lost is the reply of a script that has run."""
    budgets = await RedisBudgets(f"redis://127.0.0.1:{proxy.port}", SystemClock()).open()
    await budgets.reserve(reservation("warm", LIMIT))
    await budgets.release(rid("warm"))
    return budgets


async def gone(budgets: RedisBudgets, limit: BoundLimit = LIMIT) -> tuple[int, int]:
    (verdict,) = await budgets.peek([limit])
    return verdict.spent, verdict.set_aside


@pytest.mark.parametrize("operation", ["reserve", "settle", "release"])
async def test_a_lost_reply_charges_nothing_twice(own_redis: RedisServer, operation: str) -> None:
    """LiteLLM #30460: spend inflated when Redis was slow, for each retry counted again."""
    async with LossyProxy(own_redis.port) as proxy:
        budgets = await through(proxy)
        proxy.lose_replies = int(operation == "reserve")
        decision = await budgets.reserve(reservation("a", LIMIT, RATE, nanousd=60))
        proxy.lose_replies = int(operation != "reserve")
        if operation == "settle":
            await budgets.settle(rid("a"), usd(70))
        elif operation == "release":
            await budgets.release(rid("a"))
        await budgets.ping()
        expected = {"reserve": (0, 60), "settle": (70, 0), "release": (0, 0)}[operation]

        assert decision.allowed and decision.binding is not None
        assert decision.binding.remaining == 40
        assert proxy.lost == 1
        assert await gone(budgets) == expected
        await budgets.close()


async def test_replies_lost_twice_leave_the_outcome_unknown_and_the_close_mends_it(
    own_redis: RedisServer,
) -> None:
    async with LossyProxy(own_redis.port) as proxy:
        budgets = await through(proxy)
        proxy.lose_replies = 2
        error = await unavailable(budgets, "a")
        assert not error.outcome_known
        assert await gone(budgets) == (0, 1)

        await budgets.release(rid("a"))

        assert await gone(budgets) == (0, 0)
        await budgets.close()


async def test_a_flushed_script_cache_is_filled_again_unnoticed(
    own_redis: RedisServer, budgets: RedisBudgets
) -> None:
    await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    own_redis.command("SCRIPT", "FLUSH")
    await budgets.settle(rid("a"), usd(50))

    assert await gone(budgets) == (50, 0)


async def test_a_restart_that_loses_the_data_is_survived_and_logged(
    own_redis: RedisServer, budgets: RedisBudgets, caplog: pytest.LogCaptureFixture
) -> None:
    await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    own_redis.stop()
    own_redis.start()
    caplog.clear()

    decision = await budgets.reserve(reservation("b", LIMIT, nanousd=10))
    await budgets.settle(rid("a"), usd(60))

    assert decision.allowed
    assert "counts from zero" in caplog.text
    assert await gone(budgets) == (0, 10)


async def test_a_restart_with_persistence_forgets_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", append_only=True) as server:
        budgets = await RedisBudgets(server.url, SystemClock()).open()
        await budgets.reserve(reservation("a", LIMIT, RATE, nanousd=60))
        server.stop()
        server.start()
        await budgets.settle(rid("a"), usd(50))

        assert await gone(budgets) == (50, 0)
        assert not (await budgets.reserve(reservation("b", LIMIT, nanousd=51))).allowed
        await budgets.close()


async def test_out_of_memory_is_the_store_being_down_and_does_nothing_halfway(
    own_redis: RedisServer, budgets: RedisBudgets
) -> None:
    await budgets.reserve(reservation("a", LIMIT, RATE, nanousd=60, lease_seconds=0.001))
    own_redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        error = await unavailable(budgets)
        assert error.outcome_known and "memory" in error.message
        for operation in (budgets.settle(rid("a"), usd(70)), sweep(budgets), budgets.ping()):
            with pytest.raises(StoreUnavailable):
                await operation
        assert await gone(budgets) == (0, 60)
    finally:
        own_redis.command("CONFIG", "SET", "maxmemory", "0")
    await budgets.settle(rid("a"), usd(70))

    assert await gone(budgets) == (70, 0)


async def test_a_server_that_may_only_be_read_is_down_until_it_may_be_written(
    own_redis: RedisServer, budgets: RedisBudgets
) -> None:
    own_redis.command("REPLICAOF", "127.0.0.1", "1")
    error = await unavailable(budgets)
    with pytest.raises(StoreUnavailable):
        await budgets.ping()
    own_redis.command("REPLICAOF", "NO", "ONE")

    assert error.outcome_known
    assert (await budgets.reserve(reservation("a", LIMIT, nanousd=100))).allowed


async def test_a_short_pause_is_waited_out(own_redis: RedisServer, budgets: RedisBudgets) -> None:
    own_redis.command("CLIENT", "PAUSE", "100")

    assert (await budgets.reserve(reservation("a", LIMIT, nanousd=60))).allowed
    assert await gone(budgets) == (0, 60)


async def test_a_pause_longer_than_one_try_is_bridged_without_charging_twice(
    own_redis: RedisServer, budgets: RedisBudgets
) -> None:
    own_redis.command("CONFIG", "SET", "hz", "100")  # it looks at its clock as often: the pause is no longer
    own_redis.command("CLIENT", "PAUSE", "280")

    assert (await budgets.reserve(reservation("a", LIMIT, RATE, nanousd=60))).allowed
    assert await gone(budgets) == (0, 60)
    assert (await gone(budgets, RATE))[0] == 60


async def test_a_frozen_server_costs_a_deadline_thrice_and_then_nothing_until_it_is_back(
    own_redis: RedisServer, budgets: RedisBudgets
) -> None:
    own_redis.freeze()
    first = [await unavailable(budgets, f"r{i}") for i in range(Breaker.FAILURES)]
    with elapsed() as took:
        quick = [await unavailable(budgets, f"q{i}") for i in range(20)]
    assert took.seconds < 0.1
    own_redis.thaw()
    for i in range(Breaker.FAILURES):
        await budgets_answer_again(budgets)
        await budgets.release(rid(f"r{i}"))

    assert not any(error.outcome_known for error in first)
    assert all(error.outcome_known for error in quick)
    assert await gone(budgets) == (0, 0)


async def budgets_answer_again(budgets: RedisBudgets) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await budgets.ping()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def test_no_server_at_all_is_said_at_once_and_the_gateway_starts_all_the_same(
    own_redis: RedisServer,
) -> None:
    own_redis.stop()
    budgets = await RedisBudgets(own_redis.url, SystemClock()).open()
    with elapsed() as took:
        error = await unavailable(budgets)

    assert error.outcome_known
    assert took.seconds < 0.2
    own_redis.start()
    await budgets_answer_again(budgets)
    assert (await budgets.reserve(reservation("a", LIMIT, nanousd=60))).allowed
    await budgets.close()
    with pytest.raises(StoreUnavailable):
        await budgets.ping()


async def test_more_at_once_than_there_are_connections_all_get_right_answers(budgets: RedisBudgets) -> None:
    limit = bound(1000)
    decisions = await asyncio.gather(
        *(budgets.reserve(reservation(f"r{i}", limit, nanousd=i % 7)) for i in range(300))
    )
    left = [d.binding.remaining for d in decisions if d.binding]

    assert all(d.allowed for d in decisions)
    assert min(left) == 1000 - sum(i % 7 for i in range(300))


async def test_an_answer_never_reaches_another_than_its_asker(
    own_redis: RedisServer, budgets: RedisBudgets
) -> None:
    """A cancelled operation leaves a reply under way; nobody else may read it."""
    own_redis.command("CLIENT", "PAUSE", "60")
    loop = asyncio.get_running_loop()
    cancelled = [loop.create_task(budgets.reserve(reservation(f"c{i}", LIMIT, nanousd=1))) for i in range(5)]
    await asyncio.sleep(0.02)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    answers = await asyncio.gather(*(budgets.peek([bound(n, id=f"l{n}")]) for n in range(1, 11)))

    assert [verdict.remaining for (verdict,) in answers] == list(range(1, 11))


async def test_the_clock_of_the_server_counts_whatever_the_gateways_think(own_redis: RedisServer) -> None:
    ahead, behind = FakeClock(SystemClock().now() + 3600), FakeClock(SystemClock().now() - 3600)
    stores = [await RedisBudgets(own_redis.url, clock).open() for clock in (ahead, behind)]
    month, rate = bound(100, period=Period.CALENDAR_MONTH), bound(60, id="rate", period=Period.MINUTE)
    await stores[0].reserve(reservation("a", month, rate, nanousd=60, lease_seconds=0.001))

    refusal = (await stores[1].reserve(reservation("b", rate, nanousd=60))).binding
    assert refusal is not None and refusal.retry_after_seconds is not None
    assert 50 < refusal.retry_after_seconds <= 60
    await asyncio.sleep(0.002)
    assert await sweep(stores[1]) == 1
    assert await gone(stores[1], month) == (60, 0)
    for store in stores:
        await store.close()


async def test_a_gateway_whose_clock_is_off_by_days_is_told_so(own_redis: RedisServer) -> None:
    astray = RedisBudgets(own_redis.url, FakeClock(SystemClock().now() + 5 * 86_400))
    with pytest.raises(StoreUnavailable, match="clocks"):
        await astray.reserve(reservation("a", bound(100), nanousd=1))
    await astray.close()


async def test_budgets_of_another_version_are_not_touched(own_redis: RedisServer) -> None:
    own_redis.command("SET", "{gw}:schema", "99")
    budgets = RedisBudgets(own_redis.url, SystemClock())
    with pytest.raises(ConfigError, match="schema 99"):
        await budgets.open()
    with pytest.raises(StoreUnavailable):
        await budgets.reserve(reservation("a", LIMIT, nanousd=1))

    assert own_redis.command("DBSIZE") in (b":1\r\n", b":2\r\n")
    await budgets.close()


async def test_a_server_that_may_evict_budgets_is_warned_of(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    for maxmemory, policy, warned in (
        ("0", "allkeys-lru", False),
        ("100mb", "noeviction", False),
        ("100mb", "allkeys-lru", True),
    ):
        own_redis.command("CONFIG", "SET", "maxmemory", maxmemory)
        own_redis.command("CONFIG", "SET", "maxmemory-policy", policy)
        caplog.clear()
        await (await RedisBudgets(own_redis.url, SystemClock()).open()).close()

        assert ("evict" in caplog.text) == warned


async def test_all_keys_share_one_slot_and_what_is_over_expires(own_redis: RedisServer) -> None:
    prefix = f"p{uuid4().hex}"
    budgets = await RedisBudgets(own_redis.url, SystemClock(), prefix=prefix).open()
    await budgets.reserve(reservation("settled", LIMIT, RATE, nanousd=10))
    await budgets.settle(rid("settled"), usd(10))
    await budgets.reserve(reservation("refused", LIMIT, nanousd=1000))
    await budgets.release(rid("unknown"))
    listing = own_redis.command("KEYS", "*").decode().split("\r\n")
    keys = [line for line in listing if line and line[0] not in "*$"]

    assert keys and all(key.startswith(f"{{{prefix}}}:") for key in keys)
    lasting = {key for key in keys if own_redis.command("PTTL", key) == b":-1\r\n"}
    assert lasting == {f"{{{prefix}}}:schema"}
    await budgets.close()
