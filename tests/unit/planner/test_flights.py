from __future__ import annotations

import pytest

from gateway.core.planner import Decision, Mark, Prices, Why
from gateway.core.planner.flights import Flight, flight_of
from tests.unit.planner.conversations import ask


def a_flight(read_at: int = -1) -> Flight:
    decision = Decision(
        (Mark(1, True, Why.WRITE_SHARED), Mark(2, False, Why.WRITE_TAIL)),
        Why.WRITE_TAIL,
        read_tokens=100 if read_at >= 0 else 0,
        write_5m_tokens=40,
        write_1h_tokens=20,
        read_at=read_at,
    )
    question = ask(1, [("s1", 100), ("u1", 20), ("u2", 40), ("u3", 7)])
    return flight_of(question, decision, 5.0, first_byte_after=1.0, written=[9], layered=False)


def test_premium_is_what_writes_cost_beyond_plain_input() -> None:
    assert a_flight().premium == pytest.approx(40 * 0.25 + 20 * 1.0)


def test_bill_that_is_expected_covers_the_whole_prompt() -> None:
    expected = a_flight(read_at=0).as_expected()

    assert (expected.read, expected.write_5m, expected.write_1h, expected.uncached) == (100, 40, 20, 7)
    assert expected.cost(Prices()) == pytest.approx(10 + 50 + 40 + 7)


def test_knows_whether_a_breakpoint_stands_on_what_it_reads() -> None:
    assert a_flight(read_at=1).marks_read
    assert not a_flight(read_at=0).marks_read
    assert a_flight().read_key == 0
