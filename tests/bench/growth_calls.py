"""Curves of a call's CPU and of a replica's memory, the whole gateway measured as a process: by body, blocks,
limits, workspaces, open streams, events. Each function notes one round."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.growth_bodies import growing, in_blocks, longer_in_blocks, new_bodies
from tests.bench.growth_curve import Curves
from tests.bench.growth_whole import Whole
from tests.bench.loads import Bench, Target, Workload
from tests.bench.processes import Measured
from tests.support.bodies import dump, single
from tests.support.redis_server import RedisServer

CALLERS = 8
BYTES_A_POINT = 120_000_000
"""Bodies of one point together: they are made before anything is measured."""
MICROSECONDS = "µs CPU a request"
_SMALL = dump(single("x" * 800))


def body_size(curves: Curves, upstream: str, sizes: Sequence[int]) -> None:
    """One gateway for all sizes, the smallest first."""
    with Whole(upstream) as whole:
        whole.send([[_SMALL] * 50] * CALLERS)
        for size in sizes:
            callers = CALLERS if size < 4_000_000 else 4  # so that all conversations find room in memory
            turns = _count(size, callers)
            fresh = [new_bodies(size, turns) for _ in range(callers)]
            curves.note("body", "new to the gateway", _kilobytes(size), (whole.cpu_of(fresh), MICROSECONDS))
            del fresh
            grown = [growing(size, turns + 1) for _ in range(callers)]
            whole.send([bodies[:1] for bodies in grown])
            cost = whole.cpu_of([bodies[1:] for bodies in grown])
            curves.note("body", "a conversation's next turn", _kilobytes(size), (cost, MICROSECONDS))
            del grown
            gc.collect()


def blocks(curves: Curves, upstream: str, counts: Sequence[int], size: int = 1_000_000) -> None:
    """Bodies of one size, in fewer and more blocks."""
    with Whole(upstream) as whole:
        whole.send([[_SMALL] * 50] * CALLERS)
        turns = _count(size, CALLERS)
        for number in counts:
            x = (float(number), "blocks")
            fresh = [in_blocks(size, number, turns) for _ in range(CALLERS)]
            curves.note("blocks", "new to the gateway", x, (whole.cpu_of(fresh), MICROSECONDS))
            del fresh
            grown = [longer_in_blocks(size, number, turns + 1) for _ in range(CALLERS)]
            whole.send([bodies[:1] for bodies in grown])
            cost = whole.cpu_of([bodies[1:] for bodies in grown])
            curves.note("blocks", "a conversation's next turn", x, (cost, MICROSECONDS))


def limits(curves: Curves, upstream: str, counts: Sequence[int], home: Path, calls: int = 100) -> None:
    """Small bodies that so many limits bind, with SQLite and with Redis."""
    for number in counts:
        x = (float(number), "limits")
        with Whole(upstream, limits=_limits(number)) as whole:
            whole.send([[_SMALL] * 50] * CALLERS)
            curves.note("limits", "SQLite", x, (whole.cpu_of([[_SMALL] * calls] * CALLERS), MICROSECONDS))
        with RedisServer(home / f"limits-{number}-{time.monotonic_ns()}") as server:
            settings = redis_settings(server)
            with Whole(upstream, limits=_limits(number), settings=settings) as whole:
                whole.send([[_SMALL] * 50] * CALLERS)
                before = redis_cpu(server)
                cost = whole.cpu_of([[_SMALL] * calls] * CALLERS)
                used = (redis_cpu(server) - before) / (calls * CALLERS) * 1e6
                curves.note("limits", "Redis: the gateway", x, (cost, MICROSECONDS))
                curves.note("limits", "Redis: its own", x, (used, MICROSECONDS))


def workspaces(curves: Curves, upstream: str, counts: Sequence[int], idle_seconds: float) -> None:
    """So many workspaces with a key each, all of which call; then nobody does."""
    with ExitStack() as stack:
        running: list[tuple[int, Whole]] = []
        for number in counts:
            whole = stack.enter_context(Whole(upstream, keys=number))
            x = (float(number), "workspaces")
            curves.note("start", "to ready", x, (whole.process.cpu_seconds(), "s CPU"))
            running.append((number, whole))
            each = max(1, number // CALLERS)
            whole.send([[_SMALL] * max(50, each)] * CALLERS, whole.keys)
            rest = [[_SMALL] * max(100, each)] * CALLERS
            curves.note("workspaces", "keys in turn", x, (whole.cpu_of(rest, whole.keys), MICROSECONDS))
            rest = [[_SMALL] * 100] * CALLERS
            curves.note("workspaces", "one key", x, (whole.cpu_of(rest), MICROSECONDS))
            curves.note("held", "PSS", x, (whole.process.resident_bytes() / 1e6, "MB"))
        before = [whole.process.cpu_seconds() for _, whole in running]
        time.sleep(idle_seconds)
        for (number, whole), cpu in zip(running, before, strict=True):
            idle = (whole.process.cpu_seconds() - cpu) / idle_seconds * 1e3
            curves.note("idle", "no calls", (float(number), "workspaces"), (idle, "ms CPU a second"))
        for number, whole in running:
            x = (float(number), "workspaces")
            before_pages = whole.process.cpu_seconds()
            pages = [whole.metrics_page() for _ in range(3)]
            took = (whole.process.cpu_seconds() - before_pages) / len(pages) * 1e3
            curves.note("page", "making the page", x, (took, "ms CPU"))
            series = sum(not line.startswith(b"#") for line in pages[-1].splitlines())
            curves.note("series", "on the page", x, (float(series), "series"))
            curves.note("page size", "text", x, (len(pages[-1]) / 1e3, "kB"))


def streams(curves: Curves, upstream: str, bench: Bench, counts: Sequence[int]) -> None:
    """Memory with so many streams open at once, agents' requests sent; the caches of bodies are off, as they
    are bounded by settings of their own."""
    caches_off = {"GATEWAY_PLACEMENT__RECENT_BODIES": "0B", "GATEWAY_WARMING__KEEP_ALIVE": "false"}
    for number in counts:
        with Whole(upstream, settings=caches_off) as whole:
            target = _target(whole)
            bench.run(target, Workload(name="warm", unit="", body="agent", requests=400))
            idle = whole.process.resident_bytes()
            lasting = f"?events={2 * (_OPEN_SECONDS + number // 100)}&gap_us=500000"
            load = Workload(
                name="open",
                unit="",
                body="agent",
                query=lasting,
                connections=number,
                requests=number,
            )
            calling = threading.Thread(target=bench.run, args=(target, load))
            calling.start()
            while whole.gauge("gateway_open_streams") < number and calling.is_alive():
                time.sleep(0.5)
            time.sleep(7.0)  # what their bodies took has been given back
            grown = whole.process.resident_bytes() - idle
            if whole.gauge("gateway_open_streams") == number:  # else they ended too early: a busy machine
                x = (float(number), "open streams")
                curves.note("streams", "memory beyond idle", x, (grown / 1e6, "MB"))
            calling.join()


_OPEN_SECONDS = 22
"""How long a stream lasts at least: until all are open, and memory has been measured."""


def events(curves: Curves, upstream: str, bench: Bench, rates: Sequence[int], streams: int = 200) -> None:
    """CPU of an event at so many a second over all streams: a long run less a short one."""
    with Whole(upstream) as whole:
        target = _target(whole)
        for rate in rates:
            gap = 1_000_000 * streams // rate
            costs, carried = [], []
            for seconds in (1.5, 5.0):
                number = max(2, round(seconds * rate / streams))
                query = f"?events={number}&gap_us={gap}"
                load = Workload(
                    name="event", unit="", body="agent", query=query, connections=streams, requests=streams
                )
                report, cpu = bench.run(target, load)
                costs.append(cpu)
                carried.append(number * streams)
                lag = report["lag_p99_us"]
            cost = (costs[1] - costs[0]) / (carried[1] - carried[0]) * 1e6
            x = (float(rate), "events a second")
            curves.note("events", "CPU an event", x, (cost, "µs CPU an event"))
            curves.note("lag", "p99", x, (lag / 1e3, "ms"))


def redis_settings(server: RedisServer) -> dict[str, str]:
    """Of replicas that share one Redis."""
    return {
        "GATEWAY_STORE__KIND": "redis",
        "REDIS_URL": server.url,
        "PREFIX_SECRET": "a-secret-of-the-bench-with-32-bytes",
        "GATEWAY_PREFIXES__SECRET": "{env: PREFIX_SECRET}",
    }


def redis_cpu(server: RedisServer) -> float:
    """CPU seconds of the server so far."""
    lines = server.command("INFO", "cpu").decode().split("\r\n")
    parts = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(parts["used_cpu_sys"]) + float(parts["used_cpu_user"])


def _target(whole: Whole) -> Target:
    process: Measured = whole.process
    return Target("gateway", whole.port, process)


def _count(size: int, callers: int) -> int:
    """Requests of each caller at one point."""
    return max(4, min(100, BYTES_A_POINT // size // callers))


def _kilobytes(size: int) -> tuple[float, str]:
    return size / 1e3, "kB"


def _limits(number: int) -> str:
    lines = [
        f"  - {{id: l{n}, scope: {_SCOPES[n % 3]}, {_KINDS[n % 4]}, comment: bench}}" for n in range(number)
    ]
    return "defaults:\n" + "\n".join(lines) + "\n" if lines else "{}\n"


_SCOPES = ("key", "workspace", "organisation")
_KINDS = (
    "unit: requests, amount: 900M, per: minute",
    "unit: usd, amount: $9000000, per: month",
    "unit: output_tokens, amount: 900000M, per: minute",
    "unit: input_tokens, amount: 900000M, per: day",
)
