from __future__ import annotations

import pytest

from gateway.core.planner.reuse import AGES, AGES_SECONDS, BYTES, CONTEXTS, MAX_WEIGHT, Reuse, context
from tests.support.remembered import exported

NEVER = (0.0,) * AGES
EVEN = (0.1,) * AGES


def seen(pauses: list[float | None], reuse: Reuse | None = None, now: float = 0.0) -> Reuse:
    """A prefix after another, each accessed again after its pause, or never."""
    reuse = reuse or Reuse()
    for number, pause in enumerate(pauses):
        reuse.advance(now)
        reuse.watch(number + 1, (3,), now)
        if pause is not None:
            reuse.advance(now + pause)
            reuse.accessed([number + 1], now + pause)
        now += 8000.0
    reuse.advance(now)
    return reuse


def test_nothing_seen_leaves_the_prior() -> None:
    chances = Reuse().chances((1, 2), EVEN)

    assert chances.five == pytest.approx(1 - 0.9**4)
    assert chances.within_hour == pytest.approx(1 - 0.9**8)


def test_learns_how_many_come_back_within_each_ttl() -> None:
    chances = seen([10.0] * 60 + [1000.0] * 20 + [None] * 20).chances((3,), EVEN)

    assert chances.five == pytest.approx(0.6, abs=0.05)
    assert chances.hour == pytest.approx(0.2, abs=0.05)


def test_special_context_is_drawn_to_the_general_one_only_while_it_has_seen_little() -> None:
    reuse = seen([10.0] * 50)
    for number in range(2):
        reuse.watch(1000 + number, (4,), 500_000.0)
    reuse.advance(520_000.0)

    assert 0.5 < reuse.chances((3, 4), EVEN).five < 0.9 < reuse.chances((3,), EVEN).five


def test_open_observations_teach_before_they_end() -> None:
    reuse = Reuse()
    for number in range(40):
        reuse.watch(number + 1, (3,), 0.0)
    reuse.advance(100.0)

    assert reuse.chances((3,), EVEN).five < 0.25


def test_what_comes_first_are_the_quick_ones_and_they_do_not_mislead() -> None:
    """In the first seconds only quick returns can be seen; those still out must count against them."""
    reuse = Reuse()
    for number in range(100):
        reuse.watch(number + 1, (3,), 0.0)
    reuse.accessed(range(1, 11), 5.0)

    assert reuse.hazards((3,), NEVER)[0] == pytest.approx(0.1, abs=0.02)


def test_old_observations_weigh_less_than_new_ones() -> None:
    reuse = seen([10.0] * 1000)
    after = seen([None] * 800, reuse, now=1000 * 8000.0)

    assert after.chances((3,), EVEN).five < 0.3
    assert after._reached[3 * AGES] <= MAX_WEIGHT


def test_proven_chance_counts_nothing_that_was_not_seen() -> None:
    assert Reuse().proven((3,)) == 0.0
    assert 0.3 < seen([10.0] * 40 + [None] * 40).proven((3,)) < 0.5


def test_lifetimes_split_an_age_evenly() -> None:
    chances = seen([None]).chances((5,), EVEN)

    assert chances.in_lifetime(False, 0) == pytest.approx(0.1)
    assert chances.in_lifetime(False, 1) == pytest.approx(0.05)
    assert chances.in_lifetime(True, 0) == pytest.approx(0.1)
    assert chances.in_lifetime(True, 1) == 0.0


def test_export_restores_to_the_same_chances() -> None:
    reuse = seen([10.0] * 7 + [None] * 3)
    for number in range(5):
        reuse.watch(500 + number, (3, 9), 90_000.0 + 20 * number)
        reuse.advance(90_000.0 + 20 * number)
    other = Reuse()
    other.restore(exported(reuse))

    assert other.chances((3,), EVEN) == reuse.chances((3,), EVEN)
    assert exported(other) == exported(reuse)
    with pytest.raises(ValueError, match="another size"):
        other.restore((b"", b"", b""))


def test_observations_are_bounded_and_leave_room_for_what_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.planner.reuse.MAX_OPEN", 100)
    reuse = Reuse()
    for number in range(80):
        reuse.watch(1 + 8 * number, (3,), 0.0, sampled=True)
    assert len(reuse._open) == 50
    for number in range(80):
        reuse.watch(10_001 + 8 * number, (4,), 0.0)

    assert len(reuse._open) == 100


def test_memory_is_as_stated() -> None:
    assert sum(map(len, exported(Reuse())[:2])) == BYTES == CONTEXTS * AGES * 8
    assert list(AGES_SECONDS) == sorted(AGES_SECONDS)


def test_contexts_stay_in_the_table() -> None:
    assert {context(1, key, 1 << 63) for key in range(100)} <= set(range(CONTEXTS))


def test_who_is_in_the_middle_of_an_age_has_not_survived_it() -> None:
    """Half of all come again after 200 s. In the first minutes as many as then are still on their way."""
    reuse = Reuse()
    for number in range(1, 401):
        now = float(number)
        reuse.advance(now)
        if (number - 200) % 2 == 0 and number > 200:
            reuse.accessed([number - 200], now)
        reuse.watch(number, (7,), now)
    hazards = reuse.hazards((7,), NEVER)

    assert hazards[3] == pytest.approx(0.5, abs=0.12)


def test_luck_is_taken_off_what_was_seen() -> None:
    reuse = Reuse()
    reuse.watch(1, (7,), 0.0)
    reuse.advance(400.0)
    reuse.accessed([1], 400.0)

    assert reuse.chances((7,), NEVER).hazards[4] > 0.0
    assert reuse.chances((7,), NEVER, doubt=1.0).hazards[4] == 0.0
