"""The policy that learns, in the gateway's own values and in time of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.placement import block_tokens
from gateway.core.plan import Plan, Reading, place_call, read_call
from gateway.core.rules import ClientMarks, PlacementMode, Rules, Workspace
from gateway.core.usage import Usage
from tests.support.fakes import make_rules

MODEL = "claude-opus-5-5"


class Caller:
    """Asks the policy about calls, and tells it what each was billed."""

    def __init__(self, tmp_path: Path, **changed: Any) -> None:
        self.rules: Rules = make_rules(tmp_path, {})
        self.workspace: Workspace = replace(self.rules.workspaces[WorkspaceId("demo")], **changed)
        self.policy = LearnedPolicy()
        self.at = 1.8e9
        self.calls = 0
        self.alive: dict[PrefixKey, float] = {}

    def ask(self, body: dict[str, Any], *, seconds: float = 60.0, answer: bool = True) -> Plan:
        self.at += seconds
        self.calls += 1
        call_id = str(self.calls)
        data = json.dumps(body).encode()
        reading = read_call(
            data, rules=self.rules, workspace=self.workspace, policy=self.policy, headers=(), wanted=True
        )
        plan = place_call(
            reading,
            rules=self.rules,
            workspace=self.workspace,
            policy=self.policy,
            call_id=call_id,
            at=self.at,
            may_wait=True,
        )
        if answer:
            self.policy.answered(call_id, self.at + 1)
            self.policy.billed(call_id, self._billed(reading, plan), self.at + 2)
        return plan

    def _billed(self, reading: Reading, plan: Plan) -> Usage:
        """What the API's cache makes of it: reads the deepest live entry, writes at each breakpoint."""
        ends = block_tokens(reading.prompt, reading.facts)
        read = written = 0
        for point in plan.placement.breakpoints:
            for block in range(point.block, -1, -1):
                if self.alive.get(reading.keys[block], 0.0) > self.at:
                    read = max(read, ends[block])
                    self.alive[reading.keys[block]] = self.at + 300
                    break
            written = max(written, ends[point.block])
            self.alive[reading.keys[point.block]] = self.at + 300
        written = max(written, read)
        return Usage(
            uncached_input_tokens=ends[-1] - written,
            cache_read_tokens=read,
            cache_write_5m_tokens=written - read,
        )


def a_call(text: str, *, system: str = "", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 9, "system": system or "s", "messages": messages, **more}


def test_trap_12_stops_writing_what_is_never_read(tmp_path: Path) -> None:
    """Each prompt has a head that is never seen again; by rule every one of them would be written."""
    caller = Caller(tmp_path)
    plans = [caller.ask(a_call("q" * 900, system=f"{number} " + "word " * 4_000)) for number in range(120)]

    assert [len(plan.placement.breakpoints) for plan in plans[60:]] == [0] * 60
    assert "likely" in plans[-1].placement.reason


def test_trap_05_finds_the_last_stable_block_by_what_was_seen(tmp_path: Path) -> None:
    """The last block of `system` changes with each call; the one before it never does."""
    caller = Caller(tmp_path)
    stable = {"type": "text", "text": "word " * 4_000}
    for number in range(60):
        moving = {"type": "text", "text": f"It is {number} o'clock. " + "x" * 6_000}
        plan = caller.ask(a_call("q" * 900, system=[stable, moving]), seconds=20.0)  # type: ignore[arg-type]

    assert [point.block for point in plan.placement.breakpoints] == [0]


def test_trap_27_holds_who_follows_a_leader_on_a_cold_prefix(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    for number in range(20):
        caller.ask(a_call(f"{number}" * 50, system="word " * 8_000), seconds=5.0)
    cold = "other " * 8_000
    caller.ask(a_call("leader", system=cold), seconds=1.0, answer=False)
    leader = str(caller.calls)
    follower = caller.ask(a_call("follower", system=cold), seconds=0.1, answer=False)

    assert follower.placement.wait_for == leader


def test_what_clients_mark_goes_by_rule(tmp_path: Path) -> None:
    mark = {"type": "ephemeral"}
    system = [{"type": "text", "text": "word " * 4_000, "cache_control": mark}]
    hands_off = Caller(tmp_path).ask(a_call("q", system=system))  # type: ignore[arg-type]
    caller = Caller(tmp_path, client_marks=ClientMarks.COMPLETE)
    completed = caller.ask(a_call("q" * 30_000, system=system, tools=[{"name": "t", "input_schema": {}}]))  # type: ignore[arg-type]

    assert hands_off.pieces == (hands_off.prompt.body,)
    assert completed.placement.breakpoints


def test_shadow_learns_as_if_it_had_been_sent(tmp_path: Path) -> None:
    caller = Caller(tmp_path, placement=PlacementMode.SHADOW)
    plans = [caller.ask(a_call("q" * 900, system="word " * 4_000), seconds=10.0) for _ in range(12)]

    assert all(plan.pieces == (plan.prompt.body,) for plan in plans)
    assert plans[-1].placement.breakpoints


def test_forgets_calls_that_failed(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    caller.ask(a_call("q", system="word " * 4_000), answer=False)
    caller.policy.failed("1", caller.at + 1)
    caller.policy.failed("1", caller.at + 1)
    caller.policy.billed("1", Usage(), caller.at + 2)
    caller.policy.billed("never asked", Usage(), caller.at + 2)

    assert not caller.policy._ids


def test_a_clock_that_goes_back_does_no_harm(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    caller.ask(a_call("q", system="word " * 4_000))
    plan = caller.ask(a_call("r", system="word " * 4_000), seconds=-7_200.0)

    assert plan.failure is None
