"""The stores that the contract suite runs over: each with its own state per test, one Redis per run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.ports import BudgetStore
from tests.support.budgets import Ground
from tests.support.clock import FakeClock
from tests.support.ledgers import Books
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Shared by tests that leave it as they found it; each with a prefix of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """For a test that breaks it, or empties it."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Shared by tests that leave it running; each with a database of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Books:
    """A ledger of each kind, empty."""
    postgres = request.getfixturevalue("postgres") if request.param == "postgres" else None
    return Books(tmp_path, postgres)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    redis = request.getfixturevalue("redis_server") if request.param == "redis" else None
    ground = Ground(request.param, FakeClock(), tmp_path, redis)
    yield ground
    await ground.close()


@pytest.fixture
async def store(ground: Ground) -> BudgetStore:
    return await ground.store()
