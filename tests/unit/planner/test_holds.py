from __future__ import annotations

import pytest

from gateway.core.planner.holds import MAX_LEADERS, Holds
from gateway.core.planner.values import PlannerOptions

OPTIONS = PlannerOptions(hold_opening_seconds=3.0, hold_share_seconds=0.05, hold_seconds=8.0)


def test_waits_where_it_saves_enough_for_its_time() -> None:
    holds = Holds(OPTIONS)

    assert holds.worth(1, saving=5_000.0, wait=2.0)
    assert not holds.worth(2, saving=1_000.0, wait=1.0)


def test_never_waits_beyond_the_bound() -> None:
    assert not Holds(OPTIONS).worth(1, saving=1e9, wait=8.1)


def test_held_time_stays_within_its_share_of_all_requests() -> None:
    holds = Holds(OPTIONS)
    held = sum(holds.worth(leader, 1e6, 1.0) for leader in range(100))
    for _ in range(100):
        holds.sent()
    later = sum(holds.worth(leader, 1e6, 1.0) for leader in range(200, 300))

    assert (held, later) == (3, 5)


def test_herd_behind_one_leader_waits_as_one() -> None:
    holds = Holds(OPTIONS)

    assert all(holds.worth(7, 1e6, 2.0) for _ in range(100))
    assert not holds.worth(8, 1e6, 2.0)


def test_a_herd_whose_leader_failed_waits_for_one_of_its_own() -> None:
    holds = Holds(OPTIONS)
    assert all(holds.worth(7, 1e6, 2.0) for _ in range(100))
    holds.failed(7)

    assert all(holds.worth(8, 1e6, 2.0) for _ in range(99))
    assert not holds.worth(9, 1e6, 2.0)


def test_a_failure_that_nobody_waited_for_changes_nothing() -> None:
    holds = Holds(OPTIONS)
    assert all(holds.worth(7, 1e6, 2.0) for _ in range(100))
    holds.failed(3)

    assert not holds.worth(8, 1e6, 2.0)


def test_remembers_a_bounded_number_of_leaders() -> None:
    holds = Holds(PlannerOptions(hold_opening_seconds=1e9))
    for leader in range(MAX_LEADERS + 50):
        holds.worth(leader, 1e6, 1.0)

    assert len(holds._leaders) == MAX_LEADERS


def test_learns_upstreams_pace() -> None:
    holds = Holds(OPTIONS)
    guess = holds.first_byte_after(30_000, 0)
    for _ in range(200):
        expected = holds.first_byte_after(30_000, 0)
        holds.seen(expected, 2 * guess)

    assert holds.first_byte_after(30_000, 0) == pytest.approx(2 * guess, rel=0.02)


def test_asks_whether_waiting_would_pay_without_spending_anything() -> None:
    holds = Holds(OPTIONS)

    assert all(holds.pays(1e6, 2.0) for _ in range(100))
    assert not holds.pays(1_000.0, 1.0)
    assert not holds.pays(1e9, 8.1)


def test_time_that_another_replicas_claim_took_is_spent_too() -> None:
    holds = Holds(OPTIONS)
    holds.spent(2.5)

    assert not holds.pays(1e6, 1.0)


def test_a_wait_counts_as_long_as_it_was() -> None:
    holds = Holds(OPTIONS)
    assert holds.worth(7, 1e6, 2.0)
    holds.waits(1, 100.0, 2.0)
    holds.let_go(1, 102.9)

    assert not holds.worth(8, 1e6, 0.2)
    assert holds.worth(8, 1e6, 0.05)


def test_a_wait_that_was_short_gives_back_what_it_did_not_take() -> None:
    holds = Holds(OPTIONS)
    assert holds.worth(7, 1e6, 3.0)
    holds.waits(1, 100.0, 3.0)
    holds.let_go(1, 100.5)

    assert holds.worth(8, 1e6, 2.5)


def test_who_has_its_claims_is_waited_for_too() -> None:
    holds = Holds(OPTIONS)
    holds.waits(1, 100.0)
    holds.let_go(1, 102.9)

    assert not holds.pays(1e6, 1.0)


def test_what_a_herd_overdraws_is_made_up_for_before_anybody_waits_again() -> None:
    """So that in the long run a request waits no longer than its share, on average."""
    holds = Holds(OPTIONS)
    requests = waited = 0
    for herd in range(200):
        for _ in range(50):
            requests += 1
            if holds.worth(herd, 1e6, 1.0):
                holds.waits(requests, 10.0 * herd, 1.0)
                holds.let_go(requests, 10.0 * herd + 3.0)
                waited += 3
            holds.sent()

    assert waited > 0
    assert waited <= 3.0 + 0.05 * requests + 50 * 3.0


def test_who_left_while_it_was_held_counts_as_reckoned() -> None:
    holds = Holds(OPTIONS)
    assert holds.worth(7, 1e6, 3.0)
    holds.waits(1, 100.0, 3.0)
    holds.left(1)
    holds.let_go(1, 500.0)

    assert not holds.worth(8, 1e6, 0.05)
