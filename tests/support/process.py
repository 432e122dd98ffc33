"""A gateway as people start it: a process of its own, on free ports, with a state of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.settings.gateway import LEDGER_FILE

ROOT = Path(__file__).parents[2]


@dataclass(kw_only=True)
class Running:
    process: asyncio.subprocess.Process
    greeting: str
    url: str
    admin_url: str
    key: str
    ledger: Path

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 50.0) -> int:
        return await asyncio.wait_for(self.process.wait(), seconds)


@asynccontextmanager
async def a_gateway_process(
    state: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> AsyncIterator[Running]:
    """`gateway run` with these arguments, once it has said where it listens; killed at the end if need be.
    `before` is what its process does before it becomes a gateway."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "GATEWAY_"))
    } | {
        "GATEWAY_LISTEN__DATA": "127.0.0.1:0",
        "GATEWAY_LISTEN__ADMIN": "127.0.0.1:0",
        "GATEWAY_STATE__DIRECTORY": str(state),
        **(environ or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "run", *arguments),
        cwd=ROOT,
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=before,
    )
    try:
        last = "drains and stops" if "--demo" in arguments else "/readyz"
        greeting = await asyncio.wait_for(_greeting(process, last), 120)
        yield Running(
            process=process,
            greeting=greeting,
            url=_found(r"Apps call\s+([^\s\"]+)", greeting),
            admin_url=_found(r"health (\S+)/metrics", greeting),
            key=_found(r"(cgw_\w+)", greeting) if "--demo" in arguments else "",
            ledger=state / "simulated" / LEDGER_FILE,
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _greeting(process: asyncio.subprocess.Process, last: str) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or last not in lines[-1]:
        line = await process.stdout.readline()
        assert line, "the gateway ended: " + "".join(lines)
        lines.append(line.decode())
    return "".join(lines)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]
