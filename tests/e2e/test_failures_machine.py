"""The machine below the gateway fails: descriptors run out, the disk is full or cannot be written, the clock
jumps, the configuration vanishes. Each has its real cause. What the gateway does is told in
docs/failure-modes.md."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path

import aiohttp
import pytest

from gateway.adapters.adjustment_store import SqliteAdjustmentStore
from gateway.adapters.ledger import SPILLED, restore
from gateway.core.adjustments import Author, Freeze, FreezeScope
from gateway.core.ledger import Dimension
from gateway.core.limits import Unit
from gateway.settings.gateway import ADJUSTMENTS_FILE
from gateway.sim.pacing import Pacing
from tests.e2e.whole.calls import ASK, MODEL, call, eventually
from tests.support.clock import ShiftedClock
from tests.support.listeners import echo, listening
from tests.support.process import ROOT, Running, a_gateway_process
from tests.support.raw_client import RawClient
from tests.support.stack import Stack, a_stack

DAY = 86_400.0
AT_ONCE = {"GATEWAY_DRAIN__ANNOUNCE": "0s"}


async def test_without_descriptors_calls_fail_and_the_gateway_lives_on(tmp_path: Path) -> None:
    """Connections that are open are answered; new ones are closed, or wait, until there is room again."""
    async with a_gateway_process(tmp_path, "--demo", environ=AT_ONCE) as running:
        port, pid = int(running.url.rpartition(":")[2]), running.process.pid
        async with await RawClient.connect(port) as early:
            await _until_answered(early, running)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, most))
            crowd = [await RawClient.connect(port) for _ in range(30)]
            await eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= used + 3, 20)
            while_full = await _asked(early, running)
            for client in crowd:
                client.writer.close()
        status = 0
        async with asyncio.timeout(60):
            while status != 200:
                with suppress(EOFError, ConnectionError):  # closed at once: there is no room yet
                    async with await RawClient.connect(port) as late:
                        status = await _asked(late, running)
        running.signal(signal.SIGTERM)

        assert while_full in (200, 502, 529)
        assert await running.ended() == 0


async def test_a_low_soft_limit_of_descriptors_is_raised_and_one_that_is_too_low_told_of(
    tmp_path: Path,
) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2_000))

    arguments = ("--demo", "--workers", "2")
    async with a_gateway_process(tmp_path, *arguments, environ=AT_ONCE, before=lower) as running:
        workers = re.findall(r"worker \d is process (\d+)", running.greeting)
        limits = [
            resource.prlimit(int(pid), resource.RLIMIT_NOFILE) for pid in (running.process.pid, *workers)
        ]
        said = running.greeting
        running.signal(signal.SIGINT)
        assert await running.ended() == 0

    assert limits == [(2_000, 2_000)] * 3
    assert said.count("2,000 files may be open here, and capacity asks for 22,256") == 1
    assert "no more than 872 connections" in said


async def test_connections_leave_descriptors_for_upstream_and_the_rest(tmp_path: Path) -> None:
    """As many clients as like to: those that are taken are answered, and so are the probes."""

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))

    async with a_gateway_process(tmp_path, "--demo", environ=AT_ONCE, before=lower) as running:
        port = int(running.url.rpartition(":")[2])
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(30):
                clients = [await stack.enter_async_context(await RawClient.connect(port)) for _ in range(290)]
            await _until_answered(clients[0], running)
            for path in ("/livez", "/readyz"):
                await _until_good(f"{running.admin_url}{path}")


async def test_on_a_full_disk_no_money_is_admitted_and_none_is_lost(tmp_path: Path) -> None:
    """No file may grow: the store's and the ledger's writes fail as on a full disk. Once there is room, calls
    go through, and what had been answered is in the books."""
    async with a_gateway_process(tmp_path, "--demo", environ=AT_ONCE) as running:
        pid = running.process.pid
        async with await RawClient.connect(int(running.url.rpartition(":")[2])) as client:
            await _until_answered(client, running)
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, most))
            while_full = [await _asked(client, running) for _ in range(3)]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
            await _until_answered(client, running)
        running.signal(signal.SIGTERM)
        code = await running.ended()

    assert (while_full, code) == ([529, 529, 529], 0)
    with closing(sqlite3.connect(running.ledger)) as connection:
        booked = connection.execute("SELECT status FROM entries WHERE basis = 'reported'").fetchall()
    assert booked == [(200,), (200,)]


async def test_adjustments_that_cannot_be_read_lift_no_freeze(tmp_path: Path) -> None:
    """A damaged file may hold a freeze of anybody. Once a good one is in its place, it holds as ever."""
    state = tmp_path / "state"
    state.mkdir()
    damaged = state / ADJUSTMENTS_FILE
    damaged.write_bytes(b"not a database, but of some length" * 100)
    who = Author(name="lena", via="")
    freeze = Freeze(id="f1", scope=FreezeScope.WORKSPACE, subject="demo", reason="Too dear", by=who, at=0.0)
    await SqliteAdjustmentStore(tmp_path / "copy").add(freeze)
    async with a_stack(tmp_path) as stack, aiohttp.ClientSession() as session:

        async def probed(path: str) -> tuple[int, object]:
            async with session.get(stack.service.admin_url + path) as answer:
                return answer.status, (await answer.json()).get("failing")

        refused = await call(stack, ASK, key="other")
        unready, started = await probed("/readyz"), await probed("/startupz")
        os.replace(tmp_path / "copy", damaged)
        async with asyncio.timeout(30):
            while (await call(stack, ASK, key="other")).status != 200:  # noqa: ASYNC110  # it can only be asked
                await asyncio.sleep(0.1)
        frozen = await call(stack, ASK)
        ready = await probed("/readyz")

    assert refused.status == 529 and "freezes cannot be read" in refused.body.decode()
    assert (unready, started) == ((503, ["adjustments"]), (200, None))
    assert (frozen.status, ready) == (403, (200, None))


async def test_a_stop_that_leaves_entries_in_the_log_only_says_so_and_fails(tmp_path: Path) -> None:
    """Nobody asks a gateway that is gone for its metrics: its exit code is what is seen, a worker's too."""
    async with (
        a_gateway_process(tmp_path, "--demo", "--workers", "2", environ=AT_ONCE) as running,
        await RawClient.connect(int(running.url.rpartition(":")[2])) as client,
    ):
        await _until_answered(client, running)
        with closing(sqlite3.connect(running.ledger, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await _until_answered(client, running)
            running.signal(signal.SIGINT)
            assert running.process.stdout is not None
            said = (await asyncio.wait_for(running.process.stdout.read(), 120)).decode()
            code = await running.ended()

    lines = [line for line in said.splitlines() if SPILLED in line]
    assert code == 1
    assert f"entries that are in the log only: {len(lines)}." in said
    assert "gateway ledger restore" in said
    assert restore(running.ledger, lines) == len(lines) >= 1


def test_a_state_directory_that_cannot_be_written_is_said_at_the_start() -> None:
    """/proc is read-only for everybody, root included."""
    environ = {
        **os.environ,
        "GATEWAY_STATE__DIRECTORY": "/proc/gateway",
        "GATEWAY_LISTEN__DATA": "127.0.0.1:0",
    }
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "--demo"],
        cwd=ROOT, env=environ | {"GATEWAY_LISTEN__ADMIN": "127.0.0.1:0"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip

    assert run.returncode == 1
    assert "/proc/gateway" in run.stderr
    assert "state.directory" in run.stderr
    assert "Traceback" not in run.stderr


class WallClock(ShiftedClock):
    """Its wall clock can be set, as NTP or an operator does; durations do not notice."""

    def __init__(self) -> None:
        super().__init__()
        self.set_by = 0.0

    def now(self) -> float:
        return super().now() + self.set_by


@pytest.mark.parametrize("seconds", [-40 * DAY, 40 * DAY])
async def test_a_clock_that_is_set_while_calls_run_cuts_none_and_charges_each_once(
    seconds: float, tmp_path: Path
) -> None:
    clock = WallClock()
    async with a_stack(tmp_path, clock=clock, pacing=Pacing(events_per_second=40)) as stack:
        running = asyncio.gather(*(call(stack, {**ASK, "stream": True}) for _ in range(3)))
        await eventually(
            lambda: len(stack.simulator.requests) == 3 and stack.simulator.requests[-1].events_sent
        )
        clock.set_by = seconds
        answers = [*await running, await call(stack, ASK)]
        clock.set_by = 0.0
        answers.append(await call(stack, ASK))
        await eventually(lambda: not stack.service.pipeline.open_reservations())
        set_aside = await _set_aside(stack)
        (total,) = await stack.books(Dimension.WORKSPACE)

    assert [answer.status for answer in answers] == [200] * 5
    assert all(b"message_stop" in answer.body for answer in answers[:3])
    assert (total.requests, total.failed, total.guessed_nanousd) == (5, 0, 0)
    assert total.cost_nanousd == stack.simulator.bill.total_nanousd
    assert set_aside == 0


@pytest.mark.parametrize("gone", ["limits.yaml", "workspaces.yaml", "gateway.yaml"])
async def test_a_configuration_that_is_deleted_changes_nothing(
    gone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stack(tmp_path) as stack:
        file = tmp_path / "config" / gone
        text = file.read_bytes()
        file.unlink()
        stack.service.reload_soon()
        await eventually(lambda: "cannot be used" in caplog.text)
        refused = await call(stack, ASK, key="poor")
        passed = await call(stack, ASK)
        file.write_bytes(text)

    assert (refused.status, passed.status) == (429, 200)


async def test_a_client_that_ends_its_direction_has_left() -> None:
    """Half-closing is how a client that is gone looks; who goes on listening is not told from that."""
    async with listening(echo) as (listener, port), await RawClient.connect(port) as client:
        await client.post("/v1/messages", b"{}")
        answered = await client.response()
        client.writer.write_eof()
        assert answered.status == 200
        assert await client.ended()
        await eventually(lambda: not listener.open)


async def _until_answered(client: RawClient, running: Running) -> None:
    """Until one call is: on a busy machine a store may be late, and its calls are refused."""
    async with asyncio.timeout(60):
        while await _asked(client, running) != 200:  # noqa: ASYNC110  # it can only be asked
            await asyncio.sleep(0.05)


async def _until_good(url: str) -> None:
    """A burst of connections may take all descriptors for the second that it takes to turn most away."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


async def _asked(client: RawClient, running: Running) -> int:
    headers = (b"x-api-key: " + running.key.encode(), b"anthropic-version: 2023-06-01")
    await client.post("/v1/messages", json.dumps(ASK).encode(), *headers)
    return (await client.response()).status


async def _set_aside(stack: Stack) -> int:
    service = stack.service
    principal = service.rules.keyring.identify(stack.keys["demo"], service._clock.now())
    verdicts = await service.spending.budgets.peek(service.rules.limits.binding(principal, MODEL))
    return sum(each.set_aside for each in verdicts if each.bound.limit.unit is Unit.NANOUSD)
