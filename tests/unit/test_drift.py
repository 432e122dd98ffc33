"""What of a difference between counter and ledger is one."""

from __future__ import annotations

import pytest

from gateway.core.drift import Reading, differences, lasting, merged


def a_reading(counted: int, ledger: int, set_aside: int = 0) -> Reading:
    return Reading(counted=counted, set_aside=set_aside, ledger=ledger)


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ((300, 300), (300, 300), 0),
        ((100, 300), (100, 300), -200),
        ((500, 300), (500, 300), 200),
        # Calls go on, and the difference stays.
        ((110, 300), (160, 350), -190),
        ((510, 300), (560, 350), 160),
        # A call that the ledger has is still to be settled.
        ((300, 340, 50), (340, 340), 0),
        ((300, 340, 50), (340, 390, 60), 0),
        ((200, 340, 50), (240, 390, 60), -90),
        # One was settled between the reading of the ledger and that of the counter.
        ((320, 300), (350, 330), 0),
    ],
)
def test_only_what_no_call_under_way_explains_is_a_difference(
    first: tuple[int, ...], second: tuple[int, ...], difference: int
) -> None:
    assert lasting(a_reading(*first), a_reading(*second)) == difference


def test_counters_of_a_window_that_has_just_begun_are_not_compared() -> None:
    off = a_reading(1, 3)

    assert differences({"old": off, "both": off}, {"both": off, "new": off}) == {"both": -2}


def test_the_parts_of_several_ledgers_add_up_and_the_counter_is_one() -> None:
    parts = [{"a": a_reading(300, 100, 5), "b": a_reading(7, 7)}, {"a": a_reading(310, 210, 6)}]

    assert merged(parts) == {"a": a_reading(310, 310, 6), "b": a_reading(7, 7)}
