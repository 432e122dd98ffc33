"""What a chaos run consists of: the store, the simulated API with its limit on the bill, three replicas that
are started again when they die. Who calls is in `clients.py`, what is broken in `faults.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.settings import packaged_directory
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.bill import BillLine
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.chaos.gateway import WORKSPACE
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_groups import SentinelGroup
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
REPLICAS = 3
PREFIX = "chaos"
TAG = f"{{{PREFIX}}}"
CREDENTIAL = "sk-test-chaos"
KEY_BYTES = b"\x07" * RANDOM_BYTES
PACING = Pacing(first_byte_seconds=0.5, events_per_second=15)


async def until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true within the time."""
    for _ in range(round(seconds / 0.05)):
        if true():
            return True
        await asyncio.sleep(0.05)
    return true()


@dataclass
class Replica:
    """One gateway process after the other, on one state directory."""

    number: int
    config: Path
    environ: dict[str, str]
    log: Path
    url: str = ""
    starts: int = 0
    deaths: int = 0
    process: asyncio.subprocess.Process | None = None
    frozen: bool = False
    _keeper: asyncio.Task[None] | None = None

    def keep(self) -> None:
        """Start it, and again whenever it dies."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self._start()
            assert self.process is not None
            await self.process.wait()
            self.url = ""
            self.deaths += 1
            await asyncio.sleep(0.3)

    async def _start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.chaos.gateway", str(self.config), KEY_BYTES.hex()),
                cwd=ROOT,
                env=self.environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        if line.startswith("listens "):
            self.url = line.split()[1]

    def arm(self, failpoint: str) -> None:
        if self.process is not None and self.process.stdin is not None and self.url:
            self.process.stdin.write(f"{failpoint}\n".encode())

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def end(self) -> int:
        """Let it drain and stop; its exit code."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self.process is None:
            return -1
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), 15)
        except TimeoutError:
            self.process.kill()
            return -9


@dataclass
class World:
    """`over` are the instants at which the bill was above the limit, with how much."""

    folder: Path
    limit_nanousd: int
    sentinels: bool
    redis: RedisServer = field(init=False)
    group: SentinelGroup | None = None
    proxies: list[LossyProxy] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    simulator: Simulator = field(init=False)
    billed: int = 0
    over: list[int] = field(default_factory=list)
    key: str = ""

    async def __aenter__(self) -> World:
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _begin(self) -> None:
        if self.sentinels:
            self.group = await asyncio.to_thread(SentinelGroup, self.folder / "redis")
        else:
            self.redis = await asyncio.to_thread(RedisServer, self.folder / "redis", append_only=True)
            for _ in range(REPLICAS):
                proxy = LossyProxy(self.redis.port)
                await proxy.__aenter__()
                self.proxies.append(proxy)
        self.simulator = Simulator(pacing=PACING, credentials={CREDENTIAL: "wrkspc_chaos"})
        self._watch_bill()
        await self.simulator.start()
        self.key, _ = mint_key(
            random_bytes=KEY_BYTES, name="chaos", workspace=WorkspaceId(WORKSPACE), created_at=0.0
        )
        for number in range(REPLICAS):
            replica = self._replica(number)
            self.replicas.append(replica)
            replica.keep()
        await self.all_listen()

    async def __aexit__(self, *_: object) -> None:
        for replica in self.replicas:
            replica.signal(signal.SIGCONT)
        await asyncio.gather(*(replica.end() for replica in self.replicas))
        if self.simulator is not None:
            await self.simulator.stop()
        for proxy in self.proxies:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await proxy.__aexit__()
        if self.group is not None:
            self.group.__exit__()
        else:
            self.redis.stop()

    async def all_listen(self) -> None:
        assert await until(lambda: all(replica.url for replica in self.replicas), 30), "a replica is missing"

    @property
    def master(self) -> RedisServer:
        return self.redis if self.group is None else self.group.named_master()

    @property
    def ledgers(self) -> list[Path]:
        return [self.folder / f"state{number}" / LEDGER_FILE for number in range(REPLICAS)]

    def calls_by_request(self) -> dict[str, str]:
        """Upstream's request ids, and which call of which client each was for."""
        return {
            received.request_id: json.loads(received.body)["metadata"]["user_id"]
            for received in self.simulator.requests
            if received.body and received.target.startswith("/v1/messages")
        }

    def _watch_bill(self) -> None:
        charge: Callable[..., BillLine] = self.simulator.bill.charge

        def watched(**line: Any) -> BillLine:
            charged = charge(**line)
            self.billed += charged.cost_nanousd
            if self.billed > self.limit_nanousd:
                self.over.append(self.billed - self.limit_nanousd)
            return charged

        self.simulator.bill.charge = watched  # type: ignore[method-assign]

    def _replica(self, number: int) -> Replica:
        config = self.folder / f"config{number}"
        config.mkdir(parents=True)
        url = self.group.url if self.group is not None else f"redis://127.0.0.1:{self.proxies[number].port}/0"
        (config / "gateway.yaml").write_text(f"""\
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
state: {{directory: "{self.folder / f"state{number}"}"}}
store: {{kind: redis, url: {{env: REDIS_URL}}, prefix: {PREFIX}}}
upstreams: {{default: {{base_url: "{self.simulator.url}", credential: {{env: UPSTREAM_KEY}}}}}}
placement: {{policy: rules}}
tags: {{headers: [x-call]}}
drain: {{announce: 0s, timeout: 5s}}
""")
        (config / "workspaces.yaml").write_text(
            f"workspaces: {{{WORKSPACE}: {{upstream: default, estimate: strict}}}}\n"
        )
        dollars = f"${self.limit_nanousd // 10**9}.{self.limit_nanousd % 10**9:09d}"
        (config / "limits.yaml").write_text(
            f"defaults:\n  - {{id: month, scope: workspace, unit: usd, amount: {dollars}, per: month, "
            "on_store_failure: refuse, comment: chaos}\n"
        )
        (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "GATEWAY_"))}
        environ = kept | {"REDIS_URL": url, "UPSTREAM_KEY": CREDENTIAL}
        return Replica(number, config, environ, self.folder / f"gateway{number}.log")
