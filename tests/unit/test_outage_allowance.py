"""What a replica may admit alone: never more than the allowance in one outage, whatever happens in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bucket import Amounts
from gateway.core.limits import Mode, OnStoreFailure, Unit
from gateway.core.outage_allowance import OutageAllowance
from tests.support.budgets import bound, rid, usd

NOW = 1_800_000_000_000
DAY = 86_400_000
MONEY = bound(1_000, on_store_failure=OnStoreFailure.ALLOWANCE, allowance=10)
REQUESTS = bound(
    1_000, id="requests", unit=Unit.REQUESTS, on_store_failure=OnStoreFailure.ALLOWANCE, allowance=3
)


def test_takes_up_to_the_allowance_and_no_more() -> None:
    own = OutageAllowance()
    assert own.take(rid("a"), [MONEY], usd(6), NOW) is None
    assert own.take(rid("b"), [MONEY], usd(5), NOW) is MONEY
    assert own.take(rid("c"), [MONEY], usd(4), NOW) is None
    assert own.used() == {"limit": 10}


def test_the_actual_cost_takes_the_place_of_what_was_held() -> None:
    own = OutageAllowance()
    own.take(rid("a"), [MONEY], usd(6), NOW)
    own.close(rid("a"), usd(2))
    own.close(rid("a"), usd(2))

    assert own.used() == {"limit": 2}
    assert own.take(rid("b"), [MONEY], usd(9), NOW) is MONEY
    assert own.take(rid("b"), [MONEY], usd(8), NOW) is None


def test_where_one_limit_has_no_more_none_is_taken_from() -> None:
    own = OutageAllowance()
    amounts = Amounts(nanousd=4, requests=4)

    assert own.take(rid("a"), [MONEY, REQUESTS], amounts, NOW) is REQUESTS
    assert own.used() == {}


def test_other_policies_and_shadow_limits_have_no_allowance_to_use_up() -> None:
    shadow = bound(5, mode=Mode.SHADOW, on_store_failure=OnStoreFailure.ALLOWANCE, allowance=1)
    own = OutageAllowance()

    assert own.take(rid("a"), [shadow, bound(5, id="open")], usd(100), NOW) is None
    assert own.used() == {}


def test_each_window_has_its_own_and_an_outage_that_is_over_gives_it_anew_but_for_what_runs() -> None:
    own = OutageAllowance()
    own.take(rid("a"), [MONEY], usd(6), NOW)
    own.close(rid("a"), usd(6))
    own.take(rid("runs"), [MONEY], usd(3), NOW)
    assert own.take(rid("b"), [MONEY], usd(10), NOW + DAY) is None
    own.close(rid("b"), Amounts())
    own.over()

    assert own.used() == {"limit": 3}
    assert own.take(rid("c"), [MONEY], usd(8), NOW) is MONEY
    own.close(rid("runs"), usd(3))
    own.over()
    assert own.used() == {}


def test_what_holds_nothing_of_an_allowance_is_closed_after_the_outage_like_any_other() -> None:
    """A download is one request and no money, and may run for longer than the outage."""
    own = OutageAllowance()
    assert own.take(rid("a"), [MONEY, REQUESTS], Amounts(requests=1), NOW) is None
    own.over()
    own.close(rid("a"), Amounts(requests=1))
    assert own.used() == {"limit": 0, "requests": 1}
    own.over()
    assert own.used() == {}


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.integers(0, 12)), max_size=40))
def test_what_an_outage_admits_and_costs_stays_within_the_allowance(
    steps: list[tuple[int, bool, int]],
) -> None:
    """As long as nothing costs more than it was estimated at."""
    own, admitted = OutageAllowance(), 0
    for number, (estimate, closes, cost) in enumerate(steps):
        if own.take(rid(str(number)), [MONEY], usd(estimate), NOW) is None:
            actual = min(cost, estimate) if closes else estimate
            admitted += actual
            if closes:
                own.close(rid(str(number)), usd(actual))

    assert admitted == own.used().get("limit", 0) <= 10
