"""The stores that settings name: budgets, keys, what the policy learned, the other replicas. Built here and
nowhere else; what each does is in its adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.adapters.key_store import MemoryKeyStore, SqliteKeyStore
from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.no_peers import NoPeers
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_peers import RedisPeers
from gateway.adapters.shelf import FileShelf, RedisShelf
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.ports import BudgetStore, Clock, KeyStore, Peers, Shelf
from gateway.settings.gateway import BUDGETS_FILE, KEYS_FILE, LEARNED_FILE, GatewayFile, Policy, StoreKind
from gateway.settings.load import Settings
from gateway.settings.secrets import store_url


async def open_budgets(file: GatewayFile, settings: Settings, clock: Clock) -> BudgetStore:
    """The budget store that the settings name. Raises `ConfigError`."""
    match file.store.kind:
        case StoreKind.REDIS:
            url = store_url(file, settings.environ)
            return await RedisBudgets(url, clock, prefix=file.store.prefix).open()
        case StoreKind.SQLITE:
            return await SqliteBudgets(
                made(file.state_path(BUDGETS_FILE)), clock, file.store.synchronous.value
            ).open()
        case StoreKind.MEMORY:
            return MemoryBudgets(clock)


def open_keys(file: GatewayFile, settings: Settings) -> KeyStore:
    """The key store that the settings name."""
    match file.store.kind:
        case StoreKind.REDIS:
            return RedisKeyStore(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.SQLITE:
            return SqliteKeyStore(file.state_path(KEYS_FILE))
        case StoreKind.MEMORY:
            return MemoryKeyStore()


def open_peers(
    file: GatewayFile, settings: Settings, clock: Clock, *, replica: str, failed: Callable[[str], None]
) -> Peers:
    """The other replicas, where the store is one that several share."""
    if file.store.kind is StoreKind.REDIS:
        url = store_url(file, settings.environ)
        return RedisPeers(url, prefix=file.store.prefix, replica=replica, clock=clock, failed=failed)
    return NoPeers()


def shares(file: GatewayFile) -> bool:
    """Whether replicas tell each other what they learn."""
    learned = file.placement.policy is Policy.LEARNED
    return learned and file.store.kind is StoreKind.REDIS and file.placement.share


def open_shelf(file: GatewayFile, settings: Settings) -> Shelf | None:
    """Where what was learned outlives a restart; None for trials, which forget all."""
    match file.store.kind:
        case StoreKind.REDIS if shares(file):
            return RedisShelf(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.MEMORY:
            return None
        case _:
            return FileShelf(made(file.state_path(LEARNED_FILE)))


def made(path: Path) -> Path:
    """The path, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
