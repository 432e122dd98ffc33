"""The list of prefixes is told by the news of calls, and is bounded."""

from __future__ import annotations

import pytest

from gateway.core.news import Billed, Failed, Sent, pack_keys
from gateway.core.planner import Kind, Planner, PlannerOptions, Prices, Question, Reported
from gateway.core.planner import listing as listed_by
from gateway.core.planner.listing import Order, PrefixListing

KEYS, ENDS = (11, 12, 13), (1_000, 5_000, 8_000)
NOW = 1_000_000.0


def _sent(call: str = "c1", keys: tuple[int, ...] = KEYS, **changes: object) -> Sent:
    values: dict[str, object] = {
        "call": call,
        "at": NOW,
        "workspace": "search",
        "model": "m",
        "scope": 1,
        "keys": pack_keys(keys),
        "ends": ENDS,
        "kinds": bytes(3),
        "marks": ((1, False), (2, False)),
        "prices": (0.1, 1.25, 2.0, 512),
        "price": 2_000.0,
    }
    return Sent(**(values | changes))  # type: ignore[arg-type]


class Told:
    """A listing over a planner, with a clock of the test's own."""

    def __init__(self) -> None:
        self.now = NOW
        self.planner = Planner(PlannerOptions(capacity=1 << 10))
        self.listing = PrefixListing(self.planner, lambda: self.now)

    def call(self, call: str, sent: Sent, *, uncached: int = 0, read: int = 0, write: int = 0) -> None:
        self.listing.tell(sent)
        self.listing.tell(Billed(call, self.now, uncached, read, write, 0, 10))


def test_a_prefix_is_listed_once_its_write_was_billed_with_its_tokens_as_billed() -> None:
    told = Told()
    told.listing.tell(_sent())
    assert told.listing.top(9) == ()
    told.listing.tell(Billed("c1", NOW, 0, 0, 16_000, 0, 10))
    deepest, other = told.listing.top(9)

    assert (deepest.key, deepest.tokens, other.key, other.tokens) == (13, 16_000, 12, 10_000)
    assert deepest.digest == (13).to_bytes(8, "little").hex()
    assert (deepest.workspace, deepest.model, deepest.writes, deepest.reads) == ("search", "m", 1, 0)


def test_a_read_counts_for_the_deepest_prefix_within_it() -> None:
    told = Told()
    told.call("c1", _sent(), write=8_000)
    told.call("c2", _sent("c2"), read=5_000, uncached=3_000)
    told.call("c3", _sent("c3", keys=(11, 12, 99)), read=5_000, uncached=3_000)
    reads = {one.key: one.reads for one in told.listing.top(9)}

    assert reads == {12: 2, 13: 0}


def test_what_failed_wrote_nothing_and_what_is_too_short_is_not_cached() -> None:
    told = Told()
    told.listing.tell(_sent())
    told.listing.tell(Failed("c1", NOW))
    told.listing.tell(Billed("c1", NOW, 0, 0, 8_000, 0, 10))
    told.call("c2", _sent("c2", prices=(0.1, 1.25, 2.0, 6_000)), write=8_000)

    assert [one.key for one in told.listing.top(9)] == [13]


def test_warmth_and_chance_are_the_planners() -> None:
    told = Told()
    question = Question(1, 1, 2, KEYS, ENDS, bytes([Kind.SYSTEM] * 3), Prices(), fixed=((2, False),))
    told.planner.plan(question, NOW)
    told.planner.billed(1, Reported(0, 0, 8_000, 0), NOW)
    told.call("c1", _sent(marks=((2, False),)), write=8_000)
    told.now = NOW + 100.0
    told.planner.reuse.advance(told.now)
    (warm,) = told.listing.top(9)
    told.now = NOW + 400.0
    (cold,) = told.listing.top(9)

    assert warm.warm_seconds == 200.0
    assert warm.last_used_seconds == 100.0
    assert warm.chance is not None
    assert 0.0 < warm.chance < 1.0
    assert warm.value_nanousd == round(warm.chance * 8_000 * 2_000.0 * 1.15)
    assert (cold.warm_seconds, cold.chance, cold.value_nanousd) == (-100.0, None, 0)


def test_orders_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_by, "MAX_LISTED", 4)
    monkeypatch.setattr(listed_by, "MAX_CALLS", 2)
    told = Told()
    for n in range(8):
        told.now += 1.0
        told.call(f"c{n}", _sent(f"c{n}", keys=(1, 2, 100 + n), marks=((2, False),)), write=8_000 + n)
    told.call("r", _sent("r", keys=(1, 2, 105)), read=8_005)

    assert len(told.listing) == 4
    assert told.listing.top(1, Order.READS)[0].key == 105
    assert told.listing.top(1, Order.TOKENS)[0].tokens == 8_007
    for n in range(3):
        told.listing.tell(_sent(f"open{n}", keys=(1, 2, 200 + n)))
    told.listing.tell(Billed("open0", told.now, 0, 0, 9_000, 0, 1))
    assert 200 not in {one.key for one in told.listing.top(9)}
