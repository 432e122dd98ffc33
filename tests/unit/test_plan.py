"""The plan for one body: what goes upstream, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import BadRequest
from gateway.core.ids import WorkspaceId
from gateway.core.placement import Breakpoint, Placement
from gateway.core.plan import Plan, estimate_plan, place_call, read_call, wants_placement
from gateway.core.prompt import TTL
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import EstimateMode, PlacementMode
from tests.support.fakes import a_body, make_rules


def plan(
    tmp_path: Path, mode: PlacementMode = PlacementMode.ON, body: bytes | None = None, wanted: bool = True
) -> Plan:
    rules = make_rules(tmp_path, {})
    workspace = replace(rules.workspaces[WorkspaceId("demo")], placement=mode)
    data = body if body is not None else json.dumps(a_body()).encode()
    policy = RulePolicy()
    wanted = wanted and wants_placement((), rules, workspace)
    reading = read_call(data, rules=rules, workspace=workspace, policy=policy, headers=(), wanted=wanted)
    return place_call(
        reading, rules=rules, workspace=workspace, policy=policy, call_id="c", at=1.8e9, wanted=wanted
    )


def test_shadow_decides_and_sends_the_same_bytes(tmp_path: Path) -> None:
    shadowed = plan(tmp_path, PlacementMode.SHADOW)

    assert shadowed.placement.breakpoints
    assert shadowed.pieces == (shadowed.prompt.body,)


@pytest.mark.parametrize("mode", [PlacementMode.OFF, PlacementMode.ON])
def test_off_decides_nothing(mode: PlacementMode, tmp_path: Path) -> None:
    off = plan(tmp_path, mode, wanted=mode is PlacementMode.OFF)

    assert not off.placement.breakpoints
    assert off.pieces[0] is off.prompt.body


def test_on_applies_what_was_decided(tmp_path: Path) -> None:
    placed = plan(tmp_path)

    assert b"".join(placed.pieces).count(b'"cache_control"') == len(placed.placement.breakpoints) > 0


@pytest.mark.parametrize("most", [32_000_000, 32 << 20])
def test_no_breakpoint_makes_a_body_longer_than_the_api_takes(most: int, tmp_path: Path) -> None:
    fields = a_body(metadata={"user_id": ""})
    room = most - len(json.dumps(fields))
    full, roomy = (
        plan(tmp_path, body=json.dumps(fields | {"metadata": {"user_id": "x" * size}}).encode())
        for size in (room, room - 1_000)
    )

    assert full.pieces == (full.prompt.body,)
    assert not full.placement.breakpoints
    assert "longer" in full.placement.reason
    assert roomy.placement.breakpoints
    assert len(roomy.prompt.body) < sum(map(len, roomy.pieces)) <= most


def test_a_body_that_cannot_be_read_is_the_clients_to_mend(tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        plan(tmp_path, body=b"{")


def test_knows_a_call_that_continues_a_thread(tmp_path: Path) -> None:
    thread = {"type": "continue", "previous_message_id": "msg_1"}

    assert plan(tmp_path, body=json.dumps(a_body(thread=thread)).encode()).continues_thread
    assert not plan(tmp_path, body=json.dumps(a_body(thread={"type": "create"})).encode()).continues_thread
    assert not plan(tmp_path).continues_thread


def test_strict_estimates_are_never_below_typical_ones(tmp_path: Path) -> None:
    rules = make_rules(tmp_path, {})
    workspace = rules.workspaces[WorkspaceId("demo")]
    typical, strict = (
        estimate_plan(plan(tmp_path), rules=rules, workspace=replace(workspace, estimate=mode), at=1.8e9)
        for mode in (EstimateMode.ESTIMATE, EstimateMode.STRICT)
    )

    assert strict.amounts.nanousd > typical.amounts.nanousd > 0


def test_what_fails_after_it_was_decided_does_not_count_as_sent(tmp_path: Path) -> None:
    class Wrong(RulePolicy):
        """Marks a block that there is not."""

        failures: list[tuple[str, float]]

        def plan(self, *args: object, **more: object) -> Placement:
            return Placement(breakpoints=(Breakpoint(99, TTL.FIVE_MINUTES, ""),))

        def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
            self.failures.append((call_id, at))

    rules, policy = make_rules(tmp_path, {}), Wrong()
    policy.failures = []
    workspace, body = rules.workspaces[WorkspaceId("demo")], json.dumps(a_body()).encode()
    reading = read_call(body, rules=rules, workspace=workspace, policy=policy, headers=(), wanted=True)
    plan = place_call(reading, rules=rules, workspace=workspace, policy=policy, call_id="c", at=5.0)

    assert plan.failure is not None
    assert plan.pieces == (body,)
    assert policy.failures == [("c", 5.0)]
