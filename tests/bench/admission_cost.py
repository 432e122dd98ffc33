"""What one admission costs: CPU and latency of reserve + settle on four limits, for each store; of reserve
alone in Redis on one, four and twelve; and what one, two and three processes manage together on one store.

    python -m tests.bench.admission_cost [--pairs 3000]

CPU is this process's (both threads of SQLite), per pair; for Redis the server's CPU stands beside it.
"Alone": one pair after the other; "crowd": 64 callers at once, as under load. "sqlite full" waits for the
disk at each commit, as `synchronous: full` does. Processes have 16 callers each. The event loop is uvloop, as
in service.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import uvloop

from gateway.adapters.clock import SystemClock
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.core.bucket import Amounts, Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.principal import Principal
from gateway.ports import BudgetStore
from tests.support.budgets import rid
from tests.support.redis_server import RedisServer

HUGE = 10**15
WORKER_CALLERS = 16
AWAY = "away"
"""In place of seconds: the store gave no answer in time."""
LIMITS = Limits(
    (
        Limit(
            id="org-month",
            scope=Scope.ORGANISATION,
            unit=Unit.NANOUSD,
            amount=HUGE,
            period=Period.CALENDAR_MONTH,
        ),
        Limit(id="ws-day", scope=Scope.WORKSPACE, unit=Unit.NANOUSD, amount=HUGE, period=Period.CALENDAR_DAY),
        Limit(id="key-tokens", scope=Scope.KEY, unit=Unit.INPUT_TOKENS, amount=HUGE, period=Period.MINUTE),
        Limit(id="key-requests", scope=Scope.KEY, unit=Unit.REQUESTS, amount=HUGE, period=Period.MINUTE),
    )
)
ASKED = Amounts(
    requests=1,
    input_tokens=20_000,
    output_tokens=4_000,
    nanousd=160_000_000,
    prompt_tokens=20_000,
    concurrent=1,
)
ACTUAL = Amounts(requests=1, input_tokens=18_345, output_tokens=812, nanousd=71_234_000)


async def one_pair(store: BudgetStore, name: str) -> None:
    who = Principal(workspace=WorkspaceId("w1"), key_id=KeyId("k1"), key_name="k1")
    limits = LIMITS.binding(who, "claude-model")
    decision = await store.reserve(Reservation(id=rid(name), limits=limits, amounts=ASKED, lease_seconds=300))
    assert decision.allowed
    await store.settle(rid(name), ACTUAL)


async def measure(label: str, store: BudgetStore, pairs: int, server: RedisServer | None = None) -> None:
    for i in range(200):
        await one_pair(store, f"{label}-warm-{i}")
    for crowd in (1, 64):
        latencies: list[float] = []

        async def caller(number: int, crowd: int = crowd, latencies: list[float] = latencies) -> None:
            for i in range(pairs // crowd):
                begun = time.perf_counter()
                await one_pair(store, f"{label}-{crowd}-{number}-{i}")
                latencies.append(time.perf_counter() - begun)

        cpu, wall, redis_cpu = time.process_time(), time.perf_counter(), server_cpu(server)
        await asyncio.gather(*(caller(n) for n in range(crowd)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        redis_cpu = server_cpu(server) - redis_cpu
        latencies.sort()
        done = len(latencies)
        print(
            f"{label:14} {'alone' if crowd == 1 else 'crowd':6} "
            f"cpu {cpu / done * 1e6:6.0f} us  p50 {latencies[done // 2] * 1e6:7.0f} us  "
            f"p99 {latencies[done * 99 // 100] * 1e6:7.0f} us  {done / wall:7.0f} pairs/s"
            + (f"  redis cpu {redis_cpu / done * 1e6:4.0f} us" if server else "")
        )


async def measure_by_limits(store: BudgetStore, server: RedisServer, rounds: int = 1500) -> None:
    """One caller; the least of five runs. Every fourth limit is of concurrent requests."""
    who = Principal(workspace=WorkspaceId("w1"), key_id=KeyId("k1"), key_name="k1")
    at_once = Limit(id="at-once", scope=Scope.KEY, unit=Unit.CONCURRENT, amount=HUGE, period=Period.OPEN)
    kinds = (*LIMITS.all[1:], at_once)
    for count in (1, 4, 12):
        limits = Limits(tuple(replace(kinds[i % 4], id=f"l{i}") for i in range(count))).binding(who, "m")
        runs = []
        for run in range(5):
            cpu, wall, redis_cpu = time.process_time(), time.perf_counter(), server_cpu(server)
            for i in range(rounds):
                asked = Reservation(
                    id=rid(f"{count}-{run}-{i}"), limits=limits, amounts=ASKED, lease_seconds=300
                )
                assert (await store.reserve(asked)).allowed
            ends = time.process_time(), time.perf_counter(), server_cpu(server)
            begins = cpu, wall, redis_cpu
            runs.append(tuple((end - begin) / rounds * 1e6 for begin, end in zip(begins, ends, strict=True)))
        least = tuple(map(min, zip(*runs, strict=True)))
        print(
            f"redis, reserve on {count:2} limits  cpu {least[0]:4.0f} us  round trip {least[1]:4.0f} us  "
            f"redis cpu {least[2]:4.0f} us"
        )


async def measure_by_processes(label: str, where: str, pairs: int, server: RedisServer | None = None) -> None:
    """All spend from the same buckets. They begin when all are connected."""
    for count in (1, 2, 3):
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.admission_cost", "--pairs", str(pairs // count)),
                *("--worker", where, "--name", f"{label}-{count}-{number}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for number in range(count)
        ]
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        redis_cpu, wall = server_cpu(server), time.perf_counter()
        answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        wall, redis_cpu = time.perf_counter() - wall, server_cpu(server) - redis_cpu
        assert not any(process.returncode for process in processes)
        lines = [line for out, _ in answers for line in out.decode().split()]
        latencies = sorted(float(line) for line in lines if line != AWAY)
        done = len(latencies)
        print(
            f"{label:12} {count} processes  p50 {latencies[done // 2] * 1e6:7.0f} us  "
            f"p99 {latencies[done * 99 // 100] * 1e6:7.0f} us  {done / wall:7.0f} pairs/s together"
            + (f"  redis cpu {redis_cpu / done * 1e6:4.0f} us" if server else "")
            + (f"  {lines.count(AWAY)} in vain" if AWAY in lines else "")
        )


async def work(where: str, name: str, pairs: int) -> None:
    """One of the processes: says that it is there, waits for a line, prints each pair's seconds."""
    clock = SystemClock()
    store: BudgetStore
    if where.startswith("redis:"):
        store = await RedisBudgets(where, clock).open()
    else:
        store = await SqliteBudgets(Path(where), clock, "full").open()
    await one_pair(store, f"{name}-warm")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    lines: list[str] = []

    async def caller(number: int) -> None:
        for i in range(pairs // WORKER_CALLERS):
            begun = time.perf_counter()
            try:
                await one_pair(store, f"{name}-{number}-{i}")
                lines.append(repr(time.perf_counter() - begun))
            except StoreUnavailable:
                lines.append(AWAY)

    await asyncio.gather(*(caller(number) for number in range(WORKER_CALLERS)))
    await store.close()
    print("\n".join(lines))


def server_cpu(server: RedisServer | None) -> float:
    if server is None:
        return 0.0
    info = server.command("INFO", "cpu").decode()
    return sum(
        float(line.partition(":")[2])
        for line in info.split("\r\n")
        if line.startswith(("used_cpu_sys:", "used_cpu_user:"))
    )


async def main(pairs: int) -> None:
    clock = SystemClock()
    print(f"{platform.python_version()}, {os.cpu_count()} cores, {len(LIMITS.all)} limits, reserve + settle")
    with tempfile.TemporaryDirectory() as directory:
        await measure("memory", MemoryBudgets(clock), pairs)
        for synchronous in ("normal", "full"):
            path = Path(directory) / f"{synchronous}.db"
            sqlite = await SqliteBudgets(path, clock, synchronous).open()
            await measure(f"sqlite {synchronous}", sqlite, pairs)
            await sqlite.close()
        with RedisServer(Path(directory) / "redis") as server:
            redis = await RedisBudgets(server.url, clock).open()
            await measure("redis", redis, pairs, server)
            await measure_by_limits(redis, server)
            await redis.close()
            await measure_by_processes("redis", server.url, pairs, server)
        await measure_by_processes("sqlite full", str(Path(directory) / "shared.db"), pairs)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pairs", type=int, default=3000)
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    arguments.add_argument("--name", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.worker:
        uvloop.run(work(chosen.worker, chosen.name, chosen.pairs))
    else:
        uvloop.run(main(chosen.pairs))
