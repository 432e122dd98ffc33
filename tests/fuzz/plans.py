"""What is decided about bodies that can be read: placing, estimating and warming never fail on one, whatever
its fields hold. A failure of placing would go unseen, since the client's own bytes are sent then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.core.errors import BadRequest
from gateway.core.ids import WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.plan import estimate_plan, place_call, read_call
from gateway.core.planner import PlannerOptions
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import EstimateMode
from gateway.core.warmup import plan_warm_up
from tests.fuzz.bodies import WORDS, short_bodies
from tests.fuzz.mutate import MOST_BYTES
from tests.fuzz.target import Check, Target
from tests.support.bodies import corpus, dump
from tests.support.fakes import make_rules

AT = 1_800_000_000.0


@asynccontextmanager
async def _planning(folder: Path) -> AsyncIterator[Check]:
    rules = make_rules(folder, {})
    workspace = rules.workspaces[WorkspaceId("demo")]
    policies = (LearnedPolicy(PlannerOptions(capacity=1 << 10)), RulePolicy())
    modes = [replace(workspace, estimate=mode) for mode in EstimateMode]
    calls = 0

    async def check(body: bytes) -> None:
        nonlocal calls
        for policy in policies:
            calls += 1
            try:
                reading = read_call(
                    body, rules=rules, workspace=workspace, policy=policy, headers=(), wanted=True
                )
            except BadRequest:
                return
            plan = place_call(
                reading, rules=rules, workspace=workspace, policy=policy, call_id=f"c{calls}", at=AT + calls
            )
            policy.failed(f"c{calls}", AT + calls)
            assert plan.failure is None, plan.failure
            for house in modes:
                estimate = estimate_plan(plan, rules=rules, workspace=house, at=AT)
                assert estimate.nanousd >= 0
                assert estimate.input_tokens >= 0
                assert estimate.output_tokens >= 0
        plan_warm_up(reading.prompt, reading.facts, workspace)

    yield check


_FIELDS = (
    b'"thinking":{"type":"enabled","budget_tokens":1e3},', b'"speed":"fast",', b'"inference_geo":"us",',
    b'"service_tier":"\\ud800",', b'"speed":"\\ud800",', b'"inference_geo":"\xc3\xa9",',
    b'"output_config":{},', b'"max_uses":1e99,', b'"max_uses":-1,', b'"context_management":{"edits":[]},',
    b'"thread":{"type":"create"},', b'"web_search_20250305"', b'"tool_choice":{"type":"none"},',
    b'"fallbacks":[],', b'"betas":[1],',
)  # fmt: skip


def long_enough() -> Sequence[bytes]:
    """Bodies that are worth a breakpoint, beside the short ones."""
    return [dump(body) for body in corpus().values() if len(dump(body)) < MOST_BYTES] + list(short_bodies())


TARGETS = (Target(name="plan", open=_planning, seeds=long_enough, words=(*WORDS, *_FIELDS), rounds=150),)
