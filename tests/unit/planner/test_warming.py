from __future__ import annotations

from gateway.core.planner.reuse import AGES, Chances
from gateway.core.planner.values import Prices
from gateway.core.planner.warming import MARGIN_SECONDS, MAX_KEPT, MAX_LIFETIMES, Keeping, Kept


def kept(chance: float, *, tokens: int = 10_000, saved: int = 10_000, read: float = 0.1) -> Kept:
    """An entry of 5 min with the same chance of a read in each lifetime."""
    hazards = [0.0] * 4 + [chance, 2 * chance, 4 * chance, 4 * chance, chance]
    assert len(hazards) == AGES
    return Kept(
        request=1,
        block=3,
        key=5,
        tokens=tokens,
        tokens_saved=saved,
        hour=False,
        since=1000.0,
        account=1,
        prices=Prices(read=read),
        outlook=Chances(0.5, 0.2, tuple(hazards)),
    )


def test_renewal_pays_where_the_chance_covers_the_read() -> None:
    keeping = Keeping()

    assert keeping.pays(kept(0.14))
    assert not keeping.pays(kept(0.12))
    assert keeping.pays(kept(0.035, read=0.025))


def test_what_an_hour_entry_holds_already_is_not_saved_again() -> None:
    assert not Keeping().pays(kept(0.25, saved=2_000))


def test_is_asked_about_before_the_entry_ends() -> None:
    keeping = Keeping()
    keeping.consider(kept(0.2))

    assert keeping.next_due() == 1000.0 + 300.0 - MARGIN_SECONDS
    assert keeping.due(1284.0) == []
    assert len(keeping.due(1285.0)) == 1
    assert keeping.next_due() is None


def test_stops_for_prefixes_that_nobody_reads() -> None:
    keeping, renewals = Keeping(), 0
    for _ in range(100):
        entry = kept(0.2)
        if keeping.pays(entry):
            keeping.renewed(entry, 1285.0)
            keeping.judge(entry, came=False)
            renewals += 1

    assert 0 < renewals < 30


def test_goes_on_where_expectations_come_true() -> None:
    keeping = Keeping()
    for number in range(300):
        entry = kept(0.2)
        keeping.renewed(entry, 1285.0)
        keeping.judge(entry, came=number % 5 == 0)

    assert keeping.pays(kept(0.2))


def test_renewals_that_upstream_does_not_honour_end_it() -> None:
    keeping = Keeping()
    for number in range(3):
        entry = kept(0.25)
        entry.key = number
        keeping.renewed(entry, 1285.0)
        keeping.disproved(number)
    keeping.disproved(99)

    assert not keeping.pays(kept(0.25))


def test_lifetimes_are_bounded() -> None:
    entry = kept(0.25)
    entry.lifetimes = MAX_LIFETIMES

    assert not Keeping().pays(entry)


def test_entries_kept_are_bounded() -> None:
    keeping = Keeping()
    for _ in range(MAX_KEPT + 100):
        keeping.consider(kept(0.2))

    assert len(keeping.due(1e9)) == MAX_KEPT
