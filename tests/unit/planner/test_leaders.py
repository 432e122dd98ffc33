"""Whom a request waits for, and for how long anybody counts on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.planner import Planner, PlannerOptions, Prices, Why
from tests.unit.planner.conversations import ask

BOLD = PlannerOptions(capacity=1 << 14, opening_tokens=1e9)


def test_followers_wait_for_the_leader_on_a_cold_prefix() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    followers = [planner.plan(ask(n, [("s1", 30_000), (f"u{n}", 100)]), 0.1) for n in range(2, 102)]

    assert {decision.wait_for for decision in followers} == {1}
    assert planner.plan(ask(2, [("s1", 30_000), ("u2", 100)]), 0.2, may_wait=False).wait_for is None


def test_followers_read_once_the_leader_has_begun_to_answer() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    planner.answered(1, 2.5)
    decision = planner.plan(ask(2, [("s1", 30_000), ("u2", 100)]), 2.5)

    assert (decision.wait_for, decision.read_tokens) == (None, 30_000)


def test_failed_leader_releases_its_followers_and_gives_its_stake_back() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    planner.failed(1)
    decision = planner.plan(ask(2, [("s1", 30_000), ("u2", 100)]), 0.2)

    assert (decision.wait_for, decision.read_tokens) == (None, 0)
    assert planner.accounts[11].at_stake == pytest.approx(decision.write_5m_tokens * 0.25)


def test_nobody_counts_on_a_request_that_should_have_been_answered_long_ago() -> None:
    """A plain answer comes when all of it is written, and some never come."""
    planner = Planner(BOLD)
    planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    decisions = [
        planner.plan(ask(at, [("s1", 30_000), (f"u{at}", 100)]), float(at), may_wait=at != 6)
        for at in (2, 6, 9, 13, 14)
    ]

    assert [decision.wait_for for decision in decisions] == [1, None, 1, None, 13]
    assert decisions[1].why is Why.TWIN
    assert decisions[3].write_5m_tokens + decisions[3].write_1h_tokens >= 30_000
    planner.answered(1, 50.0)
    planner.answered(13, 50.0)
    assert planner.plan(ask(51, [("s1", 30_000), ("u51", 100)]), 51.0).read_tokens == 30_000


def test_a_late_leader_is_waited_for_within_the_share_of_holding() -> None:
    planner = Planner(replace(BOLD, hold_opening_seconds=3.0, hold_share_seconds=0.0))
    planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    in_time = [planner.plan(ask(n, [("s1", 30_000), (f"u{n}", 100)]), 0.1) for n in range(2, 9)]
    late = planner.plan(ask(9, [("s1", 30_000), ("u9", 100)]), 7.0)

    assert {decision.wait_for for decision in in_time} == {1}
    assert late.wait_for is None


def test_a_request_that_failed_and_may_be_billed_costs_what_was_expected() -> None:
    planner = Planner(BOLD)
    decision = planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    planner.failed(1, billed=True)
    again = planner.plan(ask(2, [("s1", 30_000), ("u2", 100)]), 1.0)

    assert planner.accounts[11].saved == pytest.approx(-decision.premium(Prices()))
    assert again.read_tokens == 0


def test_short_prefix_is_not_worth_waiting_for() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, [("s1", 1100), ("u1", 100)]), 0.0)

    assert planner.plan(ask(2, [("s1", 1100), ("u2", 100)]), 0.0).wait_for is None
