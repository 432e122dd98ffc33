"""What planning costs: CPU per request of 100 blocks, memory per known prefix. Run it; it prints a table.

    python -m tests.bench.planner_cost [--requests N]

The workload is conversations that grow by three blocks a turn from 85 to 115 blocks, on a shared prefix of
tools and system, two thousand at a time, with everything that belongs to a request: deciding, learning and
settling. Timed with the process's own CPU clock.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Iterator

from gateway.core.planner import Kind, Planner, PlannerOptions, Prices, Question, Reported
from gateway.core.planner.planner import total_bytes

SESSIONS = 2_000
SHARED_BLOCKS = 25
FIRST_BLOCKS = 85
LAST_BLOCKS = 115
BLOCKS_A_TURN = 3
TOKENS_A_BLOCK = 400
SECONDS_BETWEEN = 0.01
MILLION = 1_000_000
MULTIPLIER, BITS_64 = 0x9E3779B97F4A7C15, (1 << 64) - 1


def questions(count: int) -> Iterator[Question]:
    """Requests of interleaved conversations."""
    kinds = bytes([Kind.TOOLS] * 20 + [Kind.SYSTEM] * 5 + [Kind.USER, Kind.ASSISTANT, Kind.USER] * 30)
    turns = (LAST_BLOCKS - FIRST_BLOCKS) // BLOCKS_A_TURN
    for number in range(count):
        session = number % SESSIONS
        lap, turn = divmod(number // SESSIONS, turns)
        length = FIRST_BLOCKS + BLOCKS_A_TURN * turn
        owner = 1 + session + SESSIONS * lap
        keys = [_key(0 if block < SHARED_BLOCKS else owner, block) for block in range(length)]
        ends = [TOKENS_A_BLOCK * (block + 1) for block in range(length)]
        yield Question(number, 1, keys, ends, kinds[:length], Prices())


def cpu_per_request(count: int) -> tuple[float, float, float]:
    """Microseconds a request, amortised; the slowest hundredth's; blocks a request."""
    planner = Planner()
    taken, blocks = [], 0
    gc.collect()
    for question in questions(count):
        now = 1_000.0 + question.id * SECONDS_BETWEEN
        began = time.process_time_ns()
        decision = planner.plan(question, now, may_wait=False)
        written = decision.write_5m_tokens + decision.write_1h_tokens
        usage = Reported(
            question.ends[-1] - decision.read_tokens - written,
            decision.read_tokens,
            decision.write_5m_tokens,
            decision.write_1h_tokens,
        )
        planner.billed(question.id, usage, now + 0.005)
        planner.woken(now + 0.005)
        taken.append(time.process_time_ns() - began)
        blocks += len(question.keys)
    taken.sort()
    return sum(taken) / len(taken) / 1e3, taken[len(taken) * 99 // 100] / 1e3, blocks / count


def memory_of_a_million() -> tuple[float, float, float]:
    """MB stated, MB measured, and the share still known of a million prefixes in a table for them."""
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
    return total_bytes(options) / 1e6, max(measured, grown) / 1e6, planner.table.used / MILLION


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    mean, slow, blocks = cpu_per_request(options.requests)
    print(f"planning: {mean:.0f} us CPU a request of {blocks:.0f} blocks, p99 {slow:.0f} us")
    stated, measured, known = memory_of_a_million()
    print(
        f"memory: {stated:.0f} MB stated, {measured:.0f} MB measured for a million prefixes, {known:.1%} kept"
    )


def _key(owner: int, block: int) -> int:
    value = ((owner + 1) * 1_000_003 + block) * MULTIPLIER & BITS_64
    return (value ^ (value >> 31)) * MULTIPLIER & BITS_64 or 1


if __name__ == "__main__":
    main()
