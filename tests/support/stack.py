"""The whole thing on real sockets: a simulated API, a gateway in front of it, keys for several workspaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from gateway.adapters import sqlite_budgets
from gateway.adapters.ledger_queries import read_totals
from gateway.core.ids import WorkspaceId
from gateway.core.ledger import Dimension, Total
from gateway.core.principal import RANDOM_BYTES, KeyRecord, mint_key
from gateway.ports import Clock
from gateway.service import Service
from gateway.settings import load_settings, packaged_directory
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.pacing import AT_ONCE, Pacing
from gateway.sim.server import Simulator
from tests.support import canaries

UPSTREAM_CREDENTIAL = canaries.UPSTREAM_CREDENTIAL
WORKSPACES = """\
workspaces:
  demo: {upstream: default}
  other: {upstream: other}
  small: {upstream: default, models: [claude-haiku-*]}
  poor: {upstream: default}
  shadow: {upstream: default, placement: shadow}
"""
LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}
overrides:
  - {limit: month, subject: poor, amount: $0.000001, comment: test}
"""


@dataclass(kw_only=True)
class Stack:
    """One running stack. `keys` maps a workspace, or what is wrong with a key, to a key's text."""

    simulator: Simulator
    service: Service
    keys: Mapping[str, str]
    state: Path

    @property
    def url(self) -> str:
        return self.service.data_url

    async def books(self, *by: Dimension) -> tuple[Total, ...]:
        """Stop the gateway, so that everything is written, and read its ledger."""
        await self.service.stop()
        return read_totals(self.state / LEDGER_FILE, by, start_ms=0, end_ms=2**62)


@asynccontextmanager
async def a_stack(
    folder: Path,
    *,
    pacing: Pacing = AT_ONCE,
    limits: str = LIMITS,
    environ: Mapping[str, str] | None = None,
    quiet: bool = True,
    settings: str = "",
    workspaces: str = WORKSPACES,
    clock: Clock | None = None,
    simulator: Simulator | None = None,
) -> AsyncIterator[Stack]:
    """Start on free ports; stop at the end, if a test has not done so. Not `quiet`: with the access log.
    `settings` are added to gateway.yaml; `clock` is the gateway's and the simulator's. A `simulator` that is
    given runs already, is shared, and is not stopped. Fails at the end where the gateway left a planted text
    or a key behind. A disk that others load may take its time for a sync: decisions wait for the budget file
    for longer than they do in service."""
    shared = simulator is not None
    simulator = simulator or a_simulator(pacing, clock)
    url = simulator.url if shared else await simulator.start()
    config, state = folder / "config", folder / "state"
    config.mkdir(parents=True, exist_ok=True)
    (config / "gateway.yaml").write_text(_gateway_yaml(url, state) + settings)
    (config / "workspaces.yaml").write_text(workspaces)
    (config / "limits.yaml").write_text(limits)
    (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
    variables = {
        "UPSTREAM_KEY": UPSTREAM_CREDENTIAL,
        "OTHER_KEY": canaries.OTHER_CREDENTIAL,
        **(environ or {}),
    }
    keys, records = _keys()
    service = Service(load_settings(config, variables), more_keys=records, quiet=quiet, clock=clock)
    await service.start()
    stack = Stack(simulator=simulator, service=service, keys=keys, state=state)
    try:
        with patch.object(sqlite_budgets, "DECIDE_SECONDS", 10.0):
            yield stack
    finally:
        await service.stop()
        if not shared:
            await simulator.stop()
    assert canaries.left_in(state, keys.values()) == []


def a_simulator(pacing: Pacing = AT_ONCE, clock: Clock | None = None) -> Simulator:
    """Not started. It knows the credentials of the stack's two upstreams."""
    return Simulator(
        pacing=pacing,
        credentials={UPSTREAM_CREDENTIAL: "wrkspc_1", canaries.OTHER_CREDENTIAL: "wrkspc_2"},
        clock=clock,
    )


def _gateway_yaml(upstream: str, state: Path) -> str:
    return f"""\
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
state: {{directory: "{state}"}}
upstreams:
  default: {{base_url: "{upstream}", credential: {{env: UPSTREAM_KEY}}}}
  other: {{base_url: "{upstream}", credential: {{env: OTHER_KEY}}, header: x-api-key}}
tags: {{headers: [x-team]}}
drain: {{announce: 0s, timeout: 5s}}
"""


def _keys() -> tuple[Mapping[str, str], Sequence[KeyRecord]]:
    keys: dict[str, str] = {}
    records: list[KeyRecord] = []
    for number, name in enumerate(("demo", "other", "small", "poor", "shadow", "expired", "unknown")):
        workspace = WorkspaceId("demo" if name in ("expired", "unknown") else name)
        text, record = mint_key(
            random_bytes=bytes([number + 1]) * RANDOM_BYTES,
            name=name,
            workspace=workspace,
            created_at=0.0,
            expires_at=1.0 if name == "expired" else None,
        )
        keys[name] = text
        if name != "unknown":
            records.append(record)
    return keys, records
