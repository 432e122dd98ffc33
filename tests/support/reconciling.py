"""The ledger against the simulator's reports: traffic, tampering, and the command that compares them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from typer.testing import CliRunner

from gateway.adapters.clock import SystemClock
from gateway.cli import app as gateway_app
from tests.e2e.whole.calls import ASK, LONG, call
from tests.support.stack import Stack

DAY = "2026-11-18"
ADMIN = "sk-test-admin-canary"
ACCOUNTS = ("--account", "default=wrkspc_1", "--account", "other=wrkspc_2")
CACHED = {**ASK, "system": LONG}


class MovableClock(SystemClock):
    """The system's clock, at another time of the calendar."""

    def __init__(self) -> None:
        self._offset = 0.0
        self.set(f"{DAY}T12:00:00")

    def set(self, text: str) -> None:
        """UTC; it goes on from there."""
        self._offset = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - super().now()

    def now(self) -> float:
        return super().now() + self._offset


@dataclass(frozen=True, slots=True)
class Said:
    """What the command answered."""

    code: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def causes(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.json["causes"]
        return found

    def unexplained(self) -> list[tuple[str, int]]:
        return [
            (row["kind"], row["unexplained"]["tokens"])
            for row in self.json["rows"]
            if row["unexplained"]["tokens"]
        ]


async def reconciled(
    stack: Stack,
    *arguments: str,
    first: str = DAY,
    last: str = DAY,
    accounts: tuple[str, ...] = ACCOUNTS,
    form: str = "--json",
    key: str = ADMIN,
) -> Said:
    """Stop the gateway, so that everything is written, and ask."""
    await stack.service.stop()
    environ = {
        "GATEWAY_CONFIG": str(stack.state.parent / "config"),
        "UPSTREAM_KEY": "unused",
        "OTHER_KEY": "unused",
        "ANTHROPIC_ADMIN_KEY": key,
        "COLUMNS": "250",
        "PATH": os.environ["PATH"],
    }
    command = ["reconcile", "--from", first, "--to", last, *accounts, *([form] if form else []), *arguments]
    run = await asyncio.to_thread(CliRunner().invoke, gateway_app, command, env=environ)
    assert run.exception is None or isinstance(run.exception, SystemExit), run.output
    return Said(run.exit_code, run.stdout if run.exit_code in (0, 1) or run.stdout else run.output)


async def edit(stack: Stack, **what: Any) -> None:
    """Through the simulator's control plane."""
    url = f"{stack.simulator.url}/_sim/reports"
    async with aiohttp.ClientSession() as session, session.post(url, json=what) as response:
        assert response.status == 200, await response.text()


async def some_traffic(stack: Stack) -> None:
    """Writes, reads and output; two models, two workspaces, streams and plain calls."""
    for body in (CACHED, CACHED, {**CACHED, "stream": True}, {**ASK, "model": "claude-haiku-4-5"}):
        assert (await call(stack, body)).status == 200
    assert (await call(stack, CACHED, key="other")).status == 200
