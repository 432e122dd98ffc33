"""Putting both sides into cells: which account a figure belongs to, and what is compared over all models."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

from gateway.core.reconcile_cells import (
    ANY_MODEL,
    STANDARD,
    Account,
    Amount,
    Billed,
    Booked,
    Books,
    Kind,
    Place,
)

DAY = date(2026, 11, 18)
MAPPED = Account(name="one", routes=frozenset({"a"}), ids=frozenset({"wrkspc_1"}))
BY_KEY = Account(name="keyed", routes=frozenset({"c"}), ids=frozenset({"apikey_7"}))
REST = Account(name="rest", routes=frozenset({"b"}), ids=None)


def billed(workspace: str, key: str | None = None, kind: Kind = Kind.OUTPUT) -> Billed:
    return Billed(
        day=DAY,
        workspace_id=workspace,
        api_key_id=key,
        model="m",
        kind=kind,
        amount=Amount(5, Fraction(1, 2)),
    )


def accounts_of(books: Books) -> set[str]:
    return {place.account for place in books.groups}


def test_a_key_says_more_than_its_workspace_and_what_nobody_claims_is_the_rest() -> None:
    books = Books([MAPPED, BY_KEY, REST], others=True)
    for figure in (billed("wrkspc_1"), billed("wrkspc_1", "apikey_7"), billed("wrkspc_5")):
        assert books.add_billed(figure)

    assert accounts_of(books) == {"one", "keyed", "rest"}


def test_without_a_rest_the_accounts_of_others_have_their_own_names_or_are_left_out() -> None:
    with_others, without = Books([MAPPED], others=True), Books([MAPPED], others=False)

    assert with_others.add_billed(billed("wrkspc_5"))
    assert not without.add_billed(billed("wrkspc_5"))
    assert accounts_of(with_others) == {"wrkspc_5"}
    assert accounts_of(without) == set()


def test_entries_of_other_routes_are_left_out() -> None:
    books = Books([MAPPED], others=True)
    books.add_booked(
        Booked(day=DAY, route="z", model="m", entries=1, amounts={Kind.OUTPUT: Amount(1, Fraction(1))})
    )

    assert books.groups == {}
    assert books.seen == set()


def test_searches_are_compared_over_all_models() -> None:
    books = Books([MAPPED], others=True)
    books.add_billed(billed("wrkspc_1", kind=Kind.WEB_SEARCH))
    (place,) = books.groups
    cell = books.groups[place].cells[Kind.WEB_SEARCH]

    assert place == Place(DAY, "one", ANY_MODEL, STANDARD)
    assert cell.theirs_by_model == {("m", STANDARD): 5}


def test_the_price_of_a_cell_leaves_out_what_was_not_charged() -> None:
    books = Books([MAPPED], others=True)
    for tokens, nanousd, free in ((10, 50, False), (90, 0, True)):
        books.add_booked(
            Booked(
                day=DAY,
                route="a",
                model="m",
                entries=1,
                amounts={Kind.OUTPUT: Amount(tokens, Fraction(nanousd))},
                not_charged=free,
            )
        )
    cell = books.groups[Place(DAY, "one", "m", STANDARD)].cells[Kind.OUTPUT]

    assert cell.price == 5
    assert (cell.ours.tokens, cell.not_charged) == (100, 90)
