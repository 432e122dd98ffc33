"""Checks of `gateway doctor` on what is reached from this machine: the store, upstreams and their clock, and
the addresses on which the gateway listens."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import closing
from email.utils import parsedate_to_datetime

import aiohttp

from gateway.adapters.redis_look import RedisLook, look_at_redis
from gateway.adapters.unreached import unreached
from gateway.cli.doctor_local import Check
from gateway.cli.findings import Finding, fail, ok, warn
from gateway.cli.healthcheck import ask
from gateway.core.errors import CredentialUnavailable, StoreUnavailable
from gateway.liveness import admin_url
from gateway.planes import split_address
from gateway.ports import Clock
from gateway.settings import Settings, store_url
from gateway.settings.gateway import BUDGETS_FILE, StoreKind, Upstream
from gateway.settings.secrets import upstream_credential

OLDEST_VERSIONS = {"redis": (6, 2), "valkey": (7, 2)}
SLOW_SECONDS = 0.02
CLOCK_SECONDS, WRONG_CLOCK_SECONDS = 2.0, 60.0
"""From where on a difference of clocks is doubtful, and wrong: budgets and prices go by the clock."""
PATIENCE_SECONDS = 10.0
PROBE_SECONDS = 3.0
API_VERSION = "2023-06-01"
_NTP = "let the machine's clock be set by NTP"


def check_store(settings: Settings, clock: Clock) -> list[Finding]:
    """That budgets can be kept where they are to be."""
    match settings.gateway.store.kind:
        case StoreKind.REDIS:
            return _redis(settings, clock)
        case StoreKind.SQLITE:
            return [_sqlite(settings)]
        case StoreKind.MEMORY:
            return [warn("store", "budgets are kept in memory, and forgotten at exit", "use sqlite or redis")]


def check_ports(settings: Settings, clock: Clock) -> list[Finding]:
    """That the gateway answers and is ready; or, where nothing answers, that its addresses are free."""
    listen = settings.gateway.listen
    url = admin_url(listen.admin)
    ready, sentence = ask(url, "/readyz", PROBE_SECONDS)
    if ready:
        return [ok("ports", sentence)]
    if "answers with status" in sentence:
        return [
            fail("ports", sentence, "a gateway that is not ready gets no traffic; its log says why, and who "
                 "else may listen there")
        ]  # fmt: skip
    taken = [address for address in (listen.data, listen.admin) if not _is_free(address)]
    return [
        fail(
            "ports",
            f"{address} cannot be listened on, and no gateway answers",
            "see who has it, or change listen",
        )
        for address in taken
    ] or [ok("ports", f"no gateway runs here; {listen.data} and {listen.admin} are free")]


def check_upstreams(settings: Settings, clock: Clock) -> list[Finding]:
    """That each upstream is reached and takes its credential, asked for its models, which is free; and how
    our clock stands to its."""
    return asyncio.run(_upstreams(settings, clock))


REMOTE_CHECKS: tuple[Check, ...] = (check_store, check_ports)


def _redis(settings: Settings, clock: Clock) -> list[Finding]:
    try:
        url = store_url(settings.gateway, settings.environ)
        look = asyncio.run(look_at_redis(url, settings.gateway.store.prefix, clock))
    except StoreUnavailable as error:
        todo = "see that it runs, that its address is right, and that it takes the login of store.url"
        return [fail("store", f"it cannot be used: {error}", todo)]
    except ValueError as error:
        return [fail("store", f"store.url cannot be read: {error}", "write it as redis://host:6379/0")]
    version = ".".join(map(str, look.version))
    found = f"{look.server} {version} answers in {look.latency_seconds * 1000:.1f} ms"
    findings = [ok("store", found)]
    if look.latency_seconds > SLOW_SECONDS:
        findings = [warn("store", found, "every call waits for it once: put it nearer")]
    oldest = OLDEST_VERSIONS[look.server]
    if look.version < oldest:
        needed = ".".join(map(str, oldest))
        findings.append(fail("store", f"{look.server} {version} is too old", f"use {needed} or newer"))
    return [*findings, *_redis_settings(look), *_clock(look.ahead_seconds, "the store")]


def _redis_settings(look: RedisLook) -> list[Finding]:
    findings = []
    if look.eviction != "noeviction":
        found = f"maxmemory-policy is {look.eviction}"
        todo = (
            "CONFIG SET maxmemory-policy noeviction, and in its configuration: an evicted budget is forgotten"
        )
        findings.append(fail("store", found, todo) if look.bounded else warn("store", found, todo))
    if not look.append_only:
        findings.append(
            warn(
                "store",
                "it keeps no append-only file",
                "appendonly yes: what a restart forgets has to be rebuilt from the ledgers",
            )
        )
    return findings


def _sqlite(settings: Settings) -> Finding:
    path = settings.gateway.state_path(BUDGETS_FILE)
    if not path.exists():
        return ok("store", f"{path} is made at the first start")
    try:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return fail("store", f"{path} cannot be written: {error}", "see to its owner, its disk and its mode")
    if found != "ok":
        return fail(
            "store", f"{path} is damaged: {found}", "put a backup in its place while the gateway is stopped"
        )
    return ok("store", f"{path} can be written and is whole")


def _is_free(address: str) -> bool:
    host, port = split_address(address)
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in places:
            with closing(socket.socket(family, kind, protocol)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen(1)
    except OSError:
        return False
    return True


async def _upstreams(settings: Settings, clock: Clock) -> list[Finding]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    findings = []
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for name, upstream in settings.gateway.upstreams.items():
            findings += await _upstream(session, name, upstream, settings, clock)
    return findings


async def _upstream(
    session: aiohttp.ClientSession, name: str, upstream: Upstream, settings: Settings, clock: Clock
) -> list[Finding]:
    check = f"upstream {name}"
    federated = upstream.federation is not None
    try:
        lines = () if federated else upstream_credential(name, upstream, settings.environ)()
    except CredentialUnavailable:
        return []  # said by the check of the secrets
    headers = {key.decode(): value.decode() for key, value in lines} | {"anthropic-version": API_VERSION}
    url = f"{upstream.base_url}/v1/models?limit=1"
    before = clock.now()
    try:
        async with session.get(url, headers=headers, proxy=upstream.proxy, allow_redirects=False) as answer:
            status, date = answer.status, answer.headers.get("date", "")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        todo = "see to name resolution, the firewall, and upstreams.*.proxy"
        return [fail(check, f"{upstream.base_url} is not reached: {unreached(error)}", todo)]
    middle = (before + clock.now()) / 2
    findings = [_judged(check, upstream, status)]
    if federated:  # a token is not got here: that would be seen at the provider as a sign-in
        findings = [ok(check, f"{upstream.base_url} is reached; its federated identity is not tried")]
    try:
        # A Date header has whole seconds: it is half a second behind on average.
        ahead = parsedate_to_datetime(date).timestamp() + 0.5 - middle
    except (TypeError, ValueError):
        return findings
    return [*findings, *_clock(ahead, check)]


def _judged(check: str, upstream: Upstream, status: int) -> Finding:
    place = upstream.base_url
    if status == 200:
        return ok(check, f"{place} takes the credential ({upstream.credential})")
    if status in (401, 403):
        return fail(
            check,
            f"{place} refuses the credential ({upstream.credential}) with status {status}",
            "see that it is of that API, not revoked, and sent as upstreams.*.header says",
        )
    return warn(
        check,
        f"{place} answers the list of models with status {status}",
        "ask again later; a proxy that serves messages only may answer so for good",
    )


def _clock(ahead_seconds: float, of: str) -> list[Finding]:
    """How our clock stands to another; that of `of` is ahead by so much."""
    apart = abs(ahead_seconds)
    where = "behind" if ahead_seconds > 0 else "ahead of"
    if apart < CLOCK_SECONDS:
        return [ok("clock", f"this machine's is that of {of}, within {CLOCK_SECONDS:.0f} s")]
    found = f"this machine's is {apart:,.0f} s {where} that of {of}"
    return [(fail if apart >= WRONG_CLOCK_SECONDS else warn)("clock", found, _NTP)]
