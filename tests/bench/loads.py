"""Loads for a target, run by `load.c`; and what one run of them says: latencies, failures, CPU, memory."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.processes import Measured, compiled
from tests.support.bodies import agent_body, dump, large_body, single

MARK = "@" * 12
"""In whose place `load.c` puts the number of the request."""
STREAM_EVENTS = 200
EVENT_STREAMS = 200
EVENT_GAP = "gap_us=20000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    unit: str = "µs CPU a request"
    body: str
    query: str = ""
    connections: int = 16
    requests: int = 4_000
    rate: float = 0.0
    """Requests due each second; 0: as fast as they are answered."""
    probe: bool = False
    """Not a call: `HEAD /`, which the gateway answers from its loop at once."""


SMALL = Workload(name="small", body="small", requests=10_000)
AGENT = Workload(name="agent", body="agent")
NEW = Workload(name="agent, nothing shared", body="agent-new", requests=2_000)
LARGE = Workload(name="large", body="large", connections=8, requests=200)
STREAM = Workload(name="stream", body="agent", query=f"?events={STREAM_EVENTS}", requests=600)
WORKLOADS = (SMALL, AGENT, NEW, LARGE, STREAM)


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    port: int
    process: Measured


class Bench:
    """The load generator with its bodies. `headers` go with every request."""

    def __init__(self, home: Path, headers: Sequence[str]) -> None:
        self.home = home
        self.load = compiled("load", home)
        self._headers = headers
        bodies = {
            "small": single("x" * 800),
            "agent": agent_body(stream=False),
            "agent-new": _all_new(agent_body(stream=False)),
            "large": {**large_body(), "stream": False},
            "small-stream": single("x" * 800, stream=True),
            "agent-stream": agent_body(),
        }
        for name, body in bodies.items():
            (home / f"{name}.json").write_bytes(dump(body))
        (home / "none.json").write_bytes(b"")

    def run(self, target: Target, load: Workload) -> tuple[dict[str, float], float]:
        """One run of the load; its own report, and the target's CPU seconds meanwhile."""
        before = target.process.cpu_seconds()
        report = self.ended(target, load, self.start(target, load))
        return report, target.process.cpu_seconds() - before

    def request_cost(self, target: Target, load: Workload) -> float:
        return self.run(target, load)[1] / load.requests * 1e6

    def added_latency(self, target: Target, direct: Target) -> float:
        """Of an agent's request alone on the machine: the median, less that without a proxy."""
        alone = replace(AGENT, connections=1, requests=400)
        return self.run(target, alone)[0]["p50_us"] - self.run(direct, alone)[0]["p50_us"]

    def half_load(self, target: Target, direct: Target) -> tuple[float, float]:
        """Requests a second that are half of what the target carries; and the 99th percentile at that rate,
        less that without a proxy. Counted from when a request was due, so that none hides behind another."""
        full, _ = self.run(target, replace(AGENT, requests=1_500))
        rate = full["answered"] / full["seconds"] / 2
        steady = replace(AGENT, requests=int(rate * 8), rate=rate, connections=64)
        return rate, self.run(target, steady)[0]["p99_us"] - self.run(direct, steady)[0]["p99_us"]

    def stall(self, target: Target) -> tuple[float, float]:
        """How late probes are answered while bodies of 2 MB come in over 8 connections: the longest and the
        99th percentile, microseconds. What the machine's other work takes is in it."""
        bodies = replace(LARGE, requests=400)
        running = self.start(target, bodies)
        probes = Workload(name="probe", body="none", connections=8, requests=200, rate=50, probe=True)
        report = self.ended(target, probes, self.start(target, probes))
        self.ended(target, bodies, running)
        return report["max_us"], report["p99_us"]

    def event_cost(self, target: Target) -> tuple[float, float]:
        """CPU of one event with many streams open: a long run less a short one, so that opening and closing
        cancel out. And the lag of an event, 99th percentile."""
        costs = []
        for events in (50, 250):
            load = streams(events, EVENT_GAP, EVENT_STREAMS)
            report, cpu = self.run(target, load)
            costs.append(cpu)
        return (costs[1] - costs[0]) / (200 * EVENT_STREAMS) * 1e6, report["lag_p99_us"]

    def memory(self, target: Target, count: int) -> tuple[float, float, float]:
        """MB when what is kept of earlier bodies has reached its bounds; kB for each stream more, from a
        quarter of `count` to all of them; and how many MB more there are half a minute later."""
        for load in (NEW, AGENT):  # new ones fill what is read again, repeated ones what may be warmed
            self.run(target, replace(load, requests=2_500))
        time.sleep(6.0)  # long enough for what lies idle to be given back
        full = target.process.resident_bytes()
        fewer, _ = self._held(target, count // 4, 10.0)
        most, later = self._held(target, count, 40.0)
        return full / 1e6, (most - fewer) / (count - count // 4) / 1e3, (later - most) / 1e6

    def _held(self, target: Target, count: int, seconds: float) -> tuple[int, int]:
        """Resident bytes with so many streams open: after ten seconds, and at the end."""
        load = streams(int(seconds) * 4 + 12, "gap_us=250000", count)
        running = self.start(target, load)
        time.sleep(10.0)
        first = last = target.process.resident_bytes()
        if seconds > 10.0:
            time.sleep(seconds - 10.0)
            last = target.process.resident_bytes()
        self.ended(target, load, running)
        return first, last

    def ended(self, target: Target, load: Workload, running: subprocess.Popen[bytes]) -> dict[str, float]:
        """Its report. Raises `RuntimeError` where a single request failed."""
        report: dict[str, float] = json.loads(running.communicate(timeout=180)[0])
        if report["failed"]:
            raise RuntimeError(f"{target.name}, {load.name}: {report}; {target.process.tail()}")
        return report

    def start(self, target: Target, load: Workload) -> subprocess.Popen[bytes]:
        line = "HEAD / HTTP/1.1" if load.probe else f"POST /v1/messages{load.query} HTTP/1.1"
        lines = [line, "host: bench.test", *self._headers]
        lines += ["content-type: application/json", "anthropic-version: 2023-06-01"]
        head = self.home / f"head-{load.name.partition(',')[0]}"
        head.write_text("".join(line + "\r\n" for line in lines))
        body = self.home / f"{load.body}{'-stream' if load.query else ''}.json"
        command = [self.load, target.port, load.connections, load.requests, head, body]
        if load.rate:
            command.append(load.rate)
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)


def streams(events: int, gap: str, count: int) -> Workload:
    query = f"?events={events}&{gap}"
    return Workload(name="event", body="agent", query=query, connections=count, requests=count)


def _all_new(body: dict[str, Any]) -> dict[str, Any]:
    """With a mark in the tools, the system prompt and the first message: no two of them share anything that
    the gateway could go on from."""
    body["tools"][0]["description"] = MARK
    body["system"][0]["text"] = MARK + body["system"][0]["text"]
    body["messages"][0]["content"][0]["text"] = MARK + body["messages"][0]["content"][0]["text"]
    return body
