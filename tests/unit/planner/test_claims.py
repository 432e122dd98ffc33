"""What the planner would have claimed over all replicas before it sends a request."""

from __future__ import annotations

from gateway.core.planner import Planner, PlannerOptions
from tests.support.remembered import exported
from tests.unit.planner.conversations import ask

BOLD = PlannerOptions(capacity=1 << 14, opening_tokens=1e9)
COLD = [("s1", 30_000), ("u1", 100)]


def test_claims_come_before_anything_is_learned() -> None:
    planner, untouched = Planner(BOLD), Planner(BOLD)
    claiming = planner.plan(ask(1, COLD), 0.0, may_claim=True)
    final = planner.plan(ask(1, COLD), 0.1, may_wait=False)

    assert set(claiming.claims) == {ask(1, COLD).keys[0], ask(1, COLD).keys[1]}
    assert claiming.wait_tokens == 30_000
    assert final == untouched.plan(ask(1, COLD), 0.1)
    assert exported(planner.reuse) == exported(untouched.reuse)
    assert planner.accounts == untouched.accounts


def test_what_is_read_or_being_written_is_not_claimed() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, COLD), 0.0)
    waiting = planner.plan(ask(2, COLD), 0.1, may_claim=True)
    planner.answered(1, 2.0)
    reading = planner.plan(ask(3, COLD), 2.1, may_claim=True)

    assert (waiting.wait_for, waiting.claims) == (1, ())
    assert (reading.read_tokens, reading.claims) == (30_100, ())


def test_waiting_for_claims_is_spent_like_any_waiting() -> None:
    planner = Planner(BOLD)
    planner.held(BOLD.hold_opening_seconds + 1.0)

    assert not planner.plan(ask(1, COLD), 0.0, may_claim=True).claims


def test_next_turn_of_a_cached_conversation_is_not_claimed_unless_it_adds_much() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, COLD), 0.0)
    planner.answered(1, 2.0)
    little = planner.plan(ask(2, [*COLD, ("a1", 50), ("u2", 4_000)]), 10.0, may_claim=True)
    much = planner.plan(ask(3, [*COLD, ("a1", 50), ("u3", 20_000)]), 20.0, may_claim=True)

    assert little.write_5m_tokens + little.write_1h_tokens == 4_050
    assert (little.read_tokens, little.claims) == (30_100, ())
    assert much.claims
