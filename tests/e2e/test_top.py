"""`gateway top` as people run it: in a terminal that it leaves as it was, and in pipes; beside a gateway that
goes away and comes back."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.sim.pacing import Pacing
from tests.support.process import ROOT
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.timeout(300)

CANARY = "canary-of-a-prompt"
MODEL = "claude-opus-5-5"
MEMORY = "store: {kind: memory}\n"
"""Disks of a machine that is busy may keep a call from being admitted in time, and that is not asked here."""


async def ask(stack: Stack, key: str, words: str = CANARY, seconds: float = 60.0) -> int:
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": words}]}
    headers = {"x-api-key": stack.keys[key], "anthropic-version": "2023-06-01"}
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{stack.url}/v1/messages", json=body, headers=headers) as answer,
    ):
        await answer.read()
        return answer.status


async def run(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "top", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, said.decode()


class Terminal:
    """A terminal of so many lines and columns in which a command runs, and all that it ever showed."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int, settings: list[object]) -> None:
        self.process = process
        self._descriptor = descriptor
        self._settings = settings
        self.shown = ""
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._descriptor, 65_536).decode(errors="replace")
        except OSError:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    async def until_shown(self, text: str) -> None:
        """Since the last time that this was waited for."""
        async with asyncio.timeout(60):
            while text not in self.shown:  # noqa: ASYNC110 - a terminal tells nobody
                await asyncio.sleep(0.02)
        self.shown = self.shown.partition(text)[2]

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._descriptor) == self._settings


@asynccontextmanager
async def a_terminal(*arguments: str) -> AsyncIterator[Terminal]:
    ours, theirs = pty.openpty()
    settings = termios.tcgetattr(ours)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "top", *arguments),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    terminal = Terminal(process, ours, settings)
    terminal.resize(40, 140)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)


async def test_in_a_terminal_it_shows_calls_follows_its_size_and_leaves_at_q(tmp_path: Path) -> None:
    async with (
        a_stack(tmp_path, pacing=Pacing(first_byte_seconds=60.0), settings=MEMORY) as stack,
        a_terminal("--url", stack.service.admin_url, "--every", "0.2") as terminal,
    ):
        await terminal.until_shown("open 0 (0 stream)")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(stack, "demo"))
            await terminal.until_shown("open 1 (0 stream)")
            await terminal.until_shown("admitted")
            asking.cancel()
        await terminal.until_shown("cut by client")
        terminal.resize(14, 60)
        terminal.shown = ""
        await terminal.until_shown("open 0")
        await terminal.until_shown("open 0")
        assert CANARY not in terminal.shown
        terminal.press(b"q")
        assert await asyncio.wait_for(terminal.process.wait(), 120) == 0
        assert terminal.is_as_before()


async def test_it_waits_for_a_gateway_that_is_away_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async with a_stack(tmp_path, settings=MEMORY) as stack:
        assert await ask(stack, "demo") == 200
        port = int(stack.service.admin_url.rpartition(":")[2])
        async with a_terminal("--url", stack.service.admin_url, "--every", "0.2") as terminal:
            await terminal.until_shown("1 requests")
            await stack.service.stop()
            await terminal.until_shown("Trying again.")
            back = await _someone_else(port)
            await terminal.until_shown("open 0 (0 stream)")
            assert "Trying" not in terminal.shown.rpartition("gateway top")[2]
            await back.cleanup()
            terminal.process.send_signal(signal.SIGINT)
            await asyncio.wait_for(terminal.process.wait(), 120)
            assert terminal.is_as_before()


async def _someone_else(port: int) -> web.AppRunner:
    """A gateway that has just started, as far as anybody can see here."""

    async def live(request: web.Request) -> web.Response:
        at = "2026-11-22T10:00:00Z"
        nothing = {"open": [], "ended": [], "left_out": 0, "silent": [], "trouble": None}
        return web.json_response({"at": at, "whole_since": at, "replicas": ["one"], **nothing})

    async def budgets(request: web.Request) -> web.Response:
        return web.json_response({"budgets": []})

    app = web.Application()
    app.router.add_get("/v1/live", live)
    app.router.add_get("/v1/budgets", budgets)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    return runner


async def test_in_a_pipe_it_looks_once_and_json_is_json(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        assert await ask(stack, "demo") == 200
        assert await ask(stack, "poor") == 429
        url = stack.service.admin_url
        (code, plain), (code_of_json, told) = await asyncio.gather(
            run("--url", url), run("--url", url, "--json")
        )

    assert code == code_of_json == 0
    assert "\x1b" not in plain
    assert "refused 429" in plain
    assert MODEL in plain
    found = json.loads(told)
    assert found["last_minute"]["requests"] == 2
    assert found["last_minute"]["failed"] == 1
    assert found["last_minute"]["cost_nanousd"] > 0
    assert {call["workspace"] for call in found["newest"]} == {"demo", "poor"}
    assert found["limits"][0]["whose"] == "demo", "the tightest first: the other's is not touched"
    assert CANARY not in plain + told


async def test_without_a_gateway_it_says_so_and_fails() -> None:
    code, said = await run("--url", "http://127.0.0.1:9", "--once")

    assert code == 1
    assert "No gateway answers at http://127.0.0.1:9" in said
