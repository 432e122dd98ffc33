"""Causes of a difference, one by one: what each explains, and where it stops."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest

from gateway.core.reconcile import Reconciliation, Row, Verdict, reconcile
from gateway.core.reconcile_cells import Account, Amount, Billed, Booked, Cause, Kind, Relayed

DAY = date(2026, 11, 18)
NEXT = DAY + timedelta(days=1)
ACCOUNT = Account(name="one", routes=frozenset({"a"}), ids=frozenset({"wrkspc_1"}))
PRICE = 4_000
"""Nano-dollars for a token, on both sides."""


def ours(tokens: int = 100, *, kind: Kind = Kind.OUTPUT, price: int = PRICE, **more: Any) -> Booked:
    values: dict[str, Any] = {"day": DAY, "route": "a", "model": "m", "entries": 1}
    values |= {"prices": frozenset({"list"})} | more
    return Booked(amounts={kind: Amount(tokens, Fraction(tokens * price))}, **values)


def theirs(
    tokens: int = 100, *, kind: Kind = Kind.OUTPUT, price: Fraction | int = PRICE, **more: Any
) -> list[Billed]:
    """A row of the usage report and one of the cost report."""
    values: dict[str, Any] = {"day": DAY, "workspace_id": "wrkspc_1", "model": "m", "kind": kind} | more
    return [
        Billed(amount=Amount(tokens), **values),
        Billed(
            amount=Amount(0, Fraction(tokens * price)), charged_nanousd=Fraction(tokens * price), **values
        ),
    ]


def compare(
    booked: list[Booked], *billed: list[Billed], relayed: list[Relayed] | None = None, **more: Any
) -> Reconciliation:
    figures = [figure for both in billed for figure in both]
    days = more.pop("days", [DAY])
    return reconcile(booked, relayed or [], figures, accounts=[ACCOUNT], days=days, **more)


def explained(row: Row) -> Mapping[Cause, int]:
    return {item.cause: item.tokens for item in row.explanations}


def only(found: Reconciliation) -> Row:
    (row,) = found.rows
    return row


def test_equal_books_agree_and_nothing_is_explained() -> None:
    found = compare([ours()], theirs())

    assert found.verdict is Verdict.AGREES
    assert only(found).explanations == ()
    assert found.ours == found.theirs == Amount(100, Fraction(100 * PRICE))
    assert found.charged_nanousd == 100 * PRICE


@pytest.mark.parametrize("tokens", [99, 101])
def test_what_no_cause_explains_stays_with_its_worth(tokens: int) -> None:
    found = compare([ours()], theirs(tokens))

    assert found.verdict is Verdict.DIFFERS
    assert only(found).unexplained == Amount(tokens - 100, Fraction((tokens - 100) * PRICE))


def test_no_tolerance_in_dollars_forgives_a_token() -> None:
    assert compare([ours()], theirs(101), tolerance_nanousd=10**12).verdict is Verdict.DIFFERS


def test_midnight_moves_no_more_than_the_calls_around_it() -> None:
    booked = [ours(100), ours(30, may_be_next_day=True), ours(50, day=NEXT)]
    found = compare(booked, theirs(90), theirs(90, day=NEXT), days=[DAY, NEXT])
    today, tomorrow = found.rows

    assert explained(today) == {Cause.MIDNIGHT: -30}
    assert explained(tomorrow) == {Cause.MIDNIGHT: 30}
    assert (today.unexplained.tokens, tomorrow.unexplained.tokens) == (-10, 10)
    assert found.by_cause[Cause.MIDNIGHT] == Amount()


def test_midnight_moves_to_the_day_before_as_well() -> None:
    found = compare(
        [ours(100), ours(50, day=NEXT), ours(20, day=NEXT, may_be_previous_day=True)],
        theirs(120),
        theirs(50, day=NEXT),
    )

    assert found.verdict is Verdict.AGREES
    assert explained(only(found)) == {Cause.MIDNIGHT: 20}


def test_a_difference_on_one_day_only_is_not_one_of_midnight() -> None:
    found = compare([ours(100, may_be_next_day=True)], theirs(60), theirs(5, day=NEXT))

    assert explained(only(found)) == {Cause.MIDNIGHT: -5}
    assert only(found).unexplained.tokens == -35


def test_iterations_move_between_models_of_one_day() -> None:
    booked = [ours(100), ours(60, iterated=True), ours(10, model="n")]
    found = compare(booked, theirs(120), theirs(50, model="n"))

    assert found.verdict is Verdict.AGREES
    assert [explained(row) for row in found.rows] == [{Cause.ITERATIONS: -40}, {Cause.ITERATIONS: 40}]


def test_iterations_move_no_more_than_there_are() -> None:
    booked = [ours(100), ours(30, iterated=True), ours(10, model="n")]
    fewer, more = compare(booked, theirs(90), theirs(50, model="n")).rows

    assert [explained(fewer), explained(more)] == [{Cause.ITERATIONS: -30}, {Cause.ITERATIONS: 30}]
    assert (fewer.unexplained.tokens, more.unexplained.tokens) == (-10, 10)


def test_a_guess_may_have_cost_nothing_and_no_less() -> None:
    booked = [ours(100), ours(40, guessed=True, most_nanousd=0)]

    assert explained(only(compare(booked, theirs(100)))) == {Cause.GUESSED: -40}
    assert only(compare(booked, theirs(99))).unexplained.tokens == -1


def test_a_guess_may_have_cost_what_was_set_aside_and_no_more() -> None:
    booked = [ours(100), ours(10, guessed=True, most_nanousd=25 * PRICE)]

    assert explained(only(compare(booked, theirs(135)))) == {Cause.GUESSED: 25}
    assert only(compare(booked, theirs(136))).unexplained.tokens == 1


def test_what_is_not_charged_may_be_missing_and_costs_nothing() -> None:
    booked = [ours(100), ours(70, price=0, not_charged=True)]
    missing, counted = compare(booked, theirs(100)), compare(booked, theirs(100), theirs(70, price=0))

    assert missing.verdict is counted.verdict is Verdict.AGREES
    assert missing.by_cause == {Cause.NOT_CHARGED: Amount(-70)}
    assert counted.by_cause == {}


@pytest.mark.parametrize(
    ("created_days_ago", "cause"),
    [(0, Cause.BATCHES), (1, Cause.BATCHES), (2, Cause.OTHER_TRAFFIC)],
)
def test_batches_are_those_that_were_created_here(created_days_ago: int, cause: Cause) -> None:
    relayed = [Relayed(day=DAY - timedelta(days=created_days_ago), route="a", batches=1)]
    found = compare([ours()], theirs(), theirs(40, tier="batch"), relayed=relayed)

    assert found.verdict is Verdict.AGREES
    assert found.by_cause == {cause: Amount(40, Fraction(40 * PRICE))}


def test_batches_explain_nothing_outside_the_tier_of_batches() -> None:
    relayed = [Relayed(day=DAY, route="a", batches=1)]

    assert only(compare([ours()], theirs(140), relayed=relayed)).unexplained.tokens == 40


def test_a_model_that_the_ledger_knows_on_another_day_is_not_other_traffic() -> None:
    found = compare([ours(), ours(day=NEXT, model="n")], theirs(), theirs(5, model="n"))

    assert found.verdict is Verdict.DIFFERS


def test_other_traffic_is_of_an_account_or_model_without_entries() -> None:
    found = compare(
        [ours()],
        theirs(),
        theirs(5, model="n"),
        theirs(7, workspace_id="wrkspc_2"),
        theirs(2, kind=Kind.WEB_SEARCH, model="n"),
    )

    assert found.verdict is Verdict.AGREES
    assert found.by_cause == {Cause.OTHER_TRAFFIC: Amount(12, Fraction(14 * PRICE))}
    (other,) = (row for row in found.rows if row.place.account == "wrkspc_2")
    assert other.explanations[0].note == "nothing of this account passed through here"


def test_searches_of_a_known_model_are_not_other_traffic() -> None:
    assert compare([ours()], theirs(), theirs(2, kind=Kind.WEB_SEARCH)).verdict is Verdict.DIFFERS


def test_calls_without_usage_are_named_and_not_absolved() -> None:
    found = compare([ours()], theirs(130), relayed=[Relayed(day=DAY, route="a", other=2)])

    assert found.verdict is Verdict.DIFFERS
    assert explained(only(found)) == {Cause.WITHOUT_USAGE: 30}
    assert only(found).unexplained == Amount()


def test_recent_entries_may_be_missing_and_no_others() -> None:
    booked = [ours(100), ours(20, recent=True)]

    assert explained(only(compare(booked, theirs(100)))) == {Cause.TOO_RECENT: -20}
    assert only(compare(booked, theirs(95))).unexplained.tokens == -5


def test_dollars_may_come_later_than_tokens() -> None:
    usage, cost = theirs(120)
    late = [usage, Billed(**{**_fields(cost), "amount": Amount(0, Fraction(100 * PRICE))})]
    found = compare([ours(100), ours(20, recent=True)], late)

    assert found.verdict is Verdict.AGREES
    assert found.by_cause == {Cause.TOO_RECENT: Amount(0, Fraction(-20 * PRICE))}


def test_another_price_is_named_where_tokens_agree() -> None:
    found = compare([ours()], theirs(price=6_000), tolerance_nanousd=0)

    assert found.verdict is Verdict.DIFFERS
    (item,) = only(found).explanations
    assert (item.cause, item.tokens, item.nanousd) == (Cause.PRICE, 0, Fraction(200_000))
    assert item.note == "$4 here, $6 there, for a million"


def test_another_price_within_the_tolerance_is_no_reason_to_look() -> None:
    assert compare([ours()], theirs(price=6_000), tolerance_nanousd=200_000).verdict is Verdict.AGREES


def test_another_price_is_told_from_tokens_that_a_guess_explains() -> None:
    booked = [ours(100), ours(40, guessed=True)]
    found = compare(booked, theirs(100, price=6_000), tolerance_nanousd=0)

    assert {cause: amount.nanousd for cause, amount in found.by_cause.items()} == {
        Cause.GUESSED: -40 * PRICE,
        Cause.PRICE: 200_000,
    }


def test_tokens_explained_at_one_of_several_prices_are_not_another_price() -> None:
    """The guess was at the dearer of two prices, and their average says little about it."""
    booked = [ours(100), ours(40, price=8_000, guessed=True, prices=frozenset({"dear"}))]
    found = compare(booked, theirs(100), tolerance_nanousd=0)

    assert found.verdict is Verdict.AGREES
    assert found.by_cause == {Cause.GUESSED: Amount(-40, Fraction(-40 * 8_000))}


@pytest.mark.parametrize(("off", "cause"), [(3, Cause.ROUNDING), (4, Cause.PRICE)])
def test_each_entry_may_be_rounded_by_a_nano_dollar(off: int, cause: Cause) -> None:
    usage, cost = theirs()
    rounded = [usage, Billed(**{**_fields(cost), "amount": Amount(0, Fraction(100 * PRICE - off))})]

    assert set(compare([ours(entries=3)], rounded).by_cause) == {cause}


def test_each_amount_may_be_rounded_to_its_last_digit() -> None:
    found = compare([ours()], theirs(price=3_999), smallest_nanousd=Fraction(100))

    assert set(found.by_cause) == {Cause.ROUNDING}


def test_containers_and_sessions_are_dollars_without_tokens() -> None:
    hours = Billed(day=DAY, workspace_id="wrkspc_1", kind=Kind.OTHER, amount=Amount(0, Fraction(5_000_000)))
    found = compare([ours()], theirs(), [hours])

    assert found.verdict is Verdict.AGREES
    assert found.by_cause == {Cause.OTHER_TRAFFIC: Amount(0, Fraction(5_000_000))}


@pytest.mark.parametrize(("booked", "billed"), [([], theirs()), ([ours()], [])])
def test_without_one_side_there_is_no_telling(booked: list[Booked], billed: list[Billed]) -> None:
    found = compare(booked, billed)

    assert found.verdict is Verdict.CANNOT_TELL
    assert found.reason


def test_days_around_are_looked_at_and_not_reported() -> None:
    found = compare([ours(), ours(50, day=NEXT)], theirs(), theirs(70, day=NEXT))

    assert found.verdict is Verdict.AGREES
    assert found.ours.tokens == 100
    assert found.charged_nanousd == 100 * PRICE


def _fields(figure: Billed) -> dict[str, Any]:
    return {name: getattr(figure, name) for name in Billed.__slots__}
