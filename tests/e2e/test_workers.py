"""Several workers as one gateway, as people start it: real processes, one address, one state directory."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.key_store import SqliteKeyStore
from gateway.adapters.ledger_queries import read_totals
from gateway.core.errors import ConfigError
from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.settings import load_settings, packaged_directory
from gateway.settings.gateway import KEYS_FILE, LEDGER_FILE
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from gateway.supervisor import Supervisor
from tests.support.process import ROOT, Running, a_gateway_process
from tests.support.raw_client import RawClient
from tests.support.stack import UPSTREAM_CREDENTIAL, a_simulator

pytestmark = pytest.mark.timeout(300)

PACING = Pacing(events_per_second=40)
MODEL = "claude-opus-5-5"
KEY, RECORD = mint_key(
    random_bytes=bytes(RANDOM_BYTES), name="app", workspace=WorkspaceId("demo"), created_at=0.0
)
GATEWAY = """\
upstreams: {{default: {{base_url: "{url}", credential: {{env: UPSTREAM_KEY}}}}}}
drain: {{announce: 0s, timeout: 30s}}
workers: {{count: 2, unresponsive: {unresponsive}}}
"""
LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $%s, per: month, comment: test}
"""
SHORT, LONG = "Be brief.", "word " * 5_000
"""System prompts. Workers tell each other of the second; of what is too short to be cached they do not."""
Series = dict[tuple[str, str], float]
"""Values by name and labels."""


@dataclass(kw_only=True)
class Ground:
    simulator: Simulator
    folder: Path
    session: aiohttp.ClientSession
    log: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def limit(self, usd: str) -> None:
        (self.folder / "config" / "limits.yaml").write_text(LIMITS % usd)

    @asynccontextmanager
    async def gateway(self, **environ: str) -> AsyncIterator[Running]:
        environ = {"UPSTREAM_KEY": UPSTREAM_CREDENTIAL, **environ}
        arguments = ("--config", str(self.folder / "config"))
        async with a_gateway_process(self.state, *arguments, environ=environ) as running:
            self.log[:] = running.greeting.splitlines()
            reading = asyncio.get_running_loop().create_task(self._read(running))
            yield running
        await reading

    async def _read(self, running: Running) -> None:
        assert running.process.stdout is not None
        async for line in running.process.stdout:
            self.log.append(line.decode().rstrip())

    def pid(self, worker: int) -> int:
        """Of the process that is this worker now."""
        return int(re.findall(rf"worker {worker} is process (\d+)", "\n".join(self.log))[-1])

    async def call(
        self, running: Running, *, words: int = 5, stream: bool = False, system: str = SHORT
    ) -> int:
        """Its status; 0 where it was cut. On a connection of its own."""
        body = {
            "model": MODEL,
            "max_tokens": words,
            "stream": stream,
            "system": system,
            "messages": [{"role": "user", "content": f"Say {words} words"}],
        }
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        try:
            async with self.session.post(f"{running.url}/v1/messages", json=body, headers=headers) as answer:
                said = await answer.read()
        except aiohttp.ClientError:
            return 0
        whole = b"event: message_stop" in said if stream else b'"stop_reason"' in said
        return answer.status if whole or answer.status != 200 else 0

    async def until_both(self, running: Running, counter: str, *statuses: int, system: str = SHORT) -> int:
        """Call until both workers have counted something there; how many calls that took. They may be
        answered with these `statuses` only."""
        calls = 0
        while True:
            found = await asyncio.gather(*(self.call(running, words=40, system=system) for _ in range(20)))
            assert set(found) <= set(statuses), found
            calls += len(found)
            counted = await self.metrics(running)
            if all(of(counted, counter, each) > 0 for each in (0, 1)):
                return calls
            assert calls < 2_000, "one of them is idle"

    async def metrics(self, running: Running) -> Series:
        async with self.session.get(f"{running.admin_url}/metrics") as answer:
            assert answer.status == 200
            page = await answer.text()
        return {
            (name, labels): float(value)
            for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", page, re.MULTILINE)
        }

    async def live(self, running: Running) -> Any:
        async with self.session.get(f"{running.admin_url}/v1/live") as answer:
            return await answer.json()


def of(series: Series, name: str, worker: int) -> float:
    """The sum of one worker's."""
    return sum(
        value for (found, labels), value in series.items() if found == name and f'worker="{worker}"' in labels
    )


def counters(series: Series) -> Series:
    return {
        key: value
        for key, value in series.items()
        if key[0].endswith(("_total", "_count", "_bucket", "_sum"))
    }


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as running:
        simulator = a_simulator(PACING)
        await simulator.start()
        running.push_async_callback(simulator.stop)
        config = tmp_path / "config"
        config.mkdir()
        (tmp_path / "state").mkdir()
        keys = SqliteKeyStore(tmp_path / "state" / KEYS_FILE)
        await keys.put(RECORD)
        await keys.close()
        (config / "gateway.yaml").write_text(GATEWAY.format(url=simulator.url, unresponsive="30s"))
        (config / "workspaces.yaml").write_text("workspaces: {demo: {upstream: default}}\n")
        (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        session = await running.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout)
        )
        ground = Ground(simulator=simulator, folder=tmp_path, session=session)
        ground.limit("50.00")
        yield ground


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def test_a_worker_is_killed_under_load_and_nothing_is_lost_but_its_open_calls(ground: Ground) -> None:
    async with ground.gateway() as running, asyncio.TaskGroup() as group:
        calls = await ground.until_both(running, "gateway_requests_total", 200, system=LONG)
        before = await ground.metrics(running)
        assert sum(of(before, "gateway_requests_total", each) for each in (0, 1)) == calls
        assert len((await ground.live(running))["ended"]) == calls, "whoever is asked tells of both"

        await until(lambda: hear_each_other(ground, running))
        streams: list[asyncio.Task[int]] = []

        async def both_stream() -> bool:
            streams.append(group.create_task(ground.call(running, words=1_200, stream=True)))
            await asyncio.sleep(0.1)
            found = await ground.metrics(running)
            return all(of(found, "gateway_open_streams", each) > 0 for each in (0, 1))

        await until(both_stream)
        opened = await ground.metrics(running)
        kept = of(opened, "gateway_open_streams", 1)
        assert len((await ground.live(running))["open"]) == len(streams)
        signalled = ground.pid(0)
        _kill(signalled)
        after = [await ground.call(running) for _ in range(10)]
        assert after == [200] * 10, "the other goes on, and takes what this one would have taken"
        shown = await ground.metrics(running)
        assert_none_went_down(opened, shown)

        async def replaced() -> bool:
            found = await ground.metrics(running)
            assert_none_went_down(shown, found)
            shown.update(found)
            return of(found, "gateway_worker_up", 0) == 1 and ground.pid(0) != signalled

        await until(replaced)
        assert of(shown, "gateway_worker_starts_total", 0) == 2
        statuses = await asyncio.gather(*streams)
        assert statuses.count(200) == kept, "the other's streams ended as they should"
        assert statuses.count(0) == len(streams) - kept
        assert set(await asyncio.gather(*(ground.call(running) for _ in range(20)))) == {200}
        last = await ground.metrics(running)
        assert_none_went_down(shown, last)
        answered = calls + 10 + kept + 20
        assert sum(of(last, "gateway_requests_total", each) for each in (0, 1)) == answered
        running.signal(signal.SIGTERM)
        assert await running.ended(60) == 0

    (total,) = read_totals(ground.state / LEDGER_FILE, (), start_ms=0, end_ms=2**62)
    assert total.requests == answered
    assert any('"worker": 1' in line or '"worker":1' in line for line in ground.log), (
        "lines say who wrote them"
    )
    await assert_verified(ground)


async def hear_each_other(ground: Ground, running: Running) -> bool:
    found = counters(await ground.metrics(running))
    heard = [key for key in found if key[0] == "gateway_peer_news_total" and "heard" in key[1]]
    return len([key for key in heard if found[key] > 0]) == 2


async def assert_verified(ground: Ground) -> None:
    verified = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "ledger", "verify", "--config", str(ground.folder / "config")),
        cwd=ROOT,
        env={"GATEWAY_STATE__DIRECTORY": str(ground.state), "UPSTREAM_KEY": "sk-test-none"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await verified.communicate()
    assert verified.returncode == 0, said.decode()


def assert_none_went_down(earlier: Series, later: Series) -> None:
    found = counters(later)
    for key, value in counters(earlier).items():
        assert found.get(key, -1.0) >= value, key


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


async def test_a_limit_holds_over_all_workers_and_all_reload_and_drain_together(ground: Ground) -> None:
    ground.limit("0.02")
    async with ground.gateway() as running, asyncio.TaskGroup() as group:
        await ground.until_both(running, "gateway_budget_refusals_total", 200, 429)
        (spent,) = read_totals(ground.state / LEDGER_FILE, (), start_ms=0, end_ms=2**62)
        assert 0 < spent.cost_nanousd <= 20_000_000
        ground.limit("60.00")
        running.signal(signal.SIGHUP)

        async def reloaded() -> bool:
            found = await ground.metrics(running)
            return all(of(found, "gateway_config_generation", each) > 1 for each in (0, 1))

        await until(reloaded)
        streams = [group.create_task(ground.call(running, words=160, stream=True)) for _ in range(12)]

        async def streaming() -> bool:
            return len((await ground.live(running))["open"]) == len(streams)

        await until(streaming)
        running.signal(signal.SIGTERM)

        async def refuses() -> bool:
            return await ground.call(running) == 0

        await until(refuses)
        assert await running.ended(60) == 0
        assert {await stream for stream in streams} == {200}, "none was cut"


async def test_a_worker_that_hangs_is_replaced_and_workers_end_with_their_supervisor(ground: Ground) -> None:
    settings = GATEWAY.format(url=ground.simulator.url, unresponsive="5s")
    (ground.folder / "config" / "gateway.yaml").write_text(settings)
    async with ground.gateway() as running:
        hung = ground.pid(1)
        _kill(hung, signal.SIGSTOP)

        async def replaced() -> bool:
            return ground.pid(1) != hung and of(await ground.metrics(running), "gateway_worker_up", 1) == 1

        await until(replaced)
        assert any("worker 1 gave no sign of life" in line for line in ground.log)
        assert await ground.call(running) == 200
        workers = [ground.pid(each) for each in (0, 1)]
        running.signal(signal.SIGKILL)

        async def gone() -> bool:
            return not {str(pid) for pid in workers} & set(os.listdir("/proc"))

        await until(gone)


async def test_the_admin_plane_of_several_workers_is_bounded_as_that_of_one(ground: Ground) -> None:
    """By the same server: what is packed is unpacked once, a proxy is known, nothing malformed is logged."""
    canary = b"CANARY-of-a-stranger"
    freeze = {"scope": "workspace", "subject": "demo", "reason": "a loop", "by": "Ada"}
    async with ground.gateway() as running:
        url = f"{running.admin_url}/v1/freezes"
        packed = gzip.compress(json.dumps(freeze).encode())
        async with ground.session.post(url, data=packed, headers={"content-encoding": "gzip"}) as answer:
            assert answer.status == 200, await answer.text()
        port = int(running.admin_url.rpartition(":")[2])
        for sent, status in (
            (b"GET /v1/budgets HTTP/1.0\r\nhost: localhost\r\n\r\n", b" 403 "),
            (b"GET /v1/budgets HTTP/1.1\r\nauthorization: Bearer %b\rx: y\r\n\r\n" % canary, b" 400 "),
        ):
            async with await RawClient.connect(port) as client:
                await client.send(sent)
                assert status in await client.line()
        running.signal(signal.SIGTERM)
        assert await running.ended(60) == 0

    assert any("Error handling request" in line for line in ground.log)
    assert not any(canary.decode() in line for line in ground.log)


async def test_a_worker_that_cannot_start_ends_the_gateway_and_says_why(ground: Ground) -> None:
    (ground.state / "budgets.sqlite3").write_bytes(b"no database" * 1000)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "run", "--config", str(ground.folder / "config")),
        cwd=ROOT,
        env={
            "GATEWAY_STATE__DIRECTORY": str(ground.state),
            "UPSTREAM_KEY": UPSTREAM_CREDENTIAL,
            "GATEWAY_LISTEN__DATA": "127.0.0.1:0",
            "GATEWAY_LISTEN__ADMIN": "127.0.0.1:0",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 1
    assert b"the budget file is damaged" in said
    assert b"ended with exit code 1 before it served" in said


async def test_the_memory_store_is_refused_for_several_workers() -> None:
    environ = {"GATEWAY_STORE__KIND": "memory", "ANTHROPIC_API_KEY": "sk-test-none"}
    settings = load_settings(packaged_directory(), environ)
    supervisor = Supervisor(settings, count=2, config=None, environ=environ, clock=SystemClock())
    with pytest.raises(ConfigError, match="cannot share the `memory` store"):
        await supervisor.start()


async def test_a_place_that_sockets_cannot_be_in_ends_the_start_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where TMPDIR is longer than the path of a Unix socket may be. Nothing stays behind."""
    far = tmp_path / ("x" * 120)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    environ = {"ANTHROPIC_API_KEY": "k", "GATEWAY_LISTEN__DATA": "127.0.0.1:0"}
    settings = load_settings(packaged_directory(), environ)
    supervisor = Supervisor(settings, count=2, config=None, environ=environ, clock=SystemClock())

    with pytest.raises(OSError, match="path too long"):
        await supervisor.start()
    assert not list(far.iterdir())
