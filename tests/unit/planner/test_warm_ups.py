"""Requests with `max_tokens: 0`, as the planner learns from them."""

from __future__ import annotations

from gateway.core.planner import Planner, PlannerOptions, Question, Reported
from tests.support.remembered import exported
from tests.unit.planner.conversations import ask, bill

BOLD = PlannerOptions(capacity=1 << 14, opening_tokens=1e9)
COLD = [("s1", 30_000), ("u1", 100)]


def a_warm_up(number: int) -> Question:
    return ask(
        number, [("s1", 30_000), ("u.placeholder", 5)], fixed=((0, False),), decided=False, warm_up=True
    )


def test_warm_up_writes_what_the_next_request_reads() -> None:
    planner = Planner(BOLD)
    planner.plan(a_warm_up(1), 0.0)
    leader = planner.plan(ask(2, COLD), 0.5).wait_for
    planner.billed(1, Reported(5, 0, 30_000, 0), 2.0)
    read = planner.plan(ask(2, COLD), 2.0)

    assert leader == 1
    assert (read.read_tokens, read.miss) == (30_000, None)
    assert planner.accounts[11].saved == 0.0


def test_warm_up_is_no_access() -> None:
    planner = Planner(BOLD)
    planner.billed(1, bill(ask(1, COLD), planner.plan(ask(1, COLD), 0.0)), 1.0)
    before = exported(planner.reuse)[1], bytes(planner.table.accesses), planner.table.last.tobytes()
    planner.plan(a_warm_up(2), 250.0)
    planner.billed(2, Reported(5, 30_000, 0, 0), 251.0)

    assert (exported(planner.reuse)[1], bytes(planner.table.accesses), planner.table.last.tobytes()) == before
    assert planner.plan(ask(3, COLD), 540.0).read_tokens == 30_000


def test_warm_up_that_had_to_write_leaves_the_entry_alive() -> None:
    planner = Planner(BOLD)
    planner.billed(1, bill(ask(1, COLD), planner.plan(ask(1, COLD), 0.0)), 1.0)
    planner.plan(a_warm_up(2), 250.0)
    planner.billed(2, Reported(5, 0, 30_000, 0), 252.0)

    assert planner.plan(ask(3, COLD), 500.0).read_tokens == 30_000
