"""What planning costs: CPU of a request of 100 blocks, memory of a known prefix. Run it; it prints a table.

    python -m tests.bench.planner_cost [--requests N]

Steady traffic is conversations that grow by three blocks a turn from 85 to 115 blocks, on a shared prefix of
tools and system, two thousand at a time. Cold traffic is the same without anything that was seen before but
tools and system. `request` is everything that belongs to one: deciding, learning, settling. Timed with the
process's own CPU clock.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator

from gateway.core.learned import LearnedPolicy
from gateway.core.news import Answered, Billed, News, Sent, decode, encode, pack_keys
from gateway.core.planner import Kind, Planner, PlannerOptions, Prices, Question, Reported
from gateway.core.planner.index import table_bytes
from gateway.core.planner.reuse import BYTES

SESSIONS = 2_000
SHARED_BLOCKS = 25
FIRST_BLOCKS = 85
LAST_BLOCKS = 115
BLOCKS_A_TURN = 3
TOKENS_A_BLOCK = 400
SECONDS_BETWEEN = 0.01
MILLION = 1_000_000
MULTIPLIER, BITS_64 = 0x9E3779B97F4A7C15, (1 << 64) - 1
ROOMY, FULL = 1 << 22, 1 << 18
"""Capacities: of a table in which all finds room, and of one in which what is new replaces what is old."""


def questions(count: int, *, cold: bool = False) -> Iterator[Question]:
    """Requests of interleaved conversations; cold ones are each of another."""
    kinds = bytes([Kind.TOOLS] * 20 + [Kind.SYSTEM] * 5 + [Kind.USER, Kind.ASSISTANT, Kind.USER] * 30)
    turns = (LAST_BLOCKS - FIRST_BLOCKS) // BLOCKS_A_TURN
    for number in range(count):
        session = number % SESSIONS
        lap, turn = divmod(number // SESSIONS, turns)
        length = FIRST_BLOCKS + BLOCKS_A_TURN * turn
        owner = 1 + (number if cold else session + SESSIONS * lap)
        keys = [_key(0 if block < SHARED_BLOCKS else owner, block) for block in range(length)]
        ends = [TOKENS_A_BLOCK * (block + 1) for block in range(length)]
        yield Question(number, 1, 1, keys, ends, kinds[:length], Prices())


def planning(count: int, *, cold: bool, claims: bool, capacity: int = ROOMY) -> tuple[list[int], list[int]]:
    """Nanoseconds of `plan`, and of whole requests. There are always seconds left to be spent on holding."""
    planner = Planner(PlannerOptions(capacity=capacity, hold_opening_seconds=1e9))
    plans, requests = [], []
    gc.collect()
    for question in questions(count, cold=cold):
        now = 1_000.0 + question.id * SECONDS_BETWEEN
        began = time.process_time_ns()
        decision = planner.plan(question, now, may_wait=False, may_claim=claims)
        if decision.claims:
            decision = planner.plan(question, now, may_wait=False)
        planned = time.process_time_ns()
        written = decision.write_5m_tokens + decision.write_1h_tokens
        usage = Reported(
            question.ends[-1] - decision.read_tokens - written,
            decision.read_tokens,
            decision.write_5m_tokens,
            decision.write_1h_tokens,
        )
        first_byte = 0.6 + usage.total / 15_000 + usage.read * (1 / 150_000 - 1 / 15_000)
        planner.billed(question.id, usage, now + first_byte)
        planner.woken(now)
        plans.append(planned - began)
        requests.append(time.process_time_ns() - began)
    return plans, requests


def hearing(count: int) -> tuple[list[int], list[int]]:
    """Nanoseconds of `hear` for all news of another replica's call, without and with decoding them."""
    policy = LearnedPolicy(PlannerOptions(capacity=ROOMY))
    heard, with_decoding = [], []
    gc.collect()
    for question in questions(count):
        now = 1_000.0 + question.id * SECONDS_BETWEEN
        items = [encode(news) for news in _news_of(question)]
        began = time.process_time_ns()
        told = [decode(item) for item in items]
        decoded = time.process_time_ns()
        for news in told:
            policy.hear("other", news, now)
        ended = time.process_time_ns()
        heard.append(ended - decoded)
        with_decoding.append(ended - began)
    return heard, with_decoding


def memory_of_a_million() -> tuple[float, float, float]:
    """Bytes stated, bytes measured, and the share still known of a million prefixes in a table for them."""
    options = PlannerOptions(capacity=MILLION * 4 // 3)
    gc.collect()
    tracemalloc.start()
    planner = Planner(options)
    keys = [_key(7, number) for number in range(MILLION)]
    before = tracemalloc.get_traced_memory()[0]
    for key in keys:
        planner.table.add(key, 1.0)
    grown = tracemalloc.get_traced_memory()[0] - before
    del keys
    gc.collect()
    measured = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return table_bytes(options.capacity) + BYTES, max(measured, grown), planner.table.used / MILLION


def memory_beyond_tables(count: int) -> float:
    """Bytes a request that remain after it: open observations, accounts, what is kept for warm-ups."""
    planner = Planner()
    for question in questions(count // 2):
        planner.plan(question, 1_000.0, may_wait=False)
        planner.billed(question.id, None, 1_000.0)
    gc.collect()
    tracemalloc.start()
    for question in questions(count // 2, cold=True):
        planner.plan(question, 1_001.0, may_wait=False)
        planner.billed(question.id, None, 1_001.0)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return grown / (count // 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    count = parser.parse_args().requests
    print(f"commit {_commit()}; CPython {platform.python_version()}, {os.cpu_count()} cores; ", end="")
    print(f"{count:,} requests a row, {FIRST_BLOCKS} to {LAST_BLOCKS} blocks, one process")
    print(f"{'CPU us':42}{'mean':>8}{'p50':>8}{'p99':>8}")
    rows: list[tuple[str, Callable[[], tuple[list[int], list[int]]]]] = [
        ("steady", lambda: planning(count, cold=False, claims=False)),
        ("steady, claims asked for", lambda: planning(count, cold=False, claims=True)),
        ("cold", lambda: planning(count, cold=True, claims=False)),
        ("cold, claimed and asked again", lambda: planning(count, cold=True, claims=True)),
        ("cold, table full", lambda: planning(count, cold=True, claims=False, capacity=FULL)),
    ]
    for name, measure in rows:
        plans, requests = measure()
        _print_row(f"{name}: plan", plans)
        _print_row(f"{name}: request", requests)
    heard, with_decoding = hearing(count)
    _print_row("another replica's call: hear", heard)
    _print_row("  and decode", with_decoding)
    stated, measured, known = memory_of_a_million()
    print(
        f"\nmemory: a million prefixes {stated / 1e6:.0f} MB stated, {measured / 1e6:.0f} MB measured, ",
        end="",
    )
    print(f"{stated / MILLION:.0f} bytes each, {known:.1%} kept; taken at the start")
    print(f"beyond the tables {memory_beyond_tables(count) / 1e3:.2f} kB a recent request, bounded")


def _news_of(question: Question) -> list[News]:
    call, last = str(question.id), len(question.keys) - 1
    prices = question.prices
    total = question.ends[-1]
    sent = Sent(
        call=call,
        at=0.0,
        workspace="w",
        model="m",
        scope=1,
        keys=pack_keys(question.keys),
        ends=tuple(question.ends),
        kinds=question.kinds,
        marks=((SHARED_BLOCKS - 1, False), (last, False)),
        prices=(prices.read, prices.write_5m, prices.write_1h, prices.minimum_tokens),
    )
    return [sent, Answered(call, 0.0), Billed(call, 0.0, 0, total - 1_200, 1_200, 0, 50)]


def _print_row(name: str, taken: list[int]) -> None:
    taken.sort()
    mean, middle, slow = sum(taken) / len(taken), taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(f"{name:42}{mean / 1e3:8.0f}{middle / 1e3:8.0f}{slow / 1e3:8.0f}")


def _commit() -> str:
    """As git describes it, or unknown."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _key(owner: int, block: int) -> int:
    value = ((owner + 1) * 1_000_003 + block) * MULTIPLIER & BITS_64
    return (value ^ (value >> 31)) * MULTIPLIER & BITS_64 or 1


if __name__ == "__main__":
    main()
