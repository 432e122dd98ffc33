"""`gateway prewarm`, as a deploy hook runs it: without a terminal, through a running gateway, with the
simulated API behind it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.e2e.whole.calls import LONG, MODEL, call
from tests.support.process import ROOT
from tests.support.stack import WORKSPACES, Stack, a_stack

TOKEN = "an-admin-token-for-tests"
PROMPT: Mapping[str, Any] = {
    "model": MODEL,
    "max_tokens": 40,
    "system": LONG * 2,
    "messages": [{"role": "user", "content": "warmup"}],
}
OTHER = {**PROMPT, "system": LONG * 3}
FORCED = {
    **PROMPT,
    "tools": [{"name": "t", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any"},
}


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


async def prewarm(*arguments: str, stdin: bytes = b"", **environ: str) -> Ran:
    """In this process, beside the gateway, since starting another takes a second each time."""
    ran = await asyncio.to_thread(
        CliRunner().invoke, app, ["prewarm", *arguments], input=stdin, env=environ, catch_exceptions=False
    )
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


async def as_a_process(*arguments: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "prewarm", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def lines(*bodies: Any) -> str:
    return "".join(json.dumps(body) + "\n" for body in bodies)


def a_file(folder: Path, text: str) -> Path:
    path = folder / "Prompts of today.jsonl"
    path.write_text(text)
    return path


def writes(stack: Stack) -> list[int]:
    """Tokens that each request has written, of those that have."""
    usages = [request.usage or {} for request in stack.simulator.requests]
    return [
        usage["cache_creation_input_tokens"] for usage in usages if usage.get("cache_creation_input_tokens")
    ]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    workspaces = WORKSPACES.replace("small: {", "small: {warming_per_day: $0.000001, ")
    async with a_stack(tmp_path, workspaces=workspaces) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return a_file(tmp_path, lines(PROMPT))


async def test_a_second_run_finds_all_warm_and_upstream_wrote_once(stack: Stack, tmp_path: Path) -> None:
    file = a_file(tmp_path, lines(PROMPT, OTHER))
    options = (str(file), "--workspace", "demo", "--url", stack.service.admin_url)
    first = await as_a_process(*options)
    second = await as_a_process(*options)

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out.startswith("1/2 line 1: warmed\n2/2 line 2: warmed\n")
    assert "2 of 2 warm" in first.out
    assert "already warm" in second.out
    assert len(writes(stack)) == 2
    assert len(stack.simulator.requests) == 4


async def test_the_first_real_call_reads_what_was_warmed(stack: Stack, file: Path) -> None:
    await prewarm(str(file), "-w", "demo", "--url", stack.service.admin_url)
    (written,) = writes(stack)
    question = {**PROMPT, "messages": [{"role": "user", "content": "What is the weather like?"}]}
    usage = (await call(stack, question)).json["usage"]

    assert usage["cache_read_input_tokens"] == written
    status = await prewarm("--status", "--json", "--url", stack.service.admin_url)
    (prefix,) = json.loads(status.out)["prefixes"]
    assert (prefix["name"], prefix["cause"], prefix["reads"]) == ("prompts-of-today", "asked", 1)
    assert prefix["cost"]["nanousd"] > 0
    assert prefix["saved"]["nanousd"] > 0


async def test_one_that_cannot_be_warmed_is_told_with_its_sentence(stack: Stack, tmp_path: Path) -> None:
    file = a_file(tmp_path, "\n" + lines(FORCED, PROMPT))
    ran = await prewarm(str(file), "-w", "demo", "--url", stack.service.admin_url)

    assert ran.code == 1
    assert "line 2: The API refuses a warm-up that forces a tool." in ran.out
    assert "1 of 2 warm" in ran.out
    assert len(stack.simulator.requests) == 1


async def test_what_the_budget_does_not_allow_is_told_and_not_sent(stack: Stack, tmp_path: Path) -> None:
    haiku = {**PROMPT, "model": "claude-haiku-4-5", "system": LONG * 4}
    file = a_file(tmp_path, lines(haiku))
    ran = await prewarm(str(file), "-w", "small", "--url", stack.service.admin_url)

    assert ran.code == 1
    assert "over budget" in ran.out
    assert stack.simulator.requests == []


async def test_a_file_that_is_wrong_is_told_by_line_before_anything_is_sent(tmp_path: Path) -> None:
    file = a_file(tmp_path, lines(PROMPT) + '{"model": \n' + lines({"messages": []}))
    ran = await prewarm(str(file), "-w", "demo", "--url", "http://127.0.0.1:1")

    assert ran.code == 2
    assert f"{file}:2: The request body is not valid JSON" in ran.err
    assert f"{file}:3: The request body names no model" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("absent.jsonl",),
        ("absent.jsonl", "-w", "demo"),
        ("--status", "x"),
        ("x", "-w", "y", "--url", "nowhere"),
    ],
)
async def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert (await prewarm(*arguments)).code == 2


async def test_no_gateway_is_told_and_ends_with_1(file: Path) -> None:
    ran = await prewarm(str(file), "-w", "demo", "--url", "http://127.0.0.1:1")

    assert ran.code == 1
    assert "No gateway answers at http://127.0.0.1:1" in ran.err
    assert "Traceback" not in ran.err


async def test_an_unknown_workspace_is_told_with_those_there_are(stack: Stack, file: Path) -> None:
    ran = await prewarm(str(file), "-w", "nobody", "--url", stack.service.admin_url)

    assert ran.code == 1
    assert "There is no workspace of this name; there are: demo, other, poor" in ran.err


async def test_prompts_come_from_standard_input_and_betas_from_an_option(stack: Stack) -> None:
    many, one = "context-management-2025-06-27,compact-2026-09-04", "context-management-2025-06-27"
    own = {"headers": {"anthropic-beta": one}, "body": OTHER}
    ran = await prewarm(
        *("-", "-w", "demo", "--beta", many, "--json", "--url", stack.service.admin_url),
        stdin=lines(PROMPT, own).encode(),
    )
    result = json.loads(ran.out)

    assert ran.code == 0
    assert [prompt["state"] for prompt in result["prompts"]] == ["warmed", "warmed"]
    assert result["summary"]["warm"] == 2
    sent = [dict(request.headers)[b"anthropic-beta"].decode() for request in stack.simulator.requests]
    assert sent == [many, one]


async def test_the_token_comes_from_the_environment(tmp_path: Path, file: Path) -> None:
    async with a_stack(
        tmp_path / "with-token",
        environ={"ADMIN": TOKEN, "GATEWAY_LISTEN__ADMIN_TOKEN": "{env: ADMIN}"},
    ) as stack:
        options = (str(file), "-w", "demo", "--url", stack.service.admin_url)
        without = await prewarm(*options)
        wrong = await prewarm(*options, GATEWAY_ADMIN_TOKEN="wrong")
        right = await prewarm(*options, "--token-env", "OWN_NAME", OWN_NAME=TOKEN)

    assert (without.code, wrong.code, right.code) == (1, 1, 0)
    assert "needs its admin token" in without.err
    assert TOKEN not in right.out + right.err


async def test_status_is_readable(tmp_path: Path, file: Path) -> None:
    schedules = (
        'warming: {schedules: {mornings: {cron: "45 8 * * mon-fri", timezone: Europe/Berlin, '
        f'workspace: demo, prompts: "{file}"}}}}}}\n'
    )
    async with a_stack(tmp_path / "stack", settings=schedules) as stack:
        empty = await prewarm("--status", "--url", stack.service.admin_url)
        await prewarm(str(file), "-w", "demo", "--name", "release-7", "--url", stack.service.admin_url)
        full = await prewarm("--status", "--url", stack.service.admin_url)

    assert empty.code == 0
    assert "Warmed prefixes, as this replica has seen them: none." in empty.out
    assert "mornings" in empty.out
    assert "not yet" in empty.out
    assert "release-7" in full.out
    assert "5.000000" in full.out
