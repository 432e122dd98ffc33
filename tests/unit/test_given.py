"""Which calls are not the learned policy's to decide."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.given import given_placement, is_warm_up
from gateway.core.ids import WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.placement import Occasion, Placement
from gateway.core.plan import read_call
from gateway.core.rules import ClientMarks, PlacementMode
from tests.support.fakes import make_rules
from tests.unit.planner.callers import MODEL, QUIET, SYSTEM, a_call, a_warm_up


def given(
    tmp_path: Path,
    body: dict[str, Any],
    *,
    warm_up: bool = False,
    holdout_share: float = 0.0,
    **changed: Any,
) -> Placement | None:
    rules = make_rules(tmp_path, {})
    workspace = replace(rules.workspaces[WorkspaceId("demo")], **changed)
    data, policy = json.dumps(body).encode(), LearnedPolicy(QUIET)
    reading = read_call(data, rules=rules, workspace=workspace, policy=policy, headers=(), wanted=True)
    prices = rules.prices.factors(MODEL, at=0.0)
    occasion = Occasion(call_id="c", at=5.0, scope=reading.scope, prices=prices, warm_up=warm_up)
    placement = given_placement(
        reading.prompt, reading.keys, reading.facts, workspace, occasion, holdout_share=holdout_share
    )
    assert is_warm_up(reading.prompt, occasion) is (warm_up or body["max_tokens"] == 0)
    return placement


def test_an_unmarked_prompt_is_to_be_decided(tmp_path: Path) -> None:
    assert given(tmp_path, a_call("q", system=SYSTEM)) is None


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"max_tokens": 0},
    ],
)
def test_server_tools_and_warm_ups_go_by_rule(tmp_path: Path, more: dict[str, Any]) -> None:
    placement = given(tmp_path, {**a_call("q", system=SYSTEM), **more})

    assert placement is not None
    assert placement.breakpoints


def test_what_clients_mark_is_completed_where_the_workspace_says_so(tmp_path: Path) -> None:
    marked = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    body = a_call("q" * 30_000, system=marked, tools=[{"name": "t", "input_schema": {}}])  # type: ignore[arg-type]
    alone, completed = given(tmp_path, body), given(tmp_path, body, client_marks=ClientMarks.COMPLETE)

    assert alone is not None
    assert not alone.breakpoints
    assert completed is not None
    assert completed.breakpoints


def test_a_warm_up_of_the_gateways_brings_its_own_breakpoints(tmp_path: Path) -> None:
    placement = given(tmp_path, a_warm_up(SYSTEM), warm_up=True, client_marks=ClientMarks.COMPLETE)

    assert placement is not None
    assert not placement.breakpoints


def test_left_alone_are_as_many_as_were_asked_for_and_none_in_shadow_mode(tmp_path: Path) -> None:
    bodies = [a_call(f"question {number}", system=SYSTEM) for number in range(40)]
    alone = [given(tmp_path, body, holdout_share=0.5) for body in bodies]
    shadowed = [given(tmp_path, body, holdout_share=1.0, placement=PlacementMode.SHADOW) for body in bodies]

    assert 8 < sum(placement is not None and placement.holdout for placement in alone) < 32
    assert shadowed == [None] * 40
