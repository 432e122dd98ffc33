"""The simulated API's state, shared by all endpoints, and what every request goes through first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.ports import Clock
from gateway.sim.answers import Script, ScriptHook
from gateway.sim.credentials import Credentials
from gateway.sim.engine import Engine
from gateway.sim.faults import Faults
from gateway.sim.federation import Federated
from gateway.sim.pacing import AT_ONCE, Pacing
from gateway.sim.ratelimits import RateLimits
from gateway.sim.records import Received, Records
from gateway.sim.report_lines import Reports
from gateway.sim.validate import Caller, read_betas, read_version
from gateway.sim.wire import decoded_body

if TYPE_CHECKING:
    from gateway.sim.batches import Batch
    from gateway.sim.files import StoredFile

ORGANIZATION_ID = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a simulator behaves. Constant while it runs."""

    pacing: Pacing = AT_ONCE
    seed: int = 0
    credentials: Mapping[str, str | Sequence[str]] | None = None
    """Credential to workspace, or workspaces; None takes any credential, each with its own workspace."""
    tier: str = "scale"
    enforce_limits: bool = False
    batch_seconds: float = 0.0
    """By the clock: how long a batch is in progress."""
    keep_requests: int = 10_000
    script: ScriptHook | None = None


class World:
    """Everything that the simulated API remembers."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.faults = Faults(options.seed)
        self.script = Script(options.script)
        self.engine = Engine(seed=options.seed, script=self.script)
        self.credentials = Credentials(options.credentials)
        self.federation = Federated()
        self.limits = RateLimits(options.tier, enforce=options.enforce_limits)
        self.records = Records(options.keep_requests)
        self.reports = Reports()
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, StoredFile] = {}
        self.base_url = ""
        """Where the simulator listens; `results_url` names this host, whoever relayed the request."""
        self._ids = 0

    def next_id(self, prefix: str) -> str:
        """A fresh id, the same in every run with the same seed and the same order of requests."""
        self._ids += 1
        digest = hashlib.blake2b(f"{self.options.seed} {self._ids}".encode(), digest_size=12)
        return f"{prefix}{digest.hexdigest()}"

    def plain_body(self, received: Received) -> bytes:
        """The body with its content encoding undone."""
        return decoded_body(received.body, received.header("content-encoding") or "")

    def caller(self, received: Received) -> Caller:
        """Who calls, by the headers. Raises 401, then 400 for a missing version or a strange beta."""
        betas = [v.decode("latin-1") for k, v in received.headers if k.lower() == b"anthropic-beta"]
        authorization = received.header("authorization")
        named = [name.strip() for line in betas for name in line.split(",")]
        workspace = self.federation.workspace(authorization, named, self.clock.now())
        if workspace is None:
            workspace = self.credentials.workspace(
                authorization=authorization,
                api_key=received.header("x-api-key"),
                asked=received.header("anthropic-workspace-id"),
            )
        received.workspace = workspace
        return Caller(
            workspace=workspace,
            version=read_version(received.header("anthropic-version")),
            betas=read_betas(betas),
        )
