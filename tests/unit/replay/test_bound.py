"""The bound, against every way there is to serve a few accesses."""

from __future__ import annotations

import itertools
from math import ceil

import pytest

from gateway.replay.bound import ClairvoyantBound
from gateway.replay.tariffs import Tariffs
from tests.unit.replay.test_run import a_request


def bound_of(times: list[float]) -> float:
    bound = ClairvoyantBound(Tariffs())
    for number, at in enumerate(times):
        bound.add(a_request(number, at, (("u1", 1_000),)))
    return bound.cost.tokens


def cheapest(times: list[float]) -> float:
    """Every sequence of plain, 5m write, 1h write and read of what is there."""
    best = float("inf")
    for plan in itertools.product(("plain", "5m", "1h", "read"), repeat=len(times)):
        total, entry = 0.0, ""
        for index, step in enumerate(plan):
            if step == "read":
                if not entry:
                    break
                gap = times[index] - times[index - 1]
                lifetimes = ceil(gap / (300.0 if entry == "5m" else 3_600.0))
                total += 0.1 * (1 + max(0, lifetimes - 1))
            else:
                total += {"plain": 1.0, "5m": 1.25, "1h": 2.0}[step]
                entry = "" if step == "plain" else step
        else:
            best = min(best, total)
    return best * 1_000


@pytest.mark.parametrize(
    "times",
    [
        [0.0],
        [0.0, 10.0],
        [0.0, 300.0, 601.0],
        [0.0, 2_000.0, 4_000.0, 4_010.0],
        [0.0, 1_500.0, 20_000.0],
        [0.0, 3_700.0, 3_710.0, 9_000.0],
        [0.0, 0.0, 3_600.0, 7_300.0],
    ],
)
def test_no_plan_is_cheaper_and_one_is_as_cheap(times: list[float]) -> None:
    assert bound_of(times) == pytest.approx(cheapest(times))


def test_each_block_is_decided_by_itself() -> None:
    bound = ClairvoyantBound(Tariffs())
    bound.add(a_request(0, 0.0, (("s1", 1_000), ("u1", 500))))
    bound.add(a_request(1, 10.0, (("s1", 1_000), ("u2", 700))))

    assert bound.cost.tokens == pytest.approx(1_000 * 1.35 + 500 + 700)
