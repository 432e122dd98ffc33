"""What the gateway costs beside nginx on the same machine, in the same run.

    python -m tests.bench.run [--out FILE] [--rounds N] [--streams N] [--header LINE] [-- COMMAND ...]

COMMAND starts what is measured in the gateway's place; `{upstream}` in it becomes the mock's base URL and
`{port}` the port to listen on. Without one it is the whole gateway, everything on (`whole.py`). README.md
beside this file says what each number is.
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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Measured, Missing, compiled, free_port, nginx_command
from tests.bench.whole import KEY
from tests.support.bodies import agent_body, dump, large_body, single


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    unit: str
    body: str
    query: str = ""
    connections: int = 16
    requests: int = 4_000


WORKLOADS = (
    Workload(name="small", unit="µs CPU a request", body="small", requests=10_000),
    Workload(name="agent", unit="µs CPU a request", body="agent"),
    Workload(name="large", unit="µs CPU a request", body="large", connections=8, requests=200),
    Workload(name="stream", unit="µs CPU a request", body="agent", query="?events=200", requests=600),
)
WHOLE = [sys.executable, "-m", "tests.bench.whole", "{port}", "{upstream}"]
_EVENT_STREAMS = 200
_EVENT_GAP = "gap_us=20000"


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    port: int
    process: Measured


class Bench:
    def __init__(self, home: Path, headers: Sequence[str]) -> None:
        self.home = home
        self.load = compiled("load", home)
        self._headers = headers
        bodies = {
            "small": single("x" * 800),
            "agent": agent_body(stream=False),
            "large": {**large_body(), "stream": False},
            "small-stream": single("x" * 800, stream=True),
            "agent-stream": agent_body(),
        }
        for name, body in bodies.items():
            (home / f"{name}.json").write_bytes(dump(body))

    def run(self, target: Target, load: Workload) -> tuple[dict[str, float], float]:
        """One run of the load; its own report, and the target's CPU seconds meanwhile."""
        before = target.process.cpu_seconds()
        report = json.loads(self._start(target, load).communicate(timeout=120)[0])
        if report["failed"]:
            raise RuntimeError(f"{target.name}, {load.name}: {report}; {target.process.tail()}")
        return report, target.process.cpu_seconds() - before

    def request_cost(self, target: Target, load: Workload) -> float:
        return self.run(target, load)[1] / load.requests * 1e6

    def added_latency(self, target: Target, direct: Target) -> float:
        """Of an agent's request alone on the machine: the median, less that without a proxy."""
        alone = Workload(name="alone", unit="", body="agent", connections=1, requests=400)
        return self.run(target, alone)[0]["p50_us"] - self.run(direct, alone)[0]["p50_us"]

    def event_cost(self, target: Target) -> tuple[float, float]:
        """CPU of one event with many streams open: a long run less a short one, so that opening and closing
        cancel out. And the lag of an event, 99th percentile."""
        costs = []
        for events in (50, 250):
            load = _streams(events, _EVENT_GAP, _EVENT_STREAMS)
            report, cpu = self.run(target, load)
            costs.append(cpu)
        return (costs[1] - costs[0]) / (200 * _EVENT_STREAMS) * 1e6, report["lag_p99_us"]

    def memory(self, target: Target, streams: int) -> tuple[float, float]:
        """MB after some requests, and kB for each of `streams` open at once, agent-sized requests sent."""
        for load in WORKLOADS[:2]:
            self.run(target, Workload(name="warm", unit="", body=load.body, requests=500))
        idle = target.process.resident_bytes()
        running = self._start(target, _streams(48, "gap_us=250000", streams))
        time.sleep(8.0)  # long enough for what lies idle to be given back
        peak = target.process.resident_bytes()
        report = json.loads(running.communicate(timeout=120)[0])
        if report["failed"]:
            raise RuntimeError(f"{target.name}: {report}; {target.process.tail()}")
        return idle / 1e6, (peak - idle) / streams / 1e3

    def _start(self, target: Target, load: Workload) -> subprocess.Popen[bytes]:
        lines = [f"POST /v1/messages{load.query} HTTP/1.1", "host: bench.test", *self._headers]
        lines += ["content-type: application/json", "anthropic-version: 2023-06-01"]
        head = self.home / "head"
        head.write_text("".join(line + "\r\n" for line in lines))
        body = self.home / f"{load.body}{'-stream' if load.query else ''}.json"
        command = [self.load, target.port, load.connections, load.requests, head, body]
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)


def _streams(events: int, gap: str, streams: int) -> Workload:
    query = f"?events={events}&{gap}"
    return Workload(name="event", unit="", body="agent", query=query, connections=streams, requests=streams)


def measure(bench: Bench, targets: Sequence[Target], direct: Target, rounds: int, streams: int) -> Results:
    """Medians over rounds; within a round the targets take turns: a noisy minute spoils none alone."""
    seen: dict[tuple[str, str], list[float]] = {}

    def note(target: Target, metric: str, value: float) -> None:
        seen.setdefault((target.name, metric), []).append(value)

    for target in targets:
        idle, each = bench.memory(target, streams)
        note(target, "memory idle, MB", idle)
        note(target, f"memory a stream of {streams}, kB", each)
    for _ in range(rounds):
        for load in WORKLOADS:
            for target in targets:
                note(target, f"{load.name}, {load.unit}", bench.request_cost(target, load))
        for target in targets:
            note(target, "agent, µs added to p50", bench.added_latency(target, direct))
            cost, lag = bench.event_cost(target)
            note(target, "event, µs CPU", cost)
            note(target, "event, µs lag p99", lag)
    results: Results = {}
    for (name, metric), values in seen.items():
        results.setdefault(metric, {})[name] = statistics.median(values)
    return results


Results = dict[str, dict[str, float]]


def table(results: Results, names: Sequence[str]) -> str:
    """Each metric beside the first target's, and as a multiple of it."""
    first, *others = names
    columns = [*names, *(f"{name} ×" for name in others)]
    lines = [" " * 34 + "".join(f"{column:>14}" for column in columns)]
    for metric, row in results.items():
        cells = [f"{row[name]:14.1f}" for name in names]
        cells += [f"{row[name] / row[first]:14.2f}" if row[first] > 0 else f"{'-':>14}" for name in others]
        lines.append(f"{metric:34}" + "".join(cells))
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
    parser.add_argument("--header", action="append", default=[], help="a header line for every request")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stated = conditions()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as home, ExitStack() as stack:
            results, names = _run(Path(home), stack, options)
    except (Missing, RuntimeError) as error:
        sys.exit(str(error))
    print(table(results, names))
    if options.out is not None:
        document = {"conditions": stated, "rounds": options.rounds, "results": results}
        options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _run(home: Path, stack: ExitStack, options: argparse.Namespace) -> tuple[Results, list[str]]:
    bench = Bench(home, options.header or [f"authorization: Bearer {KEY}"])
    mock_port = free_port()
    upstream = f"http://127.0.0.1:{mock_port}"

    def start(name: str, command: Sequence[str], port: int) -> Target:
        process = Measured(command, log=home / f"{name}.log")
        stack.callback(process.end)
        process.await_port(port)
        return Target(name, port, process)

    direct = start("mock", [str(compiled("mock", home)), str(mock_port)], mock_port)
    port = free_port()
    targets = [start("nginx", nginx_command(home / "nginx", mock_port, port), port)]
    port = free_port()
    alone = [sys.executable, "-m", "tests.bench.passthrough", upstream, str(port)]
    targets.append(start("transport", alone, port))
    given = [part for part in options.command if part != "--"] or WHOLE
    port = free_port()
    command = [part.replace("{upstream}", upstream).replace("{port}", str(port)) for part in given]
    targets.append(start("gateway", command, port))
    return measure(bench, targets, direct, options.rounds, options.streams), [t.name for t in targets]


if __name__ == "__main__":
    main()
