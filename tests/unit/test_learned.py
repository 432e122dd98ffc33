"""The policy that learns, in the gateway's own values and in time of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.learned import LearnedPolicy, WarmUp
from gateway.core.news import Answered, Billed, Failed, News, Sent, Warmed
from gateway.core.planner import PlannerOptions
from gateway.core.rules import ClientMarks, PlacementMode
from gateway.core.usage import Usage
from tests.support.remembered import exported
from tests.unit.planner.callers import QUIET, SYSTEM, Caller, a_call, a_warm_up, by_turns, replicas

WARMING = PlannerOptions(capacity=1 << 12, opening_tokens=1e9, layered_trust=0.0)


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

    assert not len(caller.policy._calls)


def test_a_clock_that_goes_back_does_no_harm(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    caller.ask(a_call("q", system="word " * 4_000))
    plan = caller.ask(a_call("r", system="word " * 4_000), seconds=-7_200.0)

    assert plan.failure is None


def test_tells_what_became_of_each_call_in_order(tmp_path: Path) -> None:
    one, _ = replicas(tmp_path)
    placed = one.ask(a_call("q", system=SYSTEM), final=True).placement.breakpoints
    one.ask(a_call("r", system=SYSTEM), answer=False, final=True)
    one.policy.failed("one-2", one.at)
    one.policy.failed("one-2", one.at)

    assert [type(news) for news in one.news] == [Sent, Answered, Billed, Sent, Failed]
    sent, _, billed, *_ = one.news
    assert isinstance(sent, Sent)
    assert isinstance(billed, Billed)
    assert sent.marks == tuple((point.block, False) for point in placed)
    assert (sent.workspace, sent.decided, sent.warm_up) == ("demo", True, False)
    assert billed.uncached + billed.write_5m + billed.read == sent.ends[-1]


def test_tells_the_clients_own_breakpoints(tmp_path: Path) -> None:
    one, _ = replicas(tmp_path)
    marked = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    one.ask(a_call("q", system=marked), final=True)  # type: ignore[arg-type]

    assert isinstance(one.news[0], Sent)
    assert (one.news[0].marks, one.news[0].decided) == (((0, True),), False)
    assert one.policy.planner.accounts == {}


def test_claims_what_it_would_write_and_learns_nothing_before_the_final_answer(tmp_path: Path) -> None:
    one, _ = replicas(tmp_path)
    one.ask(a_call("q", system=SYSTEM), answer=False, call_id="c")
    untouched = one.policy.planner.table.used == 0 and not one.news
    claiming = one.ask(a_call("q", system=SYSTEM), answer=False, seconds=0.0, call_id="c")
    final = one.ask(a_call("q", system=SYSTEM), answer=False, seconds=0.01, call_id="c", final=True)

    assert untouched
    assert claiming.placement.claims
    assert claiming.pieces == (claiming.prompt.body,)
    assert final.placement.breakpoints
    assert "held" not in final.placement.reason


def test_replicas_claim_a_common_key_of_a_cold_prefix_that_two_prompts_share(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    first = one.ask(a_call("q" * 40_000, system=SYSTEM), answer=False)
    second = other.ask(a_call("r" * 40_000, system=SYSTEM), answer=False)

    assert set(first.placement.claims) & set(second.placement.claims)


def test_claims_nothing_where_claims_are_off_or_waiting_is_not_worth_it(tmp_path: Path) -> None:
    alone = Caller(tmp_path)
    one, _ = replicas(tmp_path)
    never = Caller(tmp_path, policy=LearnedPolicy(replace(QUIET, hold_seconds=0.0), claims=True))

    assert not alone.ask(a_call("q", system=SYSTEM)).placement.claims
    assert not one.ask(a_call("q", system="word " * 500)).placement.claims
    assert not never.ask(a_call("q", system=SYSTEM)).placement.claims


def test_says_that_a_call_was_held_by_anothers_claim(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    second = other.ask(a_call("r", system=SYSTEM), answer=False, call_id="follower")
    other.at = one.at = other.at + 0.1
    one.ask(a_call("q", system=SYSTEM), seconds=0.0, final=True, answer=False)
    one.policy.answered("one-1", one.at)
    read = other.ask(a_call("r", system=SYSTEM), seconds=2.0, answer=False, call_id="follower", final=True)

    assert second.placement.claims
    assert "was held 2.1 s, and reads" in read.placement.reason


def test_warm_up_of_a_client_is_read_and_is_no_reuse(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    caller.ask(a_warm_up(SYSTEM))
    watched = len(exported(caller.policy.planner.reuse)[2])
    read = caller.ask(a_call("q", system=SYSTEM))

    assert watched == 0
    assert read.placement.read_tokens > 1_000
    assert read.placement.miss is None


def test_warm_up_of_the_gateway_is_sent_as_it_is(tmp_path: Path) -> None:
    caller = Caller(tmp_path, client_marks=ClientMarks.COMPLETE)
    plan = caller.ask({**a_warm_up(SYSTEM), "tools": [{"name": "t", "input_schema": {}}]}, warm_up=True)

    assert plan.pieces == (plan.prompt.body,)
    assert caller.policy.planner.accounts == {}


def pausing(caller: Caller, sessions: int) -> None:
    """Sessions that pause for seven minutes after every other turn."""
    events = sorted(
        (60.0 * session + at, session, turn)
        for session in range(sessions)
        for turn, at in enumerate((0.0, 20.0, 440.0, 460.0, 880.0, 900.0))
    )
    for at, session, turn in events:
        caller.at = 1.8e9 + at
        body = a_call(f"{session} " * 20_000)
        for number in range(turn):
            body["messages"] += [
                {"role": "assistant", "content": f"answer {number} " * 3_000},
                {"role": "user", "content": f"question {number}"},
            ]
        caller.ask(body, seconds=0.0, final=True)


def warming(tmp_path: Path, **changed: Any) -> tuple[Caller, list[News]]:
    told: list[News] = []
    caller = Caller(tmp_path, policy=LearnedPolicy(WARMING, tell=told.append), **changed)
    pausing(caller, 40)
    return caller, told


def test_asks_for_warm_ups_of_prompts_that_it_had_kept(tmp_path: Path) -> None:
    caller, told = warming(tmp_path, warming_nanousd_per_day=1)
    policy = caller.policy
    due_at = policy.next_due()
    assert due_at is not None
    ready: list[WarmUp] = []
    at = due_at
    while not ready:
        at = max(at, policy.next_due() or at)
        ready = policy.due(at)
    first = ready[0]
    saved = sum(account.saved for account in policy.planner.accounts.values())
    policy.warmed(first, Usage(cache_read_tokens=first.tokens), at + 1.0)

    assert first.call_id in {str(number) for number in range(1, caller.calls + 1)}
    assert [point.block for point in first.marks] == [first.upto]
    assert 0.0 < first.chance < 1.0
    assert first.reason == first.marks[0].reason
    assert isinstance(told[-1], Warmed)
    assert told[-1].key == first.key
    assert sum(account.saved for account in policy.planner.accounts.values()) == pytest.approx(saved)


def test_warm_up_that_was_not_sent_is_given_back(tmp_path: Path) -> None:
    caller, _ = warming(tmp_path, warming_nanousd_per_day=1)
    policy, at = caller.policy, 0.0
    ready: list[WarmUp] = []
    while not ready:
        at = policy.next_due() or at
        saved = sum(account.saved for account in policy.planner.accounts.values())
        ready = policy.due(at)
    for each in ready:
        policy.not_warmed(each, at)

    assert sum(account.saved for account in policy.planner.accounts.values()) == pytest.approx(saved)


def test_says_up_to_where_to_keep_a_prompt_that_may_be_warmed(tmp_path: Path) -> None:
    caller, _ = warming(tmp_path, warming_nanousd_per_day=1)
    body = a_call("39 " * 20_000)
    body["messages"] += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    plan = caller.ask(body, final=True)

    assert plan.placement.keep_upto in {point.block for point in plan.placement.breakpoints}


@pytest.mark.parametrize(("budget", "mode"), [(0, PlacementMode.ON), (1, PlacementMode.SHADOW)])
def test_warms_nothing_without_a_budget_or_in_shadow_mode(
    tmp_path: Path, budget: int, mode: PlacementMode
) -> None:
    caller, _ = warming(tmp_path, warming_nanousd_per_day=budget, placement=mode)

    assert caller.policy.next_due() is None


def test_restored_policy_decides_as_the_one_before(tmp_path: Path) -> None:
    before = Caller(tmp_path)
    by_turns(before, before)
    after = Caller(tmp_path)

    assert after.policy.restore(b"".join(before.policy.snapshot()))
    after.at = before.at
    body = a_call("3", system=SYSTEM)
    assert after.ask(body, final=True).placement == before.ask(body, final=True).placement
    assert [account.plain for account in after.policy.planner.accounts.values()] == [
        account.plain for account in before.policy.planner.accounts.values()
    ]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x80", b"\xdc\xff\xff"])
def test_takes_up_nothing_that_is_damaged(tmp_path: Path, data: bytes) -> None:
    assert not LearnedPolicy(QUIET).restore(data)


def test_holdout_leaves_whole_conversations_alone_and_learns_from_them(tmp_path: Path) -> None:
    caller = Caller(tmp_path, policy=LearnedPolicy(QUIET, holdout_share=0.5))
    plans = by_turns(caller, caller)
    by_session = [{plan.placement.holdout for plan in plans[session::8]} for session in range(8)]

    assert all(len(fates) == 1 for fates in by_session)
    assert {True} in by_session
    assert {False} in by_session
    assert all(not plan.placement.breakpoints for plan in plans if plan.placement.holdout)
    assert exported(caller.policy.planner.reuse)[2]


def test_shadow_holds_nobody_and_tells_only_what_is_sent(tmp_path: Path) -> None:
    told: list[News] = []
    policy = LearnedPolicy(QUIET, tell=told.append, claims=True, holdout_share=0.5)
    caller = Caller(tmp_path, policy=policy, placement=PlacementMode.SHADOW)
    by_turns(caller, caller)
    cold = "other " * 8_000
    plans = [caller.ask(a_call(text, system=cold), seconds=0.1, answer=False) for text in ("a", "b")]

    assert all(plan.placement.wait_for is None and not plan.placement.claims for plan in plans)
    assert not any(plan.placement.holdout for plan in plans)
    assert plans[0].placement.write_5m_tokens > 0
    assert plans[0].placement.prompt_tokens >= plans[0].placement.write_5m_tokens
    assert all(not news.marks for news in told if isinstance(news, Sent))
