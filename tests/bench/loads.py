"""Loads for a target, run by `load.c`; and what one run of them says: latencies, failures, CPU, memory."""

from __future__ import annotations

import json
import os
import select
import signal
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
GOES_ON = "read=98&write=1"
"""What upstream reports of a prompt that goes on from one that it has cached, per cent."""
IS_NEW = "write=98"
"""The same where it has cached nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    unit: str = "µs CPU a request"
    body: str
    query: str = ""
    connections: int = 16
    requests: int = 2_000
    rate: float = 0.0
    """Requests due each second; 0: as fast as they are answered."""
    probe: bool = False
    """Not a call: `HEAD /`, which the gateway answers from its loop at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is sent for a row, and for how long."""

    small: int = 4_000
    agent: int = 2_000
    new: int = 1_000
    large: int = 150
    stream: int = 400
    alone: int = 400
    """Requests one after the other, for a median."""
    filling: int = 2_500
    """New bodies, and as many repeated ones, after which what is kept of them has reached its bounds."""
    steady_seconds: float = 8.0
    """At half load."""
    probes: int = 800
    probes_a_second: float = 200.0
    event_streams: int = 200
    events: tuple[int, int] = (25, 150)
    """Of the short run and of the long one, 50 a second in each stream."""
    streams: int = 2_000
    """Open at once, where their memory is measured."""
    trim_seconds: float = 11.0
    """Until what lies idle was given back: every five seconds, where there are more streams than before."""
    flat_seconds: float = 60.0
    """Twice so long streams stay open then: what a gateway does once a minute is in both halves."""

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """Of which the CPU of a request is measured."""
        return (
            Workload(name="small", body="small", requests=self.small),
            self.agents,
            Workload(
                name="agent, last message new", body="agent-next", query=f"?{GOES_ON}", requests=self.agent
            ),
            Workload(name="agent, nothing shared", body="agent-new", query=f"?{IS_NEW}", requests=self.new),
            Workload(name="large", body="large", query=f"?{GOES_ON}", connections=8, requests=self.large),
            self.bodies_of_2_mb,
            Workload(
                name="stream",
                body="agent",
                query=f"?events={STREAM_EVENTS}&{GOES_ON}",
                requests=self.stream,
            ),
        )

    @property
    def agents(self) -> Workload:
        return Workload(name="agent", body="agent", query=f"?{GOES_ON}", requests=self.agent)

    @property
    def bodies_of_2_mb(self) -> Workload:
        """Each a conversation of its own."""
        return Workload(
            name="large, nothing shared",
            body="large-new",
            query=f"?{IS_NEW}",
            connections=8,
            requests=self.large,
        )


QUICK = Sizes(
    small=100,
    agent=60,
    new=40,
    large=8,
    stream=20,
    alone=20,
    filling=40,
    steady_seconds=0.5,
    probes=40,
    event_streams=20,
    events=(5, 25),
    streams=40,
    trim_seconds=0.5,
    flat_seconds=1.0,
)
"""Shows that everything runs, and no figure that means anything."""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    port: int
    process: Measured


class Bench:
    """The load generator with its bodies. `headers` go with every request. What a load says is checked: every
    method raises `RuntimeError` where a single request failed."""

    def __init__(self, home: Path, headers: Sequence[str], sizes: Sizes | None = None) -> None:
        self.home = home
        self.load = compiled("load", home)
        self.sizes = sizes or Sizes()
        self._headers = headers
        bodies = {
            "small": single("x" * 800),
            "agent": agent_body(stream=False),
            "agent-next": _next(agent_body(stream=False)),
            "agent-new": _all_new(agent_body(stream=False)),
            "large": {**large_body(), "stream": False},
            "large-new": _all_new({**large_body(), "stream": False}),
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

    def latency_alone(self, target: Target) -> float:
        """The median of an agent's request with none beside it, microseconds."""
        alone = replace(self.sizes.agents, connections=1, requests=self.sizes.alone)
        return self.run(target, alone)[0]["p50_us"]

    def half_of_full(self, target: Target) -> float:
        """Half of the agents' requests that the target carries a second."""
        full, _ = self.run(target, self.sizes.agents)
        return full["answered"] / full["seconds"] / 2

    def latency_at(self, target: Target, rate: float, seconds: float) -> float:
        """The 99th percentile at this rate, microseconds, counted from when a request was due, so that none
        hides behind another."""
        count = max(20, int(rate * seconds))
        steady = replace(self.sizes.agents, requests=count, rate=rate, connections=64)
        return self.run(target, steady)[0]["p99_us"]

    def stall(self, target: Target, connections: int) -> Stall:
        """How late probes are answered while bodies of 2 MB come in over so many connections. What the
        machine's other work takes is in it, but for `own_us`."""
        sizes = self.sizes
        probes = Workload(
            name="probe",
            body="none",
            connections=16,
            requests=sizes.probes,
            rate=sizes.probes_a_second,
            probe=True,
        )
        bodies = replace(sizes.bodies_of_2_mb, connections=connections, requests=1_000_000)
        running = self.start(target, bodies, niceness=10)
        try:
            report = self.ended(target, probes, self.start(target, probes))
            if running.poll() is not None:
                raise RuntimeError(f"{target.name}: the bodies of 2 MB ended early; {target.process.tail()}")
        finally:
            running.kill()
            running.communicate()
        return Stall(longest_us=report["max_us"], own_us=report["own_max_us"], p99_us=report["p99_us"])

    def event_cost(self, target: Target) -> tuple[float, float]:
        """CPU of one event with many streams open, microseconds: a long run less a short one, so that opening
        and closing cancel out. And the lag of an event, 99th percentile, once all are open."""
        count, (short, long) = self.sizes.event_streams, self.sizes.events
        costs = []
        for events in (short, long):
            load = streams(events, "gap_us=20000", count)
            before = target.process.cpu_seconds()
            running = self.start(target, load)
            self._await_open(target, running)
            time.sleep(short / 100)  # what came while they opened is passed on
            running.send_signal(signal.SIGUSR1)
            report = self.ended(target, load, running)
            costs.append(target.process.cpu_seconds() - before)
        return (costs[1] - costs[0]) / ((long - short) * count) * 1e6, report["lag_p99_us"]

    def fill(self, target: Target) -> int:
        """Resident bytes when what is kept of earlier bodies has reached its bounds."""
        new, repeated = self.sizes.workloads[3], self.sizes.agents
        for load in (new, repeated):  # new ones fill what is read again, repeated ones what may be warmed
            self.run(target, replace(load, requests=self.sizes.filling))
        time.sleep(self.sizes.trim_seconds)  # what lies idle is given back
        return target.process.resident_bytes()

    def held(self, target: Target, count: int, seconds: float) -> Held:
        """With `count` streams open, for twice so long after all of them are."""
        load = streams(1_000_000, f"gap_us={1_000_000 // EVENTS_A_SECOND}", count)
        running = self.start(target, load)
        self._await_open(target, running)
        time.sleep(self.sizes.trim_seconds)
        running.send_signal(signal.SIGUSR1)
        first, cpu, since = target.process.resident_bytes(), target.process.cpu_seconds(), time.monotonic()
        early, late = self._least(target, seconds), self._least(target, seconds)
        took, passed = target.process.cpu_seconds() - cpu, time.monotonic() - since
        running.terminate()
        report = self.ended(target, load, running)
        return Held(
            first_bytes=first,
            grown_bytes=late - early,
            event_us=took / (passed * count * EVENTS_A_SECOND) * 1e6,
            lag_us=report["lag_p99_us"],
        )

    def _least(self, target: Target, seconds: float) -> int:
        """The fewest resident bytes meanwhile."""
        until, least = time.monotonic() + seconds, target.process.resident_bytes()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            least = min(least, target.process.resident_bytes())
        return least

    def _await_open(self, target: Target, running: subprocess.Popen[bytes]) -> None:
        """Until all streams are; or until it has ended, of which `ended` says why."""
        assert running.stderr is not None
        ready, _, _ = select.select([running.stderr], [], [], OPENING_SECONDS)
        if not ready:
            running.kill()
            running.communicate()
            raise RuntimeError(f"{target.name}: streams do not open; {target.process.tail()}")
        os.read(running.stderr.fileno(), 16)

    def ended(self, target: Target, load: Workload, running: subprocess.Popen[bytes]) -> dict[str, float]:
        """Its report. Raises `RuntimeError` where a single request failed."""
        try:
            out, complaint = running.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
            raise RuntimeError(f"{target.name}, {load.name}: no end; {target.process.tail()}") from None
        report: dict[str, float] = json.loads(out or b'{"failed": 1}')
        if report["failed"]:
            said = complaint.decode(errors="replace")
            raise RuntimeError(f"{target.name}, {load.name}: {report}; {said}\n{target.process.tail()}")
        return report

    def start(self, target: Target, load: Workload, niceness: int = 0) -> subprocess.Popen[bytes]:
        """With `niceness`, others on its core go before it."""
        line = "HEAD / HTTP/1.1" if load.probe else f"POST /v1/messages{load.query} HTTP/1.1"
        lines = [line, "host: bench.test", *self._headers]
        lines += ["content-type: application/json", "anthropic-version: 2023-06-01"]
        head = self.home / f"head-{load.name.partition(',')[0]}"
        head.write_text("".join(line + "\r\n" for line in lines))
        body = self.home / f"{load.body}{'-stream' if 'events=' in load.query else ''}.json"
        command = [self.load, target.port, load.connections, load.requests, head, body]
        command += [load.rate, target.process.busiest() if load.probe else 0]
        running = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if niceness:
            os.setpriority(os.PRIO_PROCESS, running.pid, niceness)
        return running


OPENING_SECONDS = 90.0
"""For many streams at once to begin."""
EVENTS_A_SECOND = 4
"""In each of the streams that are held."""
LOOK_SECONDS = 3.0
"""Between two looks at a target's memory: each walks through all of its pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Microseconds that probes waited."""

    longest_us: float
    own_us: float
    """The most CPU that the target itself used between a probe and its answer."""
    p99_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What many streams at once cost."""

    first_bytes: int
    """Resident, when all are open."""
    grown_bytes: int
    """From the least of the first half to the least of the second."""
    event_us: float
    """CPU of an event, all else that the target does meanwhile included."""
    lag_us: float
    """99th percentile."""


def streams(events: int, gap: str, count: int) -> Workload:
    query = f"?events={events}&{gap}&{GOES_ON}"
    return Workload(name="event", body="agent", query=query, connections=count, requests=count)


def _next(body: dict[str, Any]) -> dict[str, Any]:
    """With a mark in the last message: the next turn of one conversation, which all of them continue."""
    result = body["messages"][-1]["content"][0]
    result["content"] = MARK + result["content"]
    return body


def _all_new(body: dict[str, Any]) -> dict[str, Any]:
    """With a mark in the tools, the system prompt and the first message: no two of them share anything that
    the gateway could go on from."""
    body["tools"][0]["description"] = MARK
    body["system"][0]["text"] = MARK + body["system"][0]["text"]
    body["messages"][0]["content"][0]["text"] = MARK + body["messages"][0]["content"][0]["text"]
    return body
