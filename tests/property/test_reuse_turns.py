"""How often the planner's observations are told the time makes no difference to what is learned from them: a
replay tells them at each call, a gateway also in between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.planner.reuse import Reuse

STARTED = 1_795_000_000.0
EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 900.0),  # the pause before it
        st.integers(0, 5),  # which prefix is accessed
        st.lists(st.floats(0.0, 1.0), max_size=4),  # when in the pause the time is told
    ),
    max_size=40,
)


def learned(events: list[tuple[float, int, list[float]]], *, between: bool) -> tuple[bytes, bytes, bytes]:
    reuse, now = Reuse(), STARTED
    for pause, key, told in events:
        for share in sorted(told) if between else ():
            reuse.advance(now + share * pause)
        now += pause
        reuse.advance(now)
        reuse.accessed([key], now)
        reuse.watch(key, (key, 6 + key % 2, 9), now)
    reuse.advance(now + 400.0)
    reached, ended, pack = reuse.export()
    return bytes(reached), bytes(ended), pack()


@settings(max_examples=150)
@given(EVENTS)
def test_how_often_the_time_is_told_makes_no_difference(
    events: list[tuple[float, int, list[float]]],
) -> None:
    assert learned(events, between=True) == learned(events, between=False)
