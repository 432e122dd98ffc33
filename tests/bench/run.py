"""What the gateway costs beside nginx on the same machine, in the same run.

    python -m tests.bench.run [--out FILE] [--rounds N] [--streams N] [--no-parts] [--gate]
                              [--header LINE] [-- COMMAND ...]

COMMAND starts what is measured in the gateway's place; `{upstream}` in it becomes the mock's base URL and
`{port}` the port to listen on. Without one it is the whole gateway, everything on (`whole.py`): with the
embedded store, with Redis, and with one part after the other switched off. README.md beside this file says
what each number is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.gate import judge
from tests.bench.loads import AGENT, SMALL, WORKLOADS, Bench, Target
from tests.bench.processes import Measured, Missing, compiled, free_port, nginx_command
from tests.bench.whole import KEY, PARTS
from tests.support.redis_server import RedisServer

Results = dict[str, dict[str, float]]
"""By row, then by target."""
WHOLE = [sys.executable, "-m", "tests.bench.whole", "{port}", "{upstream}"]


def measure(bench: Bench, targets: Sequence[Target], direct: Target, rounds: int, streams: int) -> Results:
    """Medians over rounds; within a round the targets take turns: a noisy minute spoils none alone."""
    seen: dict[tuple[str, str], list[float]] = {}

    def note(target: Target, metric: str, value: float) -> None:
        seen.setdefault((target.name, metric), []).append(value)

    for target in targets:
        idle, each, more = bench.memory(target, streams)
        note(target, "memory, bodies kept, MB", idle)
        note(target, f"memory a stream of {streams}, kB", each)
        note(target, "the same, half a minute on, MB more", more)
    for _ in range(rounds):
        for load in WORKLOADS:
            for target in targets:
                note(target, f"{load.name}, {load.unit}", bench.request_cost(target, load))
        for target in targets:
            note(target, "agent, µs added to p50", bench.added_latency(target, direct))
            rate, late = bench.half_load(target, direct)
            note(target, "half of what it carries, requests/s", rate)
            note(target, "at half load, µs added to p99", late)
            cost, lag = bench.event_cost(target)
            note(target, "event, µs CPU", cost)
            note(target, "event, µs lag p99", lag)
            if target.name not in ("nginx", "transport"):
                longest, most = bench.stall(target)
                note(target, "stall under 2 MB bodies, µs max", longest)
                note(target, "stall under 2 MB bodies, µs p99", most)
    return _medians(seen)


def measure_parts(bench: Bench, targets: Sequence[Target], rounds: int) -> Results:
    """What a request costs with all parts on, first, and without one of them each."""
    seen: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for load in (SMALL, AGENT):
            for target in targets:
                metric = f"{load.name}, {load.unit}"
                seen.setdefault((target.name, metric), []).append(bench.request_cost(target, load))
    return _medians(seen)


def _medians(seen: dict[tuple[str, str], list[float]]) -> Results:
    results: Results = {}
    for (name, metric), values in seen.items():
        results.setdefault(metric, {})[name] = statistics.median(values)
    return results


def table(results: Results, names: Sequence[str]) -> str:
    """Each metric beside the first target's, and as a multiple of it."""
    first, *others = names
    columns = [*names, *(f"{name} ×" for name in others)]
    lines = [" " * 40 + "".join(f"{column:>18}" for column in columns)]
    for metric, row in results.items():
        cells = [f"{row[name]:18.1f}" if name in row else f"{'-':>18}" for name in names]
        base = row.get(first, 0.0)
        for name in others:
            cells.append(f"{row[name] / base:18.2f}" if base > 0 and name in row else f"{'-':>18}")
        lines.append(f"{metric:40}" + "".join(cells))
    return "\n".join(lines)


def conditions() -> dict[str, object]:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="where the results go, as JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--no-parts", action="store_true", help="do not switch parts off one by one")
    parser.add_argument("--gate", action="store_true", help="fail where a ratio to nginx has grown")
    parser.add_argument("--header", action="append", default=[], help="a header line for every request")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    document: dict[str, object] = {"conditions": conditions(), "rounds": options.rounds}
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as home, ExitStack() as stack:
            rows, parts = _run(Path(home), stack, options)
    except (Missing, RuntimeError) as error:
        sys.exit(str(error))
    document |= {"load_after": os.getloadavg()[0], "results": rows, "parts": parts}
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if options.gate and (worse := judge(rows)):
        sys.exit("\n".join(worse))


def _run(home: Path, stack: ExitStack, options: argparse.Namespace) -> tuple[Results, Results]:
    """Prints each table as soon as it is there."""
    bench = Bench(home, options.header or [f"authorization: Bearer {KEY}"])
    start = _starter(home, stack)
    mock_port = free_port()
    upstream = f"http://127.0.0.1:{mock_port}"
    direct = start("mock", [str(compiled("mock", home)), str(mock_port)], mock_port)

    def gateway(name: str, command: Sequence[str]) -> Target:
        port = free_port()
        filled = [part.replace("{upstream}", upstream).replace("{port}", str(port)) for part in command]
        return start(name, filled, port)

    port = free_port()
    targets = [start("nginx", nginx_command(home / "nginx", mock_port, port), port)]
    targets.append(
        gateway("transport", [sys.executable, "-m", "tests.bench.passthrough", "{upstream}", "{port}"])
    )
    given = [part for part in options.command if part != "--"]
    targets.append(gateway("gateway", given or WHOLE))
    if not given:
        server = stack.enter_context(RedisServer(home / "redis"))
        targets.append(gateway("with Redis", [*WHOLE, "--redis", server.url]))
    rows = measure(bench, targets, direct, options.rounds, options.streams)
    print(table(rows, [target.name for target in targets]))
    if given or options.no_parts:
        return rows, {}
    several = [gateway("all", WHOLE)]
    several += [gateway(f"no {part}", [*WHOLE, "--without", part]) for part in PARTS]
    parts = measure_parts(bench, several, options.rounds)
    print(table(parts, [target.name for target in several]))
    return rows, parts


def _starter(home: Path, stack: ExitStack) -> Callable[[str, Sequence[str], int], Target]:
    def start(name: str, command: Sequence[str], port: int) -> Target:
        process = Measured(command, log=home / f"{name}.log")
        stack.callback(process.end)
        process.await_port(port)
        return Target(name, port, process)

    return start


if __name__ == "__main__":
    main()
