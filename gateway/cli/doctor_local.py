"""Checks of `gateway doctor` on what is on this machine: secrets, state directory, ledger, prices, limits of
the system. They read; what would be made at the first start is not made here."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from gateway import descriptors
from gateway.adapters.ledger_queries import read_totals
from gateway.adapters.ledger_source import PostgresUrl, reading
from gateway.adapters.ledger_verify import CHAINS_SINCE, verify
from gateway.cli.findings import Finding, fail, ok, warn
from gateway.core.chain import ChainKey
from gateway.core.errors import ConfigError, CredentialUnavailable, StoreUnavailable
from gateway.core.ledger import Dimension
from gateway.ports import Clock
from gateway.settings import Settings
from gateway.settings.gateway import (
    BATCHES_FILE,
    KEYS_FILE,
    LEDGER_FILE,
    LEDGER_KEY_FILE,
    PREFIX_SECRET_FILE,
    StoreKind,
)
from gateway.settings.ledger import LedgerKind
from gateway.settings.secrets import (
    admin_token,
    is_available,
    ledger_key,
    ledger_url,
    metrics_token,
    prefix_secret,
    store_url,
    upstream_credential,
)
from gateway.settings.shared import SecretRef
from gateway.stores import ledger_source

Check = Callable[[Settings, Clock], list[Finding]]

LEAST_BYTES, FEW_BYTES = 100 << 20, 1 << 30
LAST_ENTRIES = 500
OLD_PRICES_DAYS = 60
RECENT_DAYS = 30
"""For how long a price that was missing is still told of."""
_FOREVER_MS = 2**62


def check_secrets(settings: Settings, clock: Clock) -> list[Finding]:
    """That each secret that is named can be read, and that those made here are for their owner only."""
    findings: list[Finding] = []
    for path in _made_here(settings):
        findings += _for_owner_only(path)
    uses = list(_uses_of_secrets(settings))
    for use in uses:
        try:
            use()
        except (ConfigError, CredentialUnavailable) as error:
            todo = "set the variable, or make the file readable for the gateway"
            findings.append(fail("secrets", str(error), todo))
    return findings or [ok("secrets", f"all {len(uses)} can be read")]


def check_state(settings: Settings, clock: Clock) -> list[Finding]:
    """That the state directory can be written, and has room."""
    directory = settings.gateway.state_path("")
    there = directory
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        return [
            fail(
                "state",
                f"{there} cannot be written",
                "let the gateway's user own state.directory, or move it",
            )
        ]
    free = shutil.disk_usage(there).free
    found = f"{directory} has {free >> 20:,} MiB free"
    if free < LEAST_BYTES:
        return [fail("state", found, "make room: entries would go to the log instead of the ledger")]
    if free < FEW_BYTES:
        return [warn("state", found, "make room, or prune the ledger with gateway ledger prune")]
    return [ok("state", found if directory.exists() else f"{directory} is made at the first start")]


def check_files(settings: Settings, clock: Clock) -> list[Finding]:
    """That keys, adjustments and batches can be read, where they are kept on this machine."""
    directory = settings.gateway.state_path("")
    names = [KEYS_FILE, BATCHES_FILE] if settings.gateway.store.kind is StoreKind.SQLITE else []
    paths = [*(directory / name for name in names), *sorted(directory.glob("adjustments*.sqlite3"))]
    todo = (
        "put a copy in its place (`sqlite3 FILE .recover` shows what is left); calls may be refused meanwhile"
    )
    return [
        fail("state", f"{path} cannot be read: {trouble}", todo)
        for path in paths
        if path.exists() and (trouble := _trouble_with(path))
    ]


def check_ledger(settings: Settings, clock: Clock) -> list[Finding]:
    """That the books of this machine can be written and their last entries are as they were written; that
    the shared ones answer, and have what was to be shipped."""
    path = settings.gateway.state_path(LEDGER_FILE)
    findings = [*_own_ledger(settings, path)]
    if settings.gateway.ledger.kind is LedgerKind.POSTGRES:
        findings += _shared_ledger(settings, path, clock)
    return findings


def check_prices(settings: Settings, clock: Clock) -> list[Finding]:
    """How old the prices are, and whether the ledger has models that they did not know."""
    age = (datetime.fromtimestamp(clock.now(), UTC).date() - settings.prices.as_of).days
    found = f"prices.yaml is as of {settings.prices.as_of}, {age} days ago"
    findings = [ok("prices", found)]
    if age > OLD_PRICES_DAYS:
        findings = [warn("prices", found, "compare it with the price page, and set as_of")]
    try:
        source = ledger_source(settings.gateway, settings)
        if isinstance(source, Path) and not source.exists():
            return findings
        since_ms = round((clock.now() - RECENT_DAYS * 86_400) * 1000)
        totals = read_totals(source, [Dimension.MODEL], start_ms=since_ms, end_ms=_FOREVER_MS)
    except (ConfigError, StoreUnavailable, sqlite3.Error):
        return findings  # said by the check of the ledger
    strangers = sorted(str(total.group[0]) for total in totals if total.fallback_nanousd)
    if strangers:
        shown = ", ".join(name[:80] for name in strangers[:5]) + (" and more" if strangers[5:] else "")
        findings.append(
            warn(
                "prices",
                f"calls of {len(strangers)} models were booked at the fallback price of late: {shown}",
                "add what is not there yet to prices.yaml",
            )
        )
    return findings


def check_descriptors(settings: Settings, clock: Clock) -> list[Finding]:
    """Whether as many files may be open as capacity asks for, once a gateway has raised its own limit."""
    needed, allowed = descriptors.needed(settings.gateway.capacity), descriptors.allowed_once_raised()
    if allowed < needed:
        return [
            warn(
                "descriptors",
                f"{allowed:,} files may be open here, and capacity asks for {needed:,}",
                "raise the hard limit of the gateway's process (ulimit -Hn, LimitNOFILE), or lower "
                "capacity.connections",
            )
        ]
    return [ok("descriptors", f"{allowed:,} files may be open, {needed:,} are needed at most")]


LOCAL_CHECKS: tuple[Check, ...] = (
    check_secrets,
    check_state,
    check_files,
    check_ledger,
    check_prices,
    check_descriptors,
)


def _uses_of_secrets(settings: Settings) -> Iterator[Callable[[], object]]:
    """What reads each of the secrets that the settings need, and raises where that cannot be."""
    file, environ = settings.gateway, settings.environ
    for name, upstream in file.upstreams.items():
        if upstream.federation is None:
            yield upstream_credential(name, upstream, environ)
        else:
            yield partial(_identity, name, upstream.federation.identity, environ)
    yield partial(admin_token, file, environ)
    yield partial(metrics_token, file, environ)
    if file.store.kind is StoreKind.REDIS:
        yield partial(store_url, file, environ)
    if file.ledger.kind is LedgerKind.POSTGRES:
        yield partial(ledger_url, file, environ)
    made = {path.name for path in _made_here(settings)}  # what is missing would be made by reading it
    if file.ledger.key is not None or LEDGER_KEY_FILE in made:
        yield partial(ledger_key, file, environ)
    if file.prefixes.secret is not None or PREFIX_SECRET_FILE in made:
        yield partial(prefix_secret, file, environ)


def _identity(name: str, reference: SecretRef, environ: Mapping[str, str]) -> None:
    if not is_available(reference, environ):
        raise ConfigError(f"upstreams.{name}.federation.identity ({reference}) cannot be read")


def _made_here(settings: Settings) -> list[Path]:
    """The secrets that the gateway has made by itself."""
    file = settings.gateway
    sources = {LEDGER_KEY_FILE: file.ledger.key, PREFIX_SECRET_FILE: file.prefixes.secret}
    paths = [file.state_path(name) for name, source in sources.items() if source is None]
    return [path for path in paths if path.exists()]


def _for_owner_only(path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        yield warn("secrets", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")


def _trouble_with(path: Path) -> str:
    """Of a file of SQLite; empty where there is none."""
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
        ) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else str(found)


def _own_ledger(settings: Settings, path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield ok("ledger", f"{path} is made at the first start")
        return
    try:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        with reading(path) as ledger:
            version = ledger.version
            last = list(
                ledger.rows(
                    "SELECT received_at_ms FROM entries ORDER BY received_at_ms DESC LIMIT 1 OFFSET ?",
                    (LAST_ENTRIES,),
                )
            )
    except (sqlite3.Error, ConfigError) as error:
        yield fail("ledger", f"{path} cannot be written: {error}", "see to its owner, its disk and its mode")
        return
    if version < CHAINS_SINCE:
        yield ok("ledger", f"{path} is of schema {version}; the gateway takes it over at its start")
        return
    yield _last_entries(settings, path, last[0][0] if last else 0)


def _last_entries(settings: Settings, path: Path, since_ms: int) -> Finding:
    keys = []
    if settings.gateway.ledger.key is not None or settings.gateway.state_path(LEDGER_KEY_FILE).exists():
        try:
            keys.append(ChainKey(ledger_key(settings.gateway, settings.environ)))
        except ConfigError as error:
            return fail(
                "ledger", str(error), "find the key: without it nobody can tell whether the books are whole"
            )
    walk = verify(path, keys, span_ms=(since_ms, _FOREVER_MS))
    if walk.findings:
        return fail(
            "ledger",
            f"{path}: {walk.findings[0].sentence}",
            "gateway ledger verify shows all of it; keep a copy before anything else",
        )
    return ok("ledger", f"{path} can be written; its last {walk.entries:,} entries are as they were written")


def _shared_ledger(settings: Settings, path: Path, clock: Clock) -> Iterator[Finding]:
    from gateway.adapters.ledger_shipping import shipped_up_to

    try:
        source = ledger_source(settings.gateway, settings)
        assert isinstance(source, PostgresUrl)
        from gateway.adapters.postgres_ledger import PostgresLedger  # the driver is an extra

        with reading(source) as ledger:
            version = ledger.version
        if not path.exists():
            yield ok("ledger", f"the shared one answers, with schema {version}")
            return
        with closing(PostgresLedger(source)) as shared:
            reached = shipped_up_to(path, shared)
    except (ConfigError, StoreUnavailable, sqlite3.Error) as error:
        yield fail("ledger", str(error), "entries wait in the state directory until it is mended")
        return
    with reading(path) as own:
        ((waiting, oldest),) = own.rows(
            "SELECT COUNT(*), MIN(received_at_ms) FROM entries WHERE sequence > ?", (reached,)
        )
    seconds = 0.0 if oldest is None else clock.now() - oldest / 1000
    found = f"the shared one answers, with schema {version}; {waiting:,} entries wait to be shipped"
    if waiting and seconds > 300:
        yield warn(
            "ledger",
            f"{found}, the oldest for {seconds / 60:,.0f} minutes",
            "if a gateway runs here, its log says why it does not ship them; otherwise start it",
        )
    else:
        yield ok("ledger", found)
