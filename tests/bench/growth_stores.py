"""Curves of what is beside a call: the table of known prefixes, the ledger, replicas on one Redis.
Each function notes one round."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger_rollup import LedgerRollup
from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.postgres_ledger import SCHEMA_NAME
from gateway.adapters.postgres_ledger_schema import migrate
from tests.bench.growth_bodies import growing
from tests.bench.growth_calls import CALLERS, MICROSECONDS, redis_cpu, redis_settings
from tests.bench.growth_curve import Curves
from tests.bench.growth_whole import QUIET_SECONDS, Whole
from tests.bench.planner_cost import planning
from tests.support.ledgers import KEY, ship, some_records, write
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.year_of_ledger import write_year

ADDED = 3_000
AGENT_BYTES = 120_000
_BLOCKS_A_REQUEST = 70
"""Of what `planning` asks without an entry: as many new prefixes a request, or more."""


def prefixes(curves: Curves, upstream: str, capacities: Sequence[int]) -> None:
    """Tables of so many slots, full: prompts of 100 blocks of which nothing but the head is known."""
    for capacity in capacities:
        x = (float(capacity), "known prefixes")
        _, requests = planning(
            max(3_000, 3 * capacity // _BLOCKS_A_REQUEST), cold=True, claims=False, capacity=capacity
        )
        last = sorted(requests[-1_500:])
        curves.note("prefixes", "planning 100 new blocks", x, (last[len(last) // 2] / 1e3, MICROSECONDS))
        with Whole(upstream, settings={"GATEWAY_PLACEMENT__KNOWN_PREFIXES": str(capacity)}) as whole:
            curves.note("prefixes held", "idle gateway", x, (whole.process.resident_bytes() / 1e6, "MB"))


def ledger(curves: Curves, home: Path, sizes: Sequence[int]) -> None:
    """A year's ledger of so many entries: adding to it, its sums, reports on its last month and all of it."""
    for size in sizes:
        path, x = home / f"ledger-{size}-{time.monotonic_ns()}.sqlite3", (float(size), "entries")
        write_year(path, entries=size)
        curves.note("ledger size", "file", x, (path.stat().st_size / 1e6, "MB"))
        write(path, some_records(1, name="first"), KEY)  # begins the chain, which `write_year` does not
        records = some_records(ADDED, name="added")
        began = time.process_time()
        write(path, records, KEY)
        added = (time.process_time() - began) / ADDED * 1e6
        curves.note("ledger", "adding an entry", x, (added, "µs CPU"))
        for name, more in (("report on a month", ["--month", "2026-11"]), ("report on a year", [])):
            command = [sys.executable, "-m", "gateway", "report", "--ledger", str(path), "--json", *more]
            before = _children_cpu()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            curves.note("report", name, x, (_children_cpu() - before, "s CPU"))
        sums = path.with_name(f"{path.stem}-sums.sqlite3")
        began = time.process_time()
        LedgerRollup(path, sums, SystemClock().now).update()
        curves.note("sums", "made from nothing", x, (time.process_time() - began, "s CPU"))
        curves.note("ledger size", "its sums", x, (sums.stat().st_size / 1e6, "MB"))
        for made in (path, sums):
            made.unlink()


def replicas(curves: Curves, upstream: str, home: Path, counts: Sequence[int], turns: int = 40) -> None:
    """Agents' calls on one of so many replicas that share a Redis: what it, each other one, and Redis pay."""
    for number in counts:
        x = (float(number), "replicas")
        with RedisServer(home / f"replicas-{number}-{time.monotonic_ns()}") as server, ExitStack() as stack:
            settings = redis_settings(server)
            wholes = [stack.enter_context(Whole(upstream, settings=settings)) for _ in range(number)]
            talks = [growing(AGENT_BYTES, turns + 1) for _ in range(CALLERS)]
            wholes[0].send([bodies[:1] for bodies in talks])
            time.sleep(QUIET_SECONDS)
            calls = turns * CALLERS
            others = [whole.process.cpu_seconds() for whole in wholes[1:]]
            own_cpu, commands = redis_cpu(server), _commands(server)
            cost = wholes[0].cpu_of([bodies[1:] for bodies in talks])
            curves.note("replicas", "the replica that is called", x, (cost, MICROSECONDS))
            used = (redis_cpu(server) - own_cpu) / calls * 1e6
            curves.note("replicas", "Redis", x, (used, MICROSECONDS))
            curves.note(
                "operations", "Redis", x, ((_commands(server) - commands) / calls, "commands a request")
            )
            for whole, before in zip(wholes[1:], others, strict=True):
                heard = (whole.process.cpu_seconds() - before) / calls * 1e6
                curves.note("replicas", "each replica that hears of it", x, (heard, MICROSECONDS))


def postgres(curves: Curves, home: Path, sizes: Sequence[int]) -> None:
    """A shared ledger that so many entries were shipped to."""
    for size in sizes:
        x = (float(size), "entries")
        path = home / f"outbox-{size}-{time.monotonic_ns()}.sqlite3"
        write(path, some_records(size))
        with PostgresServer() as server:
            source = PostgresUrl(server.database())
            migrate(source)
            with psycopg.connect(source.url, autocommit=True) as connection:
                began, wal = time.process_time(), _wal_bytes(connection)
                ship(path, source)
                shipped = (time.process_time() - began) / size * 1e6
                curves.note("shipping", "an entry, the replica", x, (shipped, "µs CPU"))
                kept = connection.execute(_KEPT, (SCHEMA_NAME,)).fetchone()
                assert kept is not None
                curves.note("postgres", "tables and indexes", x, (float(kept[0]) / 1e6, "MB"))
                curves.note("postgres", "WAL", x, ((_wal_bytes(connection) - wal) / 1e6, "MB"))
        path.unlink()


_KEPT = """
SELECT sum(pg_total_relation_size(pg_class.oid)) FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %s AND relkind IN ('r', 'm')
"""


def _wal_bytes(connection: psycopg.Connection[tuple[object, ...]]) -> float:
    row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return float(str(row[0]))


def _commands(server: RedisServer) -> int:
    """Those of clients so far."""
    for line in server.command("INFO", "stats").decode().split("\r\n"):
        if line.startswith("total_commands_processed:"):
            return int(line.partition(":")[2])
    raise RuntimeError("Redis does not say how many commands it has run")


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
