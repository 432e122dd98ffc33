"""What the policy that learns may lose and what it must not forget: bounds, clocks, those who are held."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as msgspec_replace

from gateway.core.learned import LearnedPolicy
from gateway.core.placement import Placement
from gateway.core.plan import place_call, read_call
from gateway.core.planner import PlannerOptions
from gateway.core.rules import ClientMarks
from gateway.core.usage import Usage
from tests.unit.planner.callers import SYSTEM, Caller, a_call, replicas

SERVER_TOOLS = [{"type": "web_search_20250305", "name": "web_search"}]
MARKED = [{"type": "text", "text": "m" * 9_000, "cache_control": {"type": "ephemeral"}}]


@pytest.mark.parametrize(
    "more",
    [{"tools": SERVER_TOOLS}, {"tools": [{"name": "t", "input_schema": {}}]}],
)
def test_what_is_added_by_rule_stops_where_the_bound_is_reached(tmp_path: Path, more: dict[str, Any]) -> None:
    """Prompts that never come again; by rule each of them is written."""
    caller = Caller(tmp_path, client_marks=ClientMarks.COMPLETE)
    client = "input_schema" in str(more)
    plans = []
    for number in range(120):
        system: Any = f"{number} " + "word " * 4_000
        if client:
            system = [*MARKED, {"type": "text", "text": system}]
        plans.append(caller.ask(a_call(f"{number}" * 9_000, system=system, **more), seconds=400.0))
    (account,) = caller.policy.planner.accounts.values()
    at_price = caller.rules.prices.input_nanousd(plans[0].prompt.model, at=caller.at)

    assert plans[0].placement.breakpoints
    assert not plans[-1].placement.breakpoints
    assert "used up" in plans[-1].placement.reason
    assert -account.saved <= max(65_536.0 * at_price, 0.005 * account.plain)


def test_a_thread_gets_nothing_and_teaches_nothing(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    plan = caller.ask(a_call("q", system=SYSTEM, thread={"type": "create"}))
    later = a_call("r", thread={"type": "continue", "previous_message_id": "m"})
    caller.ask(later, answer=False, call_id="later")
    caller.policy.billed("later", Usage(cache_read_tokens=50_000), caller.at + 2)

    assert not plan.placement.breakpoints
    assert not caller.policy.planner.accounts
    assert not len(caller.policy._calls)


def test_what_is_far_too_short_to_be_cached_teaches_nothing_and_what_nears_the_minimum_does(
    tmp_path: Path,
) -> None:
    caller = Caller(tmp_path)
    short = caller.ask(a_call("q"), answer=False)
    least = short.facts.minimum_cacheable_tokens * short.facts.bytes_per_token
    caller.ask(a_call("q", system="w" * int(0.6 * least)), answer=False)

    assert f"caches from {short.facts.minimum_cacheable_tokens} on" in short.placement.reason
    assert not len(caller.policy._calls)
    caller.ask(a_call("q", system="w" * int(0.8 * least)), answer=False)
    assert len(caller.policy._calls) == 1


def test_a_short_call_may_be_held_out_as_any_other(tmp_path: Path) -> None:
    """Else those that were would be compared with all that were not and the short ones."""
    caller = Caller(tmp_path, policy=LearnedPolicy(PlannerOptions(capacity=1 << 12), holdout_share=0.5))
    held_out = [caller.ask(a_call(f"{number}")).placement.holdout for number in range(40)]

    assert {True, False} == set(held_out)


def test_warm_ups_of_what_clients_mark_never_stop_placement_for_the_others(tmp_path: Path) -> None:
    policy = LearnedPolicy(PlannerOptions(capacity=1 << 12, layered_trust=0.0))
    caller = Caller(tmp_path, policy=policy, warming_nanousd_per_day=10**12)
    warmed = 0
    for number in range(90):
        session, turn = divmod(number, 12)
        text = {"type": "text", "text": f"{session} " + "w " * 60_000, "cache_control": {"type": "ephemeral"}}
        body = a_call("")
        body["messages"] = [{"role": "user", "content": [text]}]
        for at in range(turn):
            body["messages"] += [
                {"role": "assistant", "content": f"a{at}"},
                {"role": "user", "content": f"q{at}"},
            ]
        for _ in range(23):
            caller.at += 15.0
            for warm_up in policy.due(caller.at):
                warmed += 1
                policy.warmed(warm_up, Usage(cache_read_tokens=warm_up.tokens), caller.at)
        caller.ask(body, seconds=15.0, answer=False)
        usage = Usage(cache_read_tokens=30_000) if turn else Usage(cache_write_5m_tokens=30_000)
        policy.billed(str(caller.calls), usage, caller.at + 1.0)
    placed = [caller.ask(a_call(str(number), system=SYSTEM), seconds=5.0) for number in range(20)]

    assert warmed > 40
    assert all(account.saved > 0.0 for account in policy.planner.stakes.kept_accounts.values())
    assert placed[-1].placement.read_tokens > 1_000


def test_a_clock_that_runs_ahead_and_is_set_back_does_not_freeze_what_is_known(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    caller.ask(a_call("q", system=SYSTEM))
    caller.ask(a_call("q", system=SYSTEM), seconds=86_000.0)
    caller.ask(a_call("q", system=SYSTEM), seconds=-85_990.0)
    soon = caller.ask(a_call("r", system=SYSTEM), seconds=60.0)
    late = caller.ask(a_call("s", system=SYSTEM), seconds=700.0)

    assert soon.placement.read_tokens > 1_000
    assert late.placement.read_tokens == 0


def test_what_a_clock_that_was_ahead_has_saved_is_no_longer_in_the_future(tmp_path: Path) -> None:
    ahead, right = Caller(tmp_path), Caller(tmp_path)
    ahead.at += 30 * 86_400.0
    ahead.ask(a_call("q", system=SYSTEM))
    right.policy.restore(b"".join(ahead.policy.snapshot()))
    soon = right.ask(a_call("r", system=SYSTEM), seconds=60.0)
    late = right.ask(a_call("s", system=SYSTEM), seconds=700.0)

    assert soon.placement.read_tokens > 1_000
    assert late.placement.read_tokens == 0


def test_who_is_held_is_not_read_anew_each_time_it_asks(tmp_path: Path) -> None:
    """A long prompt costs milliseconds to make a question of."""
    one, _ = replicas(tmp_path)
    reading = read_call(
        json.dumps(a_call("q", system=SYSTEM)).encode(),
        rules=one.rules,
        workspace=one.workspace,
        policy=one.policy,
        headers=(),
        wanted=True,
    )

    def ask(*, may_claim: bool) -> Placement:
        return place_call(
            reading,
            rules=one.rules,
            workspace=one.workspace,
            policy=one.policy,
            call_id="c",
            at=one.at,
            may_wait=True,
            may_claim=may_claim,
        ).placement

    claiming = ask(may_claim=True)
    asked = one.policy._asked["c"]
    longer = [end + 7 for end in asked.question.ends]
    one.policy._asked["c"] = replace(asked, question=msgspec_replace(asked.question, ends=longer))
    final = ask(may_claim=False)

    assert claiming.claims
    assert final.prompt_tokens == longer[-1], "what was made of it at first"
    assert not one.policy._asked
