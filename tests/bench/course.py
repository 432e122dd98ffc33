"""One run of the bench from beginning to end: which targets are started, which rows are measured of them, how
often. What is known of it so far can be asked at any time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loads import Bench, Sizes, Target
from tests.bench.processes import Cores, Measured, compiled, free_port, nginx_command
from tests.bench.rows import (
    PLAIN,
    Book,
    Row,
    cost_rows,
    event_row,
    latency_rows,
    memory_rows,
    warming,
)
from tests.bench.steady import Pace
from tests.bench.whole import KEY, PARTS
from tests.support.redis_server import RedisServer

WHOLE = (sys.executable, "-m", "tests.bench.whole", "{port}", "{upstream}")
TRANSPORT = (sys.executable, "-m", "tests.bench.passthrough", "{upstream}", "{port}")
PARTS_ROWS = ("small", "agent", "stream")
PARTS_SHARE = 0.25
"""Of the minutes, kept for the parts."""
PATIENCE_SHARE = 0.3
"""Of the minutes, what may go into measuring again what was measured while the core was slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    rounds: int
    minutes: float
    """No round begins that would end later, but for the first."""
    sizes: Sizes
    cores: Cores | None
    """None: whoever runs, runs where there is room."""
    memory: bool = True
    latencies: bool = True
    parts: bool = True
    command: tuple[str, ...] = ()
    """In place of the gateway; see `run.py`."""
    headers: tuple[str, ...] = ()
    """Of every request, in place of the gateway's key."""


class Course:
    """`say` prints; `keep` is called whenever there is something new to be written down."""

    def __init__(self, plan: Plan, say: Callable[[str], None], keep: Callable[[Course], None]) -> None:
        self.plan = plan
        cores = plan.cores.target if plan.cores is not None else None
        self.pace = Pace(cores, 60 * plan.minutes * PATIENCE_SHARE)
        self.main = Book(say, self.pace)
        self.parts = Book(say, self.pace, began=self.main.began, failed=self.main.failed)
        self.rounds = 0
        """That are complete."""
        self.names: list[str] = []
        self.parts_names: list[str] = []
        self._keep = lambda: keep(self)

    @property
    def measured(self) -> list[str]:
        """The targets that are compared with the others."""
        return [name for name in self.names if name not in PLAIN]

    @property
    def slow(self) -> list[str]:
        """The cells for which the core was never quick."""
        return self.main.slow() + self.parts.slow()

    def run(self, home: Path, stack: ExitStack) -> None:
        """Raises `Missing` and, where a target does not start, `RuntimeError`; a row that fails is noted."""
        plan = self.plan
        if plan.cores is not None:  # the load generator, the mock and Redis are started from here
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, plan.cores.rest)
        bench = Bench(home, plan.headers or [f"authorization: Bearer {KEY}"], plan.sizes)
        starting = _Starting(home, stack, plan.cores)
        direct = starting.mock()
        targets = [starting.nginx(), starting.target("transport", TRANSPORT)]
        targets.append(starting.target("gateway", plan.command or WHOLE))
        if not plan.command:
            server = stack.enter_context(RedisServer(home / "redis"))
            targets.append(starting.target("with Redis", [*WHOLE, "--redis", server.url]))
        self.names = [target.name for target in targets]
        self._measure(bench, targets, direct)
        if plan.parts and not plan.command:
            self._measure_parts(bench, starting)

    def _measure(self, bench: Bench, targets: Sequence[Target], direct: Target) -> None:
        plan = self.plan
        once = memory_rows(bench) if plan.memory else (warming(bench),)
        self.main.turn(once, targets, "once", self._keep)
        rows = [*cost_rows(bench), event_row(bench)]
        rows += latency_rows(bench, direct) if plan.latencies else ()
        share = 1.0 - PARTS_SHARE if plan.parts else 1.0
        self.rounds = self._take_rounds(self.main, rows, targets, "round", share)

    def _measure_parts(self, bench: Bench, starting: _Starting) -> None:
        """What a request costs with all parts on, first, and without one of them each."""
        targets = [starting.target("all", WHOLE)]
        targets += [starting.target(f"no {part}", [*WHOLE, "--without", part]) for part in PARTS]
        self.parts_names = [target.name for target in targets]
        self.parts.turn((warming(bench),), targets, "parts", self._keep)
        self._take_rounds(self.parts, cost_rows(bench, PARTS_ROWS), targets, "parts", 1.0)

    def _take_rounds(
        self, book: Book, rows: Sequence[Row], targets: Sequence[Target], title: str, share: float
    ) -> int:
        until, longest = book.began + 60 * self.plan.minutes * share, 0.0
        for number in range(self.plan.rounds):
            began = time.monotonic()
            if number and began + longest > until:
                return number
            book.turn(rows, targets, f"{title} {number + 1}/{self.plan.rounds}", self._keep)
            longest = max(longest, time.monotonic() - began)
        return self.plan.rounds


class _Starting:
    """Starts what is measured, and what it is measured with."""

    def __init__(self, home: Path, stack: ExitStack, cores: Cores | None) -> None:
        self._home = home
        self._stack = stack
        self._cores = cores.target if cores is not None else None
        self._mock_port = free_port()

    def mock(self) -> Target:
        port = self._mock_port
        return self._start("mock", [str(compiled("mock", self._home)), str(port)], port, None)

    def nginx(self) -> Target:
        port = free_port()
        command = nginx_command(self._home / "nginx", self._mock_port, port)
        return self._start("nginx", command, port, self._cores)

    def target(self, name: str, command: Sequence[str]) -> Target:
        port, upstream = free_port(), f"http://127.0.0.1:{self._mock_port}"
        filled = [part.replace("{upstream}", upstream).replace("{port}", str(port)) for part in command]
        return self._start(name, filled, port, self._cores)

    def _start(self, name: str, command: Sequence[str], port: int, cores: frozenset[int] | None) -> Target:
        process = Measured(command, log=self._home / f"{name}.log", cores=cores)
        self._stack.callback(process.end)
        process.await_port(port)
        return Target(name, port, process)
