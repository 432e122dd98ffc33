"""A gateway's policy before the simulated API, without sockets, in virtual time; and what it tells."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.core.ids import WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.news import News
from gateway.core.plan import place_call, read_call
from gateway.core.planner import PlannerOptions
from gateway.core.rules import Workspace
from gateway.core.usage import Usage
from gateway.sim.answers import Script
from gateway.sim.engine import Engine, Run
from gateway.sim.validate import Caller
from tests.support.fakes import make_rules

MODEL = "claude-opus-5-5"
BEGINS = 1.8e9
OPTIONS = PlannerOptions(capacity=1 << 12, warming=False)
FIRST_BYTE, ENDED, ARRIVED = 0, 1, 2


class RecordedGateway:
    """`play` sends calls in the order of time; every tenth or so fails if `failing`."""

    def __init__(
        self,
        tmp_path: Path,
        tell: Callable[[News], None],
        *,
        options: PlannerOptions = OPTIONS,
        holdout_share: float = 0.0,
        failing: bool = False,
        **changed: Any,
    ) -> None:
        self.rules = make_rules(tmp_path, {})
        self.workspace: Workspace = replace(self.rules.workspaces[WorkspaceId("demo")], **changed)
        self.policy = LearnedPolicy(options, tell=tell, holdout_share=holdout_share)
        self.engine = Engine(seed=0, script=Script())
        self.held = 0
        self._failing = failing
        self._due: list[tuple[float, int, int, Any]] = []
        self._order = 0
        self._waiting: dict[str, list[tuple[str, bytes]]] = {}

    def play(self, calls: Iterable[tuple[float, dict[str, Any]]]) -> None:
        for number, (at, body) in enumerate(calls):
            self._push(BEGINS + at, ARRIVED, (f"call_{number}", json.dumps(body).encode(), False))
        while self._due:
            at, kind, _, what = heapq.heappop(self._due)
            if kind == ARRIVED:
                self._arrive(at, *what)
            elif kind == FIRST_BYTE:
                self._begin(at, *what)
            else:
                self._end(at, *what)

    def _push(self, at: float, kind: int, what: Any) -> None:
        self._order += 1
        heapq.heappush(self._due, (at, kind, self._order, what))

    def _arrive(self, at: float, call_id: str, body: bytes, final: bool) -> None:
        reading = read_call(
            body, rules=self.rules, workspace=self.workspace, policy=self.policy, headers=(), wanted=True
        )
        plan = place_call(
            reading,
            rules=self.rules,
            workspace=self.workspace,
            policy=self.policy,
            call_id=call_id,
            at=at,
            may_wait=not final,
        )
        assert plan.failure is None
        leader = plan.placement.wait_for
        if leader is not None:
            self.held += 1
            self._waiting.setdefault(leader, []).append((call_id, body))
            return
        sent = json.loads(b"".join(bytes(piece) for piece in plan.pieces))
        caller = Caller(workspace="demo", version="2023-06-01", betas=())
        run = self.engine.accept(sent, caller, request_id=call_id, at=at)
        seconds = 0.6 + (run.outcome.prompt_tokens - run.outcome.read_tokens) / 15_000
        self._push(at + seconds, FIRST_BYTE, (call_id, run))

    def _begin(self, at: float, call_id: str, run: Run) -> None:
        fails = self._failing and int(call_id.removeprefix("call_")) % 10 == 3
        if fails:
            self.policy.failed(call_id, at)
        else:
            self.engine.begin(run)
            self.policy.answered(call_id, at)
            self._push(at + 1.5, ENDED, (call_id, run))
        for waiting, body in self._waiting.pop(call_id, ()):
            self._push(at, ARRIVED, (waiting, body, True))

    def _end(self, at: float, call_id: str, run: Run) -> None:
        self.engine.finish(run, at=at)
        outcome = run.outcome
        usage = Usage(
            uncached_input_tokens=outcome.uncached_tokens,
            cache_read_tokens=outcome.read_tokens,
            cache_write_5m_tokens=outcome.write_5m_tokens,
            cache_write_1h_tokens=outcome.write_1h_tokens,
            output_tokens=run.answer.output_tokens,
        )
        self.policy.billed(call_id, usage, at)
