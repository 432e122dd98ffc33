"""`make soak`: one gateway process under mixed traffic with faults for as long as it is told. What it holds
is sampled all the time, its books are compared with the simulator's bill at the end. `test_soak.py` runs the
same for seconds."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis

from gateway.settings import packaged_directory
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.soak.books import Books, compare
from tests.soak.chart import chart
from tests.soak.faults import Faults, upstream_faults
from tests.soak.gateway import keys_of
from tests.soak.samples import BOUNDS, MIB, Bound, Sample, growth, measured
from tests.soak.traffic import Traffic
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
WORKSPACES = ["one", "two", "poor"]
CREDENTIAL = "sk-test-soak"
PACING = Pacing(first_byte_seconds=0.05, events_per_second=60)
QUIET_SECONDS = 45.0
"""After the last call: for what is settled in the background, and for batches that nobody looked at."""
SHORT_SECONDS = 300.0
LEFT = {"descriptors": 24, "threads": 4, "tasks": 4}
"""How much more of these a gateway may hold at its end than before its first call: connections to the store,
as many as there once were calls at a time, and threads that a pool keeps."""
_YAML = """\
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0", admin_token: {{env: ADMIN_TOKEN}}}}
state: {{directory: "{state}"}}
store: {{kind: redis, url: {{env: REDIS_URL}}, prefix: soak}}
upstreams: {{default: {{base_url: "{url}", credential: {{env: UPSTREAM_KEY}}}}}}
tags: {{headers: [x-call]}}
placement: {{recent_bodies: 2MiB, known_prefixes: 4096}}
warming: {{memory: 512KiB, per_minute: 600}}
timeouts: {{upstream_idle: 5s, upstream_keep_alive: 5s, client_keep_alive: 20s}}
drain: {{announce: 0s, timeout: 5s}}
"""
_LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $100000.00, per: month, comment: soak}
  - {id: output, scope: key, unit: output_tokens, amount: 2M, per: minute, comment: soak}
  - {id: open, scope: key, unit: concurrent, amount: 500, comment: soak}
overrides:
  - {limit: month, subject: poor, amount: $0.000001, comment: soak}
"""


@dataclass
class Outcome:
    """Of a run. `unsettled`: what was still open at the end. `problems` are sentences; none: all is well."""

    seconds: float
    warm_up_seconds: float
    samples: list[Sample] = field(default_factory=list)
    first: Sample | None = None
    last: Sample | None = None
    books: Books | None = None
    counters_nanousd: int = 0
    set_aside_nanousd: int = 0
    leases: int = 0
    exit_code: int = -1
    traffic: Traffic | None = None
    faults: Faults | None = None

    def allowed(self, bound: Bound, steady: list[Sample]) -> float:
        """A short run is all warm-up, and a few large bodies are its memory."""
        return bound.allows(steady) * (1 if self.seconds >= SHORT_SECONDS else 3)

    def problems(self) -> list[str]:
        assert self.first is not None and self.last is not None
        assert self.books is not None and self.traffic is not None
        found = []
        steady = measured(self.samples, self.warm_up_seconds)
        for bound in BOUNDS:
            grown, allowed = growth(steady, bound.figure), self.allowed(bound, steady)
            if grown > allowed:
                found.append(f"{bound.figure} grew by {grown:,.1f}, more than {allowed:,.1f}")
        found += self.left(self.last)
        for name, count in {
            "exchanges": self.last.exchanges,
            "reservations": self.last.reservations,
            "leases in the store": self.leases,
            "nano-dollars set aside in the store": self.set_aside_nanousd,
            "nano-dollars between counters and ledger": self.counters_nanousd - self.books.ledger_nanousd,
            "calls booked unlike their bill": len(self.books.wrong),
            "guesses beyond their bound": len(self.books.beyond_their_bound()),
            "calls that hung": len(self.traffic.hung),
            "exit code": self.exit_code,
        }.items():
            if count:
                found.append(f"{name}: {count:g}")
        return found

    def left(self, last: Sample) -> list[str]:
        """What is there still, and was not at the start."""
        found = []
        for figure, more in LEFT.items():
            begun, ended = getattr(self.first, figure), getattr(last, figure)
            if ended > begun + more:
                found.append(f"{figure} are {ended:g} at the end and were {begun:g}")
        return found

    def report(self) -> str:
        assert self.books is not None and self.traffic is not None and self.faults is not None
        assert self.last is not None
        steady = measured(self.samples, self.warm_up_seconds)
        lines = [
            f"{self.traffic.calls:,} calls in {self.seconds / 60:.1f} minutes, "
            f"{self.last.cpu_seconds:.0f} s of CPU",
            *(f"  {count:6,} {end}" for end, count in sorted(self.traffic.ends.items())),
            "Faults of store and configuration: "
            + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.seen.items())),
        ]
        for bound in BOUNDS:
            grown, allowed = growth(steady, bound.figure), self.allowed(bound, steady)
            mean = sum(getattr(sample, bound.figure) for sample in steady) / len(steady)
            unit = MIB if bound.figure.endswith("bytes") else 1
            lines.append(
                f"  {bound.figure}: mean {mean / unit:.1f}, grew by {grown / unit:+.2f}, "
                f"may by {allowed / unit:.1f}"
            )
        books = self.books
        lines += [
            f"Bill ${books.bill_nanousd / 1e9:.9f}, ledger ${books.ledger_nanousd / 1e9:.9f}, "
            f"counters ${self.counters_nanousd / 1e9:.9f}",
            f"{books.exact:,} calls booked to the nano-dollar; {len(books.guessed)} guessed, "
            f"${books.above_nanousd / 1e9:.9f} above and ${books.below_nanousd / 1e9:.9f} below the bill; "
            f"{len(books.wrong)} wrong",
            *(f"  wrong: {side}" for side in books.wrong[:5]),
            *(f"  beyond its bound: {side}" for side in books.beyond_their_bound()[:5]),
        ]
        return "\n".join([*lines, *(f"PROBLEM {problem}" for problem in self.problems())])


class Gateway:
    """The process under test, asked by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.url = self.admin_url = ""

    async def line(self) -> str:
        assert self._process.stdout is not None
        line = (await asyncio.wait_for(self._process.stdout.readline(), 30)).decode()
        assert line, "the gateway is gone"
        return line

    async def sample(self, at: float, calls: int) -> Sample:
        assert self._process.stdin is not None
        self._process.stdin.write(b"?\n")
        return Sample(at=at, calls=calls, **json.loads(await self.line()))

    async def end(self) -> int:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self._process.wait(), 30)
        except TimeoutError:
            self._process.kill()
            return -9


async def soak(
    folder: Path,
    *,
    seconds: float,
    clients: int,
    seed: int,
    faults_every_seconds: float,
    forgets: bool = True,
    warm_up: float = 1 / 3,
) -> Outcome:
    """Run it. `warm_up`: share of its time that no bound looks at. `forgets`: some batches are left to be
    found by the gateway."""
    outcome = Outcome(seconds=seconds, warm_up_seconds=seconds * warm_up)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(await asyncio.to_thread(RedisServer, folder / "redis"))
        proxy = await stack.enter_async_context(LossyProxy(server.port))
        simulator = Simulator(pacing=PACING, credentials={CREDENTIAL: "wrkspc_soak"}, batch_seconds=1.0)
        await simulator.start()
        stack.push_async_callback(simulator.stop)
        gateway = await _start(stack, folder, simulator.url, proxy.port)
        outcome.first = await gateway.sample(0.0, 0)
        for fault in upstream_faults():
            simulator.faults.add(fault)
        keys = keys_of(WORKSPACES)
        traffic = Traffic(gateway.url, gateway.admin_url, keys, clients=clients, seed=seed)
        traffic.forgets = forgets
        faults = Faults(server, proxy, folder / "config/limits.yaml", seed)
        outcome.traffic, outcome.faults = traffic, faults
        call_of: dict[str, str] = {}
        loop = asyncio.get_running_loop()
        watching = loop.create_task(_watch(gateway, traffic, simulator, outcome, call_of))
        until = loop.time() + seconds
        await asyncio.gather(
            traffic.once(), traffic.run(until), faults.run(until, every_seconds=faults_every_seconds)
        )
        watching.cancel()
        await asyncio.wait([watching])
        outcome.last = await _quiet(gateway, server, traffic, outcome)
        _learn_calls(simulator, call_of)
        outcome.exit_code = await gateway.end()
        _read_store(server, outcome)
        outcome.books = compare(folder / "state" / LEDGER_FILE, simulator.bill.lines, call_of)
    return outcome


async def _start(stack: AsyncExitStack, folder: Path, upstream: str, redis_port: int) -> Gateway:
    config = folder / "config"
    config.mkdir(parents=True)
    (config / "gateway.yaml").write_text(_YAML.format(state=folder / "state", url=upstream))
    (config / "limits.yaml").write_text(_LIMITS)
    (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
    warming = ", warming_per_day: $50.00"
    lines = [f"  {name}: {{upstream: default{warming}}}" for name in WORKSPACES]
    (config / "workspaces.yaml").write_text("\n".join(["workspaces:", *lines, ""]))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "GATEWAY_"))}
    environ = kept | {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "UPSTREAM_KEY": CREDENTIAL,
        "ADMIN_TOKEN": "admin",
    }
    log = stack.enter_context((folder / "gateway.log").open("wb"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.soak.gateway", str(config), ",".join(WORKSPACES)),
        cwd=ROOT,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
    )
    gateway = Gateway(process)
    stack.push_async_callback(gateway.end)
    _, gateway.url, gateway.admin_url = (await gateway.line()).split()
    return gateway


async def _watch(
    gateway: Gateway, traffic: Traffic, simulator: Simulator, outcome: Outcome, call_of: dict[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        await asyncio.sleep(min(1.0, outcome.seconds / 60))
        # Shielded: a sample that was asked for and not read would be taken for the next one.
        asked = loop.create_task(gateway.sample(loop.time() - started, traffic.calls))
        try:
            outcome.samples.append(await asyncio.shield(asked))
        except asyncio.CancelledError:
            await asked
            raise
        _learn_calls(simulator, call_of)


def _learn_calls(simulator: Simulator, call_of: dict[str, str]) -> None:
    """Which call each request upstream was for; the simulator forgets the oldest."""
    for received in reversed(simulator.requests):
        if received.request_id in call_of:
            if received.ended != "open":
                break
            continue
        at = received.body.find(b'"user_id": "')
        if at >= 0:
            call_of[received.request_id] = received.body[at + 12 : at + 24].split(b'"')[0].decode()


async def _quiet(gateway: Gateway, server: RedisServer, traffic: Traffic, outcome: Outcome) -> Sample:
    """Once nothing is open any more, idle connections to upstream are closed, or it has been waited for long
    enough."""
    store = redis.Redis(port=server.port)
    try:
        for _ in range(round(QUIET_SECONDS / 0.25)):
            sample = await gateway.sample(outcome.seconds, traffic.calls)
            is_open = sample.exchanges or sample.reservations or store.zcard("{soak}:leases")
            if not is_open and not outcome.left(sample):
                break
            await asyncio.sleep(0.25)
        return sample
    finally:
        store.close()


def _read_store(server: RedisServer, outcome: Outcome) -> None:
    store = redis.Redis(port=server.port, decode_responses=True)
    outcome.leases = int(store.zcard("{soak}:leases"))
    for key in store.scan_iter("{soak}:b:*"):
        if "/month/" in key:
            outcome.counters_nanousd += int(store.hget(key, "spent") or 0)
        outcome.set_aside_nanousd += int(store.hget(key, "set_aside") or 0)
    store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults-every", type=float, default=20.0, help="seconds")
    parser.add_argument("--warm-up", type=float, default=1 / 3, help="share of the time")
    parser.add_argument("--out", type=Path, default=Path("soak-results"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        outcome = asyncio.run(
            soak(
                Path(folder),
                seconds=chosen.minutes * 60,
                clients=chosen.clients,
                seed=chosen.seed,
                faults_every_seconds=chosen.faults_every,
                warm_up=chosen.warm_up,
            )
        )
        (chosen.out / "gateway.log").write_bytes((Path(folder) / "gateway.log").read_bytes())
    assert outcome.traffic is not None
    report = outcome.report()
    title = f"One gateway process, {outcome.traffic.calls:,} calls in {chosen.minutes:g} minutes, with faults"
    (chosen.out / "soak.svg").write_text(
        chart(outcome.samples, title=title, warm_up_seconds=outcome.warm_up_seconds)
    )
    (chosen.out / "samples.jsonl").write_text(
        "".join(json.dumps(asdict(sample)) + "\n" for sample in outcome.samples)
    )
    (chosen.out / "report.txt").write_text(report + "\n")
    print(report)
    return 1 if outcome.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
