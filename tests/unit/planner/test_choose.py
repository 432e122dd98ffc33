from __future__ import annotations

import itertools

import pytest

from gateway.core.planner.choose import (
    Candidate,
    Choice,
    choose_writes,
    gain_1h,
    gain_5m,
    premium_of,
)
from gateway.core.planner.values import Prices

USUAL = Prices()
CHEAP = Prices(read=0.025)


def candidate(end: int, five: float, hour: float = 0.0, *, lasting: bool = False, **more: float) -> Candidate:
    return Candidate(end // 1000, end, five, hour, lasting, True, **more)


@pytest.mark.parametrize(("chance", "pays"), [(0.21, False), (0.225, True)])
def test_five_minute_write_pays_from_the_chance_at_which_it_would_be_written_next_time(
    chance: float, pays: bool
) -> None:
    assert (gain_5m(candidate(1000, chance), USUAL) > 0) is pays


def test_cheaper_reads_make_less_likely_writes_pay() -> None:
    assert gain_5m(candidate(1000, 0.21), USUAL) < 0 < gain_5m(candidate(1000, 0.21), CHEAP)


def test_hour_pays_for_a_shared_prefix_with_more_pauses_than_ends() -> None:
    often = candidate(1000, 0.7, 0.2, lasting=True)
    rarely = candidate(1000, 0.7, 0.05, lasting=True)

    assert gain_1h(often, USUAL) > gain_5m(often, USUAL)
    assert gain_1h(rarely, USUAL) < gain_5m(rarely, USUAL)


def test_nothing_is_written_where_nothing_pays() -> None:
    assert choose_writes([candidate(1000, 0.1), candidate(2000, 0.05)], 0, USUAL) == (0.0, [])


def test_writes_only_as_deep_as_it_pays() -> None:
    shared, unique = candidate(2000, 0.9), candidate(9000, 0.02)

    _, choices = choose_writes([shared, unique], 0, USUAL)

    assert choices == [(shared, False)]


def test_layer_is_worth_a_small_premium() -> None:
    """A short block for an hour keeps a long prefix readable; without that gain it would not pay."""
    small, tail = candidate(1000, 0.9, 0.02, layer=500.0), candidate(9000, 0.9, 0.02, layer=500.0)

    _, choices = choose_writes([small, tail], 900, USUAL)

    assert choices == [(small, True), (tail, False)]


def test_premium_is_what_the_bill_exceeds_plain_input_by() -> None:
    hour, five = candidate(2000, 0.9), candidate(5000, 0.5)

    assert premium_of([(hour, True), (five, False)], 1000, USUAL) == pytest.approx(1000 * 1.0 + 3000 * 0.25)
    assert premium_of([], 1000, USUAL) == 0.0


def brute_force(candidates: list[Candidate], slots: int) -> float:
    best = 0.0
    for count in range(1, slots + 1):
        for chosen in itertools.combinations(candidates, count):
            for hours in range(count + 1):
                choices: list[Choice] = [(c, at < hours) for at, c in enumerate(chosen)]
                total, before = chosen[0].layer if hours else 0.0, 0
                for c, hour in choices:
                    total += (c.end - before) * (gain_1h(c, USUAL) if hour else gain_5m(c, USUAL))
                    before = c.end
                best = max(best, total)
    return best


@pytest.mark.parametrize("seed", range(40))
def test_is_as_good_as_trying_every_set(seed: int) -> None:
    chances = [((seed * 7919 + at * 104729) % 97) / 97 for at in range(12)]
    five = sorted(chances[:6], reverse=True)
    candidates = [
        candidate(1000 * (at + 1), f, (1 - f) * chances[6 + at], lasting=bool((seed + at) % 2), layer=300.0)
        for at, f in enumerate(five)
    ]

    gain, choices = choose_writes(candidates, 0, USUAL, slots=3)

    assert gain == pytest.approx(brute_force(candidates, 3))
    assert len(choices) <= 3
    assert [hour for _, hour in choices] == sorted((hour for _, hour in choices), reverse=True)


def test_what_another_request_writes_costs_again_and_gains_nothing() -> None:
    alone, _ = choose_writes([candidate(20_000, 0.9)], 0, USUAL)
    behind, choices = choose_writes([candidate(20_000, 0.9)], 0, USUAL, pending_end=5_000)
    short, nothing = choose_writes([candidate(18_100, 0.9)], 0, USUAL, pending_end=18_000)

    assert len(choices) == 1
    assert behind == pytest.approx(alone * 15 / 20 - 5_000 * 0.25)
    assert (short, nothing) == (0.0, [])
