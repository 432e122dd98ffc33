from __future__ import annotations

from gateway.core.planner.instants import LEAP_SECONDS, Instants


def test_goes_with_the_wall_clock() -> None:
    time = Instants()

    assert [time.at(at) for at in (100.0, 107.5, 3_000.0)] == [100.0, 107.5, 3_000.0]


def test_what_is_told_late_is_no_clock_set_back() -> None:
    time = Instants()

    assert [time.at(at) for at in (100.0, 98.0, 99.0, 101.0)] == [100.0, 100.0, 100.0, 101.0]


def test_a_clock_that_jumps_ahead_and_back_does_not_stop_time() -> None:
    time = Instants()
    time.at(1_000.0)
    ahead = time.at(1_000.0 + 7_200.0)

    assert time.at(1_010.0) == ahead
    assert time.at(1_310.0) == ahead + 300.0
    assert time.shown(ahead + 300.0) == 1_310.0


def test_a_leap_of_years_counts_as_a_day() -> None:
    time = Instants()
    time.at(1_000.0)
    leapt = time.at(1_000.0 + 1e9)

    assert leapt == 1_000.0 + LEAP_SECONDS
    assert time.at(1_000.0 + 1e9 + 5.0) == leapt + 5.0


def test_goes_on_from_a_memory_of_the_future() -> None:
    time = Instants()
    time.resume(5_000.0)

    assert time.at(4_990.0) == 5_000.0
    assert time.at(4_993.0) == 5_003.0


def test_goes_on_from_a_memory_of_the_past() -> None:
    time = Instants()
    time.resume(5_000.0)

    assert time.at(5_600.0) == 5_600.0
