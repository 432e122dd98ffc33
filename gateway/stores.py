"""The stores that settings name: budgets, keys, what the policy learned, the other replicas. Built here and
nowhere else; what each does is in its adapter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from gateway.adapters.adjustment_store import MemoryAdjustmentStore, SqliteAdjustmentStore
from gateway.adapters.adjustment_store_redis import RedisAdjustmentStore
from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.batch_store import MemoryBatchStore, SqliteBatchStore
from gateway.adapters.batch_store_redis import RedisBatchStore
from gateway.adapters.key_store import MemoryKeyStore, SqliteKeyStore
from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_shipping import SharedLedger, ShippedLedger, Shipper
from gateway.adapters.ledger_source import LedgerSource, PostgresUrl
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.no_peers import NoPeers
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_peers import RedisPeers
from gateway.adapters.shelf import FileShelf, RedisShelf
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.core.chain import ChainKey
from gateway.ports import AdjustmentStore, BatchBooks, BatchStore, BudgetStore, Clock, KeyStore, Peers, Shelf
from gateway.settings.gateway import (
    ADJUSTMENTS_FILE,
    BATCHES_FILE,
    BUDGETS_FILE,
    KEYS_FILE,
    LEARNED_FILE,
    LEDGER_FILE,
    GatewayFile,
    Policy,
    StoreKind,
)
from gateway.settings.ledger import LedgerKind
from gateway.settings.load import Settings
from gateway.settings.secrets import ledger_key, ledger_url, store_url


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


def open_adjustments(file: GatewayFile, settings: Settings) -> AdjustmentStore:
    """The log of adjustments, in the store that the settings name."""
    match file.store.kind:
        case StoreKind.REDIS:
            return RedisAdjustmentStore(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.SQLITE:
            return SqliteAdjustmentStore(file.state_path(ADJUSTMENTS_FILE))
        case StoreKind.MEMORY:
            return MemoryAdjustmentStore()


def open_batches(file: GatewayFile, settings: Settings) -> BatchStore:
    """Message batches that are not booked yet, in the store that the settings name."""
    match file.store.kind:
        case StoreKind.REDIS:
            return RedisBatchStore(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.SQLITE:
            return SqliteBatchStore(made(file.state_path(BATCHES_FILE)))
        case StoreKind.MEMORY:
            return MemoryBatchStore()


def open_batch_books(file: GatewayFile, settings: Settings) -> BatchBooks:
    """The ledger of the state directory, for the entries of batches."""
    return LedgerBatchBooks(made(file.state_path(LEDGER_FILE)), key=ledger_key(file, settings.environ))


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


def open_ledger(file: GatewayFile, settings: Settings, clock: Clock) -> Ledger | ShippedLedger:
    """The ledger that the settings name, for writing. A shared one that does not answer is no error: entries
    wait in the state directory. Raises `ConfigError`."""
    path = made(file.state_path(LEDGER_FILE))
    key = ledger_key(file, settings.environ)
    if file.ledger.kind is LedgerKind.SQLITE:
        return Ledger(path, key=key)
    source = PostgresUrl(ledger_url(file, settings.environ))
    from gateway.adapters.postgres_ledger import PostgresLedger  # the driver is an extra

    def connect() -> SharedLedger:
        return PostgresLedger(source)

    committed = threading.Event()
    ledger = Ledger(path, key=key, committed=committed.set)
    return ShippedLedger(ledger, Shipper(path, connect, clock.now, key=ChainKey(key), wake=committed))


def ledger_source(file: GatewayFile, settings: Settings) -> LedgerSource:
    """Where the books are read that the settings name: the shared ones where there are any. Raises
    `ConfigError`."""
    if file.ledger.kind is LedgerKind.POSTGRES:
        return PostgresUrl(ledger_url(file, settings.environ))
    return file.state_path(LEDGER_FILE)


def made(path: Path) -> Path:
    """The path, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
