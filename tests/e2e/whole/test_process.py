"""The gateway as a process: what it prints, how it stops, what it survives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic

from gateway.adapters.ledger_queries import read_totals
from gateway.core.ledger import Dimension
from tests.support.process import ROOT, Running, a_gateway_process

pytestmark = pytest.mark.timeout(300)

ASK: list[Any] = [{"role": "user", "content": "Say 60 words."}]
MODEL = "claude-opus-5-5"
REFUSED = 'gateway_config_reloads_total{result="failure"} 1.0'


async def get(url: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as response:
        return response.status, await response.text()


async def until_it_refuses(running: Running) -> None:
    """Until it says that it is stopping."""
    async with asyncio.timeout(30):
        while (await get(running.admin_url, "/readyz"))[0] != 503:  # noqa: ASYNC110  # it can only be asked
            await asyncio.sleep(0.02)


async def test_says_what_a_newcomer_needs_and_the_python_it_prints_works(tmp_path: Path) -> None:
    async with a_gateway_process(tmp_path, "--demo") as running:
        assert "a simulated Claude API answers" in running.greeting
        assert f"curl {running.url}/v1/messages" in running.greeting
        python = re.search(r"official SDK[^\n]*:\n\n(.*?)\n\n", running.greeting, re.DOTALL)
        assert python is not None
        lines = [line.strip() for line in python[1].splitlines()]
        assert len(lines) == 4
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "\n".join(lines), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        assert b"Message(" in out

        assert await get(running.admin_url, "/readyz") == (200, '{"status": "ok"}')
        status, page = await get(running.admin_url, "/metrics")
        assert status == 200
        assert 'gateway_requests_total{endpoint="messages",model="claude-opus-5-5"' in page


async def test_all_that_it_says_to_a_program_is_one_json_object_a_line(tmp_path: Path) -> None:
    """From where it listens to that it drains; and why it cannot start."""
    environ = {"ANTHROPIC_API_KEY": "none", "GATEWAY_DRAIN__ANNOUNCE": "100ms"}
    async with a_gateway_process(tmp_path, environ=environ) as running:
        assert (await get(running.url, "/v1/models"))[0] == 401
        running.signal(signal.SIGTERM)
        assert running.process.stdout is not None
        said = running.greeting + (await asyncio.wait_for(running.process.stdout.read(), 60)).decode()
        assert await running.ended() == 0
    lines = [json.loads(line) for line in said.splitlines()]
    messages = [line["message"] for line in lines if "message" in line]
    assert f"Apps call {running.url}" in messages
    assert any(message.startswith("Draining") for message in messages)
    assert [line["status"] for line in lines if "status" in line] == [401]

    (tmp_path / "ledger.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(AssertionError, match="the gateway ended: ") as ended:
        async with a_gateway_process(tmp_path, environ=environ):
            pass
    *_, last = [
        json.loads(line) for line in str(ended.value).partition("the gateway ended: ")[2].splitlines()
    ]
    assert last["message"].startswith("The gateway cannot start:\n")
    assert last["level"] == "critical"


async def test_drains_long_streams_on_sigterm_and_writes_everything_down(tmp_path: Path) -> None:
    async with a_gateway_process(tmp_path, "--demo", environ={"GATEWAY_DRAIN__ANNOUNCE": "1s"}) as running:
        async with (
            AsyncAnthropic(base_url=running.url, api_key=running.key, max_retries=0) as client,
            client.messages.stream(model=MODEL, max_tokens=200, messages=ASK) as stream,
        ):
            first = await anext(aiter(stream.text_stream))
            running.signal(signal.SIGTERM)
            await until_it_refuses(running)
            final = await stream.get_final_message()

        assert first
        assert final.stop_reason in ("end_turn", "max_tokens")
        assert await running.ended() == 0
    totals = read_totals(running.ledger, [Dimension.WORKSPACE], start_ms=0, end_ms=2**62)
    assert (totals[0].requests, totals[0].output_tokens) == (1, final.usage.output_tokens)


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    async with a_gateway_process(tmp_path, "--demo") as running:
        client = AsyncAnthropic(base_url=running.url, api_key=running.key, max_retries=0)
        async with client:
            stream = await client.messages.create(
                model=MODEL,
                max_tokens=2_000,
                messages=[{"role": "user", "content": "Say 900 words."}],
                stream=True,
            )
            await anext(aiter(stream))
            running.signal(signal.SIGINT)
            await until_it_refuses(running)
            stopped = time.monotonic()
            running.signal(signal.SIGINT)

            assert await running.ended() == 0
            assert time.monotonic() - stopped < 10
    totals = read_totals(running.ledger, [Dimension.WORKSPACE], start_ms=0, end_ms=2**62)
    assert totals[0].requests == 1


async def test_nothing_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """What was answered is in the ledger a moment later; budgets go on where they were."""
    async with a_gateway_process(tmp_path, "--demo") as running:
        async with AsyncAnthropic(base_url=running.url, api_key=running.key) as client:
            message = await client.messages.create(model=MODEL, max_tokens=50, messages=ASK)
        async with asyncio.timeout(30):
            while await set_aside(running) > 0:  # noqa: ASYNC110  # it can only be asked
                await asyncio.sleep(0.05)
        running.signal(signal.SIGKILL)
        await running.ended()
    totals = read_totals(running.ledger, [Dimension.WORKSPACE], start_ms=0, end_ms=2**62)
    spent = totals[0].cost_nanousd / 1e9

    assert totals[0].output_tokens == message.usage.output_tokens
    async with a_gateway_process(tmp_path, "--demo") as running:
        assert await _gauge(running, "gateway_budget_used_usd") == spent > 0


async def set_aside(running: Running) -> int:
    """Of all budgets: what an answered call had set aside is given back once the ledger has its entry."""
    status, told = await get(running.admin_url, "/v1/budgets")
    assert status == 200, told
    budgets = json.loads(told)["budgets"]
    assert budgets
    return sum(each["set_aside"]["value"] for each in budgets)


async def _gauge(running: Running, name: str) -> float:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        _, page = await get(running.admin_url, "/metrics")
        if (match := re.search(rf'^{name}{{.*workspace="demo".*}} (\S+)$', page, re.MULTILINE)) is not None:
            return float(match[1])
        await asyncio.sleep(0.2)
    raise AssertionError(f"no {name}")


async def test_reloads_without_a_restart_and_keeps_the_last_good_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config", config)
    limits, workspaces = config / "limits.yaml", config / "workspaces.yaml"
    good = workspaces.read_text()
    async with a_gateway_process(tmp_path / "state", "--demo", "--config", str(config)) as running:
        async with AsyncAnthropic(base_url=running.url, api_key=running.key, max_retries=0) as client:

            async def status() -> int:
                raw = client.messages.with_raw_response
                try:
                    return (await raw.create(model=MODEL, max_tokens=5, messages=ASK)).status_code
                except Exception as error:
                    return int(getattr(error, "status_code", 0))

            assert await status() == 200
            limits.write_text("defaults: [{id: x, nonsense: 1}]")
            workspaces.write_text(good.replace("models: []", "models: [claude-haiku-*]"))
            running.signal(signal.SIGHUP)
            async with asyncio.timeout(30):
                while REFUSED not in (await get(running.admin_url, "/metrics"))[1]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert await status() == 200, "a bad file changes nothing"
            shutil.copy(ROOT / "config/limits.yaml", limits)
            running.signal(signal.SIGHUP)
            deadline = time.monotonic() + 30
            while await status() != 403:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        _, page = await get(running.admin_url, "/metrics")
        assert REFUSED in page


async def test_says_what_is_wrong_and_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config", config)
    file = config / "gateway.yaml"
    file.write_text(file.read_text().replace("placement:", "placment:"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "run", "--config", str(config)),
        cwd=ROOT,
        env={**os.environ, "ANTHROPIC_API_KEY": "sk-test"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)

    assert process.returncode == 1
    assert re.search(r'gateway\.yaml:\d+:\d+.*did you mean "placement"', out.decode(), re.DOTALL)


async def test_the_demo_plays_and_its_books_equal_the_bill() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 150)
    text = out.decode()

    assert process.returncode == 0, text
    assert "the same to the nano-dollar" in text
    for workspace in ("coding", "support", "summaries"):
        assert workspace in text
