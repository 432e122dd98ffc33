"""Replicas that hear of each other's calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as msgspec_replace

from gateway.core.hearing import UNHEARD_SECONDS
from gateway.core.learned import LearnedPolicy
from gateway.core.news import Answered, News, Sent, Warmed
from gateway.core.rules import ClientMarks, PlacementMode
from tests.support.remembered import exported
from tests.unit.planner.callers import QUIET, SYSTEM, Caller, Replica, a_call, a_warm_up, by_turns, replicas


def test_trap_28_replicas_that_hear_of_each_other_decide_as_one(tmp_path: Path) -> None:
    alone = Caller(tmp_path)
    expected = [plan.placement.breakpoints for plan in by_turns(alone, alone)]
    one, other = replicas(tmp_path)
    placed = [plan.placement.breakpoints for plan in by_turns(one, other)]

    assert placed == expected
    assert one.policy.planner.accounts == other.policy.planner.accounts == alone.policy.planner.accounts
    counts = [exported(policy.planner.reuse)[:2] for policy in (one.policy, other.policy, alone.policy)]
    assert counts[0] == counts[1] == counts[2]


@dataclass
class Untold:
    """A replica whose news of calls are told to it with another `known`."""

    learned: LearnedPolicy
    known: tuple[int, ...]

    @property
    def policy(self) -> Untold:
        return self

    def hear(self, replica: str, news: News, at: float) -> None:
        untold = msgspec_replace(news, known=self.known) if isinstance(news, Sent) else news
        self.learned.hear(replica, untold, at)


@pytest.mark.parametrize("known", [(), (99, -1), (0,)])
def test_replica_that_is_not_told_what_was_known_of_a_prompt_finds_it_out(
    tmp_path: Path, known: tuple[int, ...]
) -> None:
    one, other = replicas(tmp_path)
    untold = Untold(LearnedPolicy(QUIET), known)
    for replica in (one, other):
        replica.others.append(untold)  # type: ignore[arg-type]
    by_turns(one, other)

    assert sum(bool(news.known) for news in one.news if isinstance(news, Sent)) > 10
    assert untold.learned.planner.accounts == one.policy.planner.accounts
    assert exported(untold.learned.planner.reuse)[:2] == exported(one.policy.planner.reuse)[:2]


def test_trap_28_follower_on_another_replica_waits_for_the_leader(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    by_turns(one, other)
    one.at = other.at = 1.8e9 + 2_000.0
    cold = "other " * 8_000
    one.ask(a_call("leader", system=cold), seconds=0.0, answer=False, call_id="leader", final=True)
    follower = other.ask(a_call("follower", system=cold), seconds=0.1, answer=False, call_id="f")
    one.policy.answered("leader", one.at + 1.0)
    again = other.ask(a_call("follower", system=cold), seconds=1.0, answer=False, call_id="f")

    assert follower.placement.wait_for == "leader"
    assert follower.placement.wait_tokens > 1_000
    assert again.placement.read_tokens == follower.placement.wait_tokens
    assert again.placement.reason.startswith("was held 1.0 s, and reads")


def test_replica_that_dies_has_its_calls_counted_as_failed(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    cold = "other " * 8_000
    one.ask(a_call("leader", system=cold), answer=False, call_id="leader", final=True)
    other.at = one.at
    gone = other.policy.gone("one-", one.at)
    follower = other.ask(a_call("follower", system=cold), seconds=0.1, answer=False, final=True)

    assert gone == ("leader",)
    assert follower.placement.wait_for is None
    assert follower.placement.read_tokens == 0


def test_call_of_which_nothing_more_is_heard_is_given_up(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    one.ask(a_call("q", system=SYSTEM), answer=False, final=True)
    staked = sum(account.at_stake for account in other.policy.planner.accounts.values())
    other.policy.hear("one-", Answered("unknown", 0.0), one.at + UNHEARD_SECONDS)

    assert staked > 0.0
    assert sum(account.at_stake for account in other.policy.planner.accounts.values()) == 0.0
    assert not len(other.policy._calls)


def test_news_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    one.ask(a_call("q", system=SYSTEM), final=True)
    sent = next(news for news in one.news if isinstance(news, Sent))
    for wrong in (
        msgspec_replace(sent, call="a", keys=sent.keys[:-1]),
        msgspec_replace(sent, call="b", marks=((99, False),)),
        msgspec_replace(sent, call="c", kinds=b""),
    ):
        other.policy.hear("one-", wrong, one.at)

    assert not len(other.policy._calls)


def test_warm_up_that_another_replica_sent_is_read(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    one.ask(a_warm_up(SYSTEM), warm_up=True)
    other.at = one.at
    read = other.ask(a_call("q", system=SYSTEM), seconds=250.0, final=True)

    assert read.placement.read_tokens > 1_000


def test_what_shadow_mode_would_have_sent_plays_on_elsewhere_too(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    for caller in (one, other):
        caller.workspace = replace(caller.workspace, placement=PlacementMode.SHADOW)
    by_turns(one, other)

    assert one.policy.planner.accounts == other.policy.planner.accounts
    assert all(account.saved > 0.0 for account in one.policy.planner.accounts.values())


def test_warmed_entry_lives_from_when_it_is_heard_of(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    one.ask(a_call("q", system=SYSTEM), final=True)
    key = one.policy.planner.table.keys[max(range(len(one.policy.planner.table.keys)), key=_expiry(one))]
    heard_at = one.at + 290.0
    other.policy.hear("one-", Warmed(key, hour=False, until=1.0), heard_at)
    slot = other.policy.planner.table.find(key)

    assert 280.0 < other.policy.planner.table.expires[slot] - heard_at < 300.0


def _expiry(caller: Replica) -> Callable[[int], float]:
    return lambda slot: caller.policy.planner.table.expires[slot]


def test_accounts_are_equal_for_what_is_added_by_rule_too(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    marked = {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}
    for number in range(8):
        caller = (one, other)[number % 3 % 2]
        caller.workspace = replace(caller.workspace, client_marks=ClientMarks.COMPLETE)
        caller.at = 1.8e9 + 40.0 * number
        by_client: dict[str, Any] = {"system": [marked], "tools": [{"name": "t", "input_schema": {}}]}
        by_rule = {"system": f"{number}{SYSTEM}", "tools": [{"type": "web_search_20250305"}]}
        text = f"{number} {SYSTEM}" if number % 2 else f"{number}"
        plan = caller.ask(a_call(text, **(by_client if number % 2 else by_rule)), final=True)
        assert plan.placement.breakpoints

    assert len(one.policy.planner.accounts) == 1
    assert one.policy.planner.accounts == other.policy.planner.accounts


def test_what_calls_of_others_were_held_is_spent_here_too(tmp_path: Path) -> None:
    one, other = replicas(tmp_path)
    one.ask(a_call("q", system=SYSTEM), answer=False, call_id="c")
    one.ask(a_call("q", system=SYSTEM), answer=False, seconds=3.0, call_id="c", final=True)

    assert isinstance(one.news[0], Sent)
    assert one.news[0].held == 3.0
    assert other.policy.planner._holds._spent_seconds == pytest.approx(3.0)
    assert one.policy.planner._holds._spent_seconds == pytest.approx(3.0)
