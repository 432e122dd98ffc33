"""A prewarmer in a world of fakes, and what upstream may say to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.core.headers import Headers
from gateway.core.ids import WorkspaceId
from gateway.core.kept import KeptPrompts
from gateway.core.principal import warming_principal
from gateway.core.rules import Rules
from gateway.core.warming_book import WarmingBook
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState
from gateway.workers.prewarmer import Prewarmer
from tests.support.fakes import MODEL, Played, World, a_body, a_message

DEMO = WorkspaceId("demo")
WROTE = Played(pieces=[a_message(input_tokens=5, output_tokens=0, cache_creation_input_tokens=4_000)])
READ = Played(pieces=[a_message(input_tokens=5, output_tokens=0, cache_read_input_tokens=4_000)])
NEITHER = Played(pieces=[a_message(input_tokens=4_000, output_tokens=0)])


def refused(status: int, message: str = "no", headers: Headers = (), **details: str) -> Played:
    error = {"type": "rate_limit_error", "message": message, "details": details}
    body = json.dumps({"type": "error", "error": error}).encode()
    return Played(status=status, headers=[(b"content-type", b"application/json"), *headers], pieces=[body])


class Warming:
    """A world and a prewarmer in it."""

    def __init__(self, folder: Path, *script: Played, per_minute: int = 60) -> None:
        self.world = World(folder, *script)
        self.told: list[tuple[WarmCause, WarmState]] = []
        self.busy = False
        self._ids = iter(range(1_000))
        self.prewarmer = Prewarmer(
            handle=self.world.pipeline.handle,
            rules=lambda: self.world.rules,
            kept=KeptPrompts(1 << 20),
            book=WarmingBook(),
            clock=self.world.clock,
            new_id=lambda: f"gw_warm_{next(self._ids)}",
            per_minute=per_minute,
            busy=lambda: self.busy,
            tell=lambda _, cause, outcome: self.told.append((cause, outcome.state)),
        )
        self.world.observers.append(self.prewarmer)

    def change(self, **changed: Any) -> None:
        """Change the policy of workspace demo."""
        rules: Rules = self.world.rules
        demo = replace(rules.workspaces[DEMO], **changed)
        self.world.rules = replace(rules, workspaces={DEMO: demo})

    async def warm(self, body: Any = None, *, headers: Headers = (), **more: Any) -> WarmOutcome:
        data = json.dumps(a_body(**more) if body is None else body).encode()
        request = WarmRequest(workspace=DEMO, body=data, headers=headers, cause=WarmCause.ASKED, name="n")
        outcome = await self.prewarmer.warm(request)
        await self.world.tasks.drain(5.0)
        return outcome

    async def budget_spent(self) -> int:
        """What the workspace's budget for warm-ups was charged."""
        principal = warming_principal(DEMO, self.world.rules.workspaces[DEMO].organisation)
        bound = self.world.rules.limits.binding(principal, MODEL)
        verdicts = await self.world.memory.peek(bound)
        return next(v.spent for v in verdicts if v.bound.limit.id == "warming")

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(b"".join(request.body)) for request in self.world.upstream.requests]
