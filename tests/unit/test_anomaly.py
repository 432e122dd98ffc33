"""Which hours are unusual, and why, over generated weeks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.anomaly import Cause, cache_fall, effects, unusual
from gateway.core.ledger import Total

CENT = 10_000_000


def an_hour(
    requests: int = 100,
    prompt: int = 10_000,
    read: float = 0.8,
    price: int = 3_000,
    output: int = 500,
) -> Total:
    """`price`: nano-dollars of an uncached prompt token; reads cost a tenth of it, output five times."""
    tokens = requests * prompt
    cached = round(tokens * read)
    return Total(
        requests=requests,
        uncached_input_tokens=tokens - cached,
        cache_read_tokens=cached,
        output_tokens=requests * output,
        uncached_input_nanousd=(tokens - cached) * price,
        cache_read_nanousd=cached * price // 10,
        output_nanousd=requests * output * price * 5,
        counterfactual_nanousd=tokens * price + requests * output * price * 5,
    )


def weeks(count: int = 8, seed: int = 1) -> list[Total]:
    """Much alike: each a little busier or quieter than the last."""
    draw = random.Random(seed)
    return [an_hour(requests=draw.randint(90, 110), prompt=draw.randint(9_500, 10_500)) for _ in range(count)]


def judged(hour: Total, before: list[Total], floor: int = 100 * CENT) -> object:
    return unusual(hour, before, deviations=6.0, floor_nanousd=floor)


@given(seed=st.integers(0, 10_000))
def test_weeks_like_the_others_are_usual(seed: int) -> None:
    *before, now = weeks(9, seed)

    assert judged(now, before) is None


@pytest.mark.parametrize(
    ("hour", "cause"),
    [
        (an_hour(requests=500), Cause.REQUESTS),
        (an_hour(prompt=60_000), Cause.PROMPTS),
        (an_hour(read=0.0, prompt=10_500), Cause.CACHE),
        (an_hour(price=15_000), Cause.PRICES),
        (an_hour(output=8_000), Cause.OUTPUT),
    ],
)
def test_the_cause_that_was_put_in_comes_out_first(hour: Total, cause: Cause) -> None:
    found = unusual(hour, weeks(), deviations=6.0, floor_nanousd=100 * CENT)

    assert found is not None
    assert found.effects[0].cause is cause
    assert found.effects[0].nanousd > 0.8 * (found.cost_nanousd - found.usual_nanousd)


def test_a_floor_keeps_small_workspaces_quiet() -> None:
    small = [replace(each) for each in (an_hour(requests=1) for _ in range(8))]

    assert judged(an_hour(requests=20), small) is None
    assert judged(an_hour(requests=20), small, floor=CENT) is not None


def test_one_odd_week_does_not_hide_the_next() -> None:
    before = [*weeks(7), an_hour(requests=5_000)]

    assert judged(an_hour(requests=600), before) is not None


def test_weeks_that_differ_much_allow_for_more() -> None:
    before = [an_hour(requests=number) for number in (10, 400, 50, 300, 120, 500, 30, 250)]

    assert judged(an_hour(requests=600), before) is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_nothing_is_said_before_three_weeks_are_known(count: int) -> None:
    assert judged(an_hour(requests=10_000), weeks(count)) is None


def test_a_workspace_that_was_silent_at_this_hour_is_unusual_when_it_is_not() -> None:
    found = unusual(an_hour(), [Total()] * 8, deviations=6.0, floor_nanousd=CENT)

    assert found is not None
    assert [each.cause for each in found.effects] == [Cause.REQUESTS]


_hours = st.builds(
    an_hour,
    requests=st.integers(1, 1_000),
    prompt=st.integers(1, 50_000),
    read=st.floats(0, 1),
    price=st.sampled_from([1_000, 3_000, 5_000]),
    output=st.integers(0, 5_000),
)


@given(now=_hours, before=st.lists(_hours, min_size=1, max_size=8))
def test_what_made_it_dearer_less_what_made_it_cheaper_is_the_difference(
    now: Total, before: list[Total]
) -> None:
    dearer = sum(each.nanousd for each in effects(now, before))
    mean = sum(each.cost_nanousd for each in before) / len(before)

    # those that made it cheaper are left out, so the sum is never below the difference; beside rounding
    assert dearer >= now.cost_nanousd - mean - 5


def test_requests_that_were_refused_are_no_calls() -> None:
    refusing = replace(an_hour(), requests=10_100, refused=10_000)

    assert judged(refusing, weeks()) is None


def test_a_share_that_fell_is_told_with_what_it_cost() -> None:
    fall = cache_fall(an_hour(read=0.2), an_hour(requests=9_000), fall=0.25, floor_nanousd=CENT)

    assert fall is not None
    assert (round(fall.ratio, 2), round(fall.before_ratio, 2)) == (0.2, 0.8)
    assert fall.lost_nanousd == an_hour(read=0.2).paid_nanousd - an_hour(read=0.8).paid_nanousd


@pytest.mark.parametrize(
    ("now", "before", "floor"),
    [
        (an_hour(read=0.6), an_hour(), CENT),  # a little
        (an_hour(read=0.9), an_hour(), CENT),  # it rose
        (an_hour(requests=1, read=0.0), an_hour(), CENT),  # too few prompts
        (an_hour(read=0.0), an_hour(requests=1), CENT),
        (an_hour(read=0.0), an_hour(), 1_000 * CENT),  # costs too little
        (an_hour(), Total(), CENT),
        (Total(), an_hour(), CENT),
    ],
)
def test_what_is_small_rare_or_cheap_is_not_told(now: Total, before: Total, floor: int) -> None:
    assert cache_fall(now, before, fall=0.25, floor_nanousd=floor) is None
