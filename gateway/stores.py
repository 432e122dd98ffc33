"""The stores that settings name: budgets, keys, what the policy learned, the other replicas; and upstream.
Built here and nowhere else; what each does is in its adapter."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from gateway.adapters.adjustment_store import MemoryAdjustmentStore, SqliteAdjustmentStore
from gateway.adapters.adjustment_store_mirrored import MirroredAdjustmentStore
from gateway.adapters.adjustment_store_redis import RedisAdjustmentStore
from gateway.adapters.alert_log import MemoryAlertLog, SqliteAlertLog
from gateway.adapters.alert_log_redis import RedisAlertLog
from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.batch_store import MemoryBatchStore, SqliteBatchStore
from gateway.adapters.batch_store_redis import RedisBatchStore
from gateway.adapters.claude import ClaudeUpstream
from gateway.adapters.key_store import MemoryKeyStore, SqliteKeyStore
from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_shipping import SharedLedger, ShippedLedger, Shipper
from gateway.adapters.ledger_source import LedgerSource, PostgresUrl
from gateway.adapters.live_calls import LiveCalls
from gateway.adapters.local_peers import LocalPeers
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.no_peers import NoPeers
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_peers import RedisPeers
from gateway.adapters.replicas_live import ReplicasLive
from gateway.adapters.shelf import FileShelf, RedisShelf
from gateway.adapters.sign_outs import MemorySignOuts, RedisSignOuts, SqliteSignOuts
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.core.chain import ChainKey
from gateway.core.worker import Worker
from gateway.ports import (
    AdjustmentStore,
    AlertLog,
    BatchBooks,
    BatchStore,
    BudgetStore,
    Clock,
    KeyStore,
    Peers,
    Shelf,
)
from gateway.settings.gateway import (
    ADJUSTMENTS_FILE,
    ALERTS_FILE,
    BATCHES_FILE,
    BUDGETS_FILE,
    KEYS_FILE,
    LEARNED_FILE,
    LEDGER_FILE,
    SIGNED_OUT_FILE,
    GatewayFile,
    Policy,
    StoreKind,
)
from gateway.settings.ledger import LedgerKind
from gateway.settings.load import Settings
from gateway.settings.secrets import ledger_key, ledger_url, store_url


def open_upstream(file: GatewayFile) -> ClaudeUpstream:
    """Connections to all upstreams. Make it inside the running loop."""
    return ClaudeUpstream(
        connect_timeout_seconds=file.timeouts.upstream_connect,
        head_timeout_seconds=file.timeouts.upstream_head,
        idle_timeout_seconds=file.timeouts.upstream_idle,
        send_timeout_seconds=file.timeouts.upstream_write,
        keepalive_seconds=file.timeouts.upstream_keep_alive,
    )


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
    """The log of adjustments, in the store that the settings name; of one that is shared this replica keeps
    a mirror."""
    match file.store.kind:
        case StoreKind.REDIS:
            url = store_url(file, settings.environ)
            shared = RedisAdjustmentStore(url, prefix=file.store.prefix)
            mirror = file.state_path(f"adjustments.{file.store.prefix}.{_place(url)}.mirror.sqlite3")
            return MirroredAdjustmentStore(shared, SqliteAdjustmentStore(mirror))
        case StoreKind.SQLITE:
            return SqliteAdjustmentStore(file.state_path(ADJUSTMENTS_FILE))
        case StoreKind.MEMORY:
            return MemoryAdjustmentStore()


def open_alert_log(file: GatewayFile, settings: Settings) -> AlertLog:
    """What people were told, in the store that the settings name."""
    match file.store.kind:
        case StoreKind.REDIS:
            return RedisAlertLog(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.SQLITE:
            return SqliteAlertLog(file.state_path(ALERTS_FILE))
        case StoreKind.MEMORY:
            return MemoryAlertLog()


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
    file: GatewayFile,
    settings: Settings,
    clock: Clock,
    *,
    replica: str,
    failed: Callable[[str], None],
    worker: Worker | None = None,
) -> Peers:
    """The other replicas, where the store is one that several share; else the other workers here."""
    if file.store.kind is StoreKind.REDIS:
        url = store_url(file, settings.environ)
        return RedisPeers(url, prefix=file.store.prefix, replica=replica, clock=clock, failed=failed)
    if worker is not None:
        return LocalPeers(worker.hub_socket, replica=replica, failed=failed)
    return NoPeers()


def open_live(
    file: GatewayFile, settings: Settings, own: LiveCalls, clock: Clock, worker: Worker | None = None
) -> ReplicasLive:
    """The live calls of all workers, and of all replicas where the store is one that several share."""
    url = store_url(file, settings.environ) if file.store.kind is StoreKind.REDIS else None
    return ReplicasLive(own, worker, clock=clock, url=url, prefix=file.store.prefix)


def open_sign_outs(file: GatewayFile, settings: Settings) -> MemorySignOuts | SqliteSignOuts | RedisSignOuts:
    """Who has signed out of the page, in the store that the settings name."""
    match file.store.kind:
        case StoreKind.REDIS:
            return RedisSignOuts(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.SQLITE:
            return SqliteSignOuts(file.state_path(SIGNED_OUT_FILE))
        case StoreKind.MEMORY:
            return MemorySignOuts()


def shares(file: GatewayFile, worker: Worker | None = None) -> bool:
    """Whether replicas, or the workers of this machine, tell each other what they learn."""
    learned = file.placement.policy is Policy.LEARNED
    return learned and (file.store.kind is StoreKind.REDIS or worker is not None) and file.placement.share


def open_shelf(file: GatewayFile, settings: Settings, worker: Worker | None = None) -> Shelf | None:
    """Where what was learned outlives a restart; None for trials, which forget all. Workers that learn as one
    have one, others one each."""
    match file.store.kind:
        case StoreKind.REDIS if shares(file):
            return RedisShelf(store_url(file, settings.environ), prefix=file.store.prefix)
        case StoreKind.MEMORY:
            return None
        case _:
            apart = worker is not None and not shares(file, worker)
            name = worker.own_name(LEARNED_FILE) if worker is not None and apart else LEARNED_FILE
            return FileShelf(made(file.state_path(name)))


def open_ledger(
    file: GatewayFile, settings: Settings, clock: Clock, worker: Worker | None = None
) -> Ledger | ShippedLedger:
    """The ledger that the settings name, for writing. A shared one that does not answer is no error: entries
    wait in the state directory; of several workers, which write to one file, the first ships for all. Raises
    `ConfigError`."""
    path = made(file.state_path(LEDGER_FILE))
    key = ledger_key(file, settings.environ)
    if file.ledger.kind is LedgerKind.SQLITE or (worker is not None and not worker.is_first):
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


def recording_path(file: GatewayFile, worker: Worker | None = None) -> Path | None:
    """Where this process records what the policy sees; None where nothing is recorded."""
    if file.placement.recording is None:
        return None
    path = Path(file.placement.recording)
    return made(path.with_name(path.name if worker is None else worker.own_name(path.name)))


def made(path: Path) -> Path:
    """The path, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _place(url: str) -> str:
    """Which store a URL leads to, whatever the credential: what is mirrored of one is not for another."""
    place = url.partition("://")[2].rpartition("@")[2].partition("?")[0]
    return hashlib.sha256(place.encode()).hexdigest()[:8]
