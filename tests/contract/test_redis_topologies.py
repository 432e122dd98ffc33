"""Sentinel and Cluster, with real servers: everything that speaks to Redis finds the server that serves its
keys, and finds it again after a failover or a move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_peers import RedisPeers
from gateway.adapters.redis_topology import connection_pool
from gateway.adapters.shelf import RedisShelf
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import Period
from gateway.core.principal import KeyRecord
from tests.support.budgets import bound, reservation, rid, state, usd
from tests.support.elapsed import elapsed
from tests.support.redis_groups import Cluster, SentinelGroup

LIMIT = bound(100, period=Period.CALENDAR_MONTH)
PREFIX = "cgw"
KEY = KeyRecord(id=KeyId("k1"), name="k", workspace=WorkspaceId("w"), digest=b"d" * 32, created_at=1.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    """It takes them ten seconds to find together. The one test that leaves them without a replica is last."""
    with SentinelGroup(tmp_path_factory.mktemp("sentinels")) as group:
        yield group


async def use_everything(url: str, prefix: str) -> None:
    """Budgets, keys, shelf and peers, once round each."""
    budgets = await RedisBudgets(url, SystemClock(), prefix).open()
    await budgets.reserve(reservation("all", LIMIT, nanousd=60))
    await budgets.settle(rid("all"), usd(50))
    assert await state(budgets, LIMIT) == (50, 0)
    await budgets.close()

    keys = RedisKeyStore(url, prefix=prefix)
    await keys.put(KEY)
    assert await keys.load() == (KEY,)
    await keys.close()

    shelf = RedisShelf(url, prefix)
    await shelf.save(b"learned")
    assert await shelf.load() == b"learned"
    await shelf.close()

    failures: list[str] = []
    peers = RedisPeers(url, prefix=prefix, replica="a", clock=SystemClock(), failed=failures.append)
    assert await peers.claim([b"n"], "h1", 5) is None
    assert await peers.claim([b"n"], "h2", 5) == "h1"
    await peers.close()
    assert not failures


async def back(budgets: RedisBudgets, seconds: float = 30) -> None:
    """Until the budgets can be used again; each try must be decided within its deadline."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                with elapsed() as took:
                    await budgets.ping()
                return
            except StoreUnavailable:
                assert took.seconds < 0.8
                await asyncio.sleep(0.02)


async def test_everything_works_behind_sentinels(sentinels: SentinelGroup) -> None:
    await use_everything(sentinels.url, PREFIX)


async def test_everything_works_in_a_cluster_whichever_node_serves_the_slot(cluster: Cluster) -> None:
    prefixes = {cluster.owner(prefix).port: prefix for prefix in (f"p{n}" for n in range(50))}
    assert len(prefixes) == 3
    for prefix in prefixes.values():
        await use_everything(cluster.url, prefix)


async def test_a_failover_is_followed_without_a_restart(sentinels: SentinelGroup) -> None:
    budgets = await RedisBudgets(sentinels.url, SystemClock(), "failover").open()
    await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    await asyncio.to_thread(sentinels.fail_over)
    await back(budgets)
    await budgets.settle(rid("a"), usd(50))

    assert await state(budgets, LIMIT) == (50, 0)
    await budgets.close()


async def test_a_sentinel_that_does_not_answer_costs_nothing(sentinels: SentinelGroup) -> None:
    """The first in the list takes connections and says nothing."""
    connected: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: connected.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    url = sentinels.url.replace("redis+sentinel://", f"redis+sentinel://127.0.0.1:{port},127.0.0.1:1,")
    budgets = RedisBudgets(url, SystemClock(), PREFIX)
    with elapsed() as took:
        await budgets.ping()

    assert took.seconds < 0.15
    await budgets.close()
    silent.close()
    for writer in connected:
        writer.close()
        await writer.wait_closed()


async def test_no_sentinel_at_all_is_the_store_being_away() -> None:
    budgets = RedisBudgets("redis+sentinel://127.0.0.1:1,127.0.0.1:2/budgets", SystemClock(), PREFIX)
    with pytest.raises(StoreUnavailable, match="where the master is") as caught:
        await budgets.ping()

    assert caught.value.outcome_known
    await budgets.close()


@pytest.fixture
async def moved(tmp_path: Path) -> AsyncIterator[Cluster]:
    with Cluster(tmp_path) as own:
        yield own


async def test_a_slot_that_moved_is_followed_with_its_budgets(moved: Cluster) -> None:
    budgets = await RedisBudgets(moved.url, SystemClock(), PREFIX).open()
    await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    keys = RedisKeyStore(moved.url, prefix=PREFIX)
    await keys.put(KEY)
    moved.move(PREFIX, next(node for node in moved.nodes if node is not moved.owner(PREFIX)))
    await budgets.settle(rid("a"), usd(50))

    assert await state(budgets, LIMIT) == (50, 0)
    assert await keys.load() == (KEY,)
    await budgets.close()
    await keys.close()


async def test_a_cluster_without_the_node_of_the_budgets_refuses_in_time_and_recovers(moved: Cluster) -> None:
    budgets = await RedisBudgets(moved.url, SystemClock(), PREFIX).open()
    await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    moved.owner(PREFIX).freeze()
    with elapsed() as took, pytest.raises(StoreUnavailable):
        await budgets.reserve(reservation("b", LIMIT, nanousd=1))
    assert took.seconds < 0.8
    moved.owner(PREFIX).thaw()
    await back(budgets)

    assert (await budgets.reserve(reservation("c", LIMIT, nanousd=1))).allowed
    await budgets.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h1,h2/0",
        "redis+sentinel:///mymaster/0",
        "redis+sentinel://h1:port/mymaster",
        "redis+cluster://h1,h2/3",
        "redis+cluster://",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"master|host|port|database"):
        connection_pool(url, PREFIX)


def test_options_and_logins_of_a_url_reach_the_servers() -> None:
    pool = connection_pool("rediss+cluster://u:p%40ss@h1,h2:7000?ssl_cert_reqs=none", PREFIX)

    assert pool.connection_kwargs["username"] == "u"
    assert pool.connection_kwargs["password"] == "p@ss"
    assert pool.connection_kwargs["ssl_cert_reqs"] == "none"
    assert pool.connection_class.__mro__[2].__name__ == "SSLConnection"


async def test_a_master_that_dies_is_replaced_and_found(sentinels: SentinelGroup) -> None:
    budgets = await RedisBudgets(sentinels.url, SystemClock(), "dies").open()
    await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    await asyncio.to_thread(sentinels.lose_master)
    await back(budgets)

    assert await state(budgets, LIMIT) == (0, 60)
    await budgets.close()
