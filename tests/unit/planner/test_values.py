from __future__ import annotations

import pytest

from gateway.core.misses import Miss, MissCause
from gateway.core.planner.values import (
    Decision,
    Mark,
    Prices,
    Reported,
    Warm,
    Why,
    compact_key,
    said_chance,
)


@pytest.mark.parametrize("why", list(Why))
def test_every_reason_is_a_sentence(why: Why) -> None:
    mark = Mark(3, True, why, 0.5, 0.7, 1200)

    assert len(mark.reason.split()) > 3
    assert len(Decision((), why).reason.split()) > 3


@pytest.mark.parametrize("cause", list(MissCause))
def test_every_miss_is_explained(cause: MissCause) -> None:
    assert len(Miss(3, cause, 1200, 4.5).reason.split()) > 3


def test_reasons_carry_the_numbers() -> None:
    warm = Warm(
        request=1, upto=2, marks=(), tokens=5000, chance=0.12, account=1, key=1, cost=125.0, prices=Prices()
    )

    assert "1,200" in Mark(3, False, Why.WRITE_TAIL, 0.5, 0.7, 1200).reason
    assert "50%" in Mark(3, False, Why.WRITE_TAIL, 0.5, 0.7, 1200).reason
    assert "4.5 s" in Miss(3, MissCause.EXPIRED, 1200, 4.5).reason
    assert "12%" in warm.reason


@pytest.mark.parametrize(
    ("chance", "said"),
    [
        (0.0, "0%"),
        (0.0004, "less than 0.1%"),
        (0.004, "0.4%"),
        (0.12, "12%"),
        (0.994, "99%"),
        (0.9996, "more than 99%"),
        (1.0, "100%"),
    ],
)
def test_no_chance_is_said_to_be_none_and_none_to_be_certain(chance: float, said: str) -> None:
    assert said_chance(chance) == said


def test_cost_is_in_input_token_equivalents() -> None:
    assert Reported(100, 1000, 200, 50).cost(Prices()) == pytest.approx(100 + 100 + 250 + 100)


def test_compact_key_is_never_zero() -> None:
    assert compact_key(bytes(16)) == 1
    assert compact_key(b"\x02" + bytes(15)) == 2
