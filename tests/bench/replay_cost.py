"""What recording and replaying cost: CPU per news, bytes per request, requests per second, memory.

    python -m tests.bench.replay_cost [--requests N] [--policy NAME ...]

The workload is conversations of agents: two thousand at a time, 15 to 75 blocks long, on a shared head. Timed
with the process's own CPU clock; memory is the process's greatest resident set, each step in a process of its
own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.adapters.recording import Recording
from gateway.core.news import Answered, Billed, News, Sent, pack_keys
from gateway.core.planner import PlannerOptions
from gateway.replay.play import POLICIES, Choice, play
from gateway.replay.trace import TraceFile

SESSIONS = 2_000
HEAD_BLOCKS, BLOCKS_A_TURN, TURNS = 15, 3, 20
TOKENS_A_BLOCK = 400
REQUESTS_A_SECOND = 20.0
BEGINS = 1.8e9
FLUSH = 20
"""Requests that share a flush: a second's worth."""


def news_of(count: int) -> Iterator[News]:
    """What a gateway tells of so many requests, in order: sent, answered, billed."""
    rng = random.Random(1)
    head = [rng.getrandbits(64) for _ in range(HEAD_BLOCKS)]
    sessions: list[list[int]] = [head[:] for _ in range(SESSIONS)]
    for number in range(count):
        keys = sessions[rng.randrange(SESSIONS)]
        keys.extend(rng.getrandbits(64) for _ in range(BLOCKS_A_TURN))
        at, call = BEGINS + number / REQUESTS_A_SECOND, f"gw_{number:024x}"
        ends = tuple(TOKENS_A_BLOCK * (block + 1) for block in range(len(keys)))
        kinds = bytes([0] * 10 + [1] * 5 + [2, 3, 2] * TURNS)[: len(keys)]
        yield Sent(
            call=call, at=at, workspace="demo", model="claude-opus-5-5", scope=7,
            keys=pack_keys(keys), ends=ends, kinds=kinds, marks=((len(keys) - 1, False),),
            prices=(0.05, 1.25, 2.0, 563),
        )  # fmt: skip
        yield Answered(call, at + 1.0)
        yield Billed(call, at + 4.0, ends[-1], 0, 0, 0, 200)
        if len(keys) >= HEAD_BLOCKS + BLOCKS_A_TURN * TURNS:
            del keys[HEAD_BLOCKS:]


def record(path: Path, count: int) -> None:
    recording = Recording(
        path, now=time.monotonic, options=PlannerOptions(), flush_seconds=600.0, limit=1 << 22
    )
    news = list(news_of(count))
    began = time.thread_time_ns()
    for one in news:
        recording.tell(one)
    told = time.thread_time_ns() - began
    began = time.thread_time_ns()
    for start in range(0, len(news), 3 * FLUSH):
        recording._write(news[start : start + 3 * FLUSH])
    wrote = time.thread_time_ns() - began
    per_news = 1e3 * len(news)
    print(f"recording, per news: {told / per_news:.2f} µs of the event loop")
    print(f"recording, per news: {wrote / per_news:.1f} µs of the writer")
    print(f"recording, per request: {path.stat().st_size / count:,.0f} bytes")


def replay(path: Path, policies: tuple[str, ...]) -> None:
    before = _megabytes()
    began, cpu = time.monotonic(), time.process_time()
    report = play([TraceFile(path)], Choice(policies=policies), lambda count: None)
    took = time.process_time() - cpu
    print(
        f"replay: {report.requests:,} requests, {len(report.rows)} policies, {time.monotonic() - began:.1f} s"
    )
    print(f"replay: {report.requests / took:,.0f} requests a second of CPU")
    print(f"replay: {_megabytes() - before:,.0f} MB above the {before:,.0f} MB before")


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--policy", action="append", choices=POLICIES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.jsonl.gz"
        for step, what in ((record, options.requests), (replay, tuple(options.policy or POLICIES))):
            process = multiprocessing.get_context("spawn").Process(target=step, args=(path, what))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
