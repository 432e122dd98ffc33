"""Whatever the two sides say: each row adds up, and equal books agree."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.reconcile import Verdict, reconcile
from gateway.core.reconcile_cells import Account, Amount, Billed, Booked, Kind, Relayed

FIRST = date(2026, 11, 17)
DAYS = [FIRST + timedelta(days=number) for number in range(3)]
ACCOUNTS = [
    Account(name="one", routes=frozenset({"a"}), ids=frozenset({"w1"})),
    Account(name="rest", routes=frozenset({"b"}), ids=None),
]
days, models = st.sampled_from(DAYS), st.sampled_from(["m", "n"])
tiers = st.sampled_from(["standard", "batch"])
kinds = st.sampled_from(list(Kind)[:6])
counts, prices = st.integers(0, 50), st.sampled_from([Fraction(1), Fraction(11, 2), Fraction(4_000)])
flags = st.booleans()
amounts = st.builds(lambda count, price: Amount(count, count * price), counts, prices)
booked = st.builds(
    Booked,
    day=days,
    route=st.sampled_from(["a", "b"]),
    model=models,
    tier=tiers,
    entries=st.integers(1, 3),
    amounts=st.dictionaries(kinds, amounts, max_size=3),
    guessed=flags,
    not_charged=flags,
    iterated=flags,
    recent=flags,
    may_be_next_day=flags,
    may_be_previous_day=flags,
    most_nanousd=st.integers(0, 10**6),
    prices=st.frozensets(st.sampled_from(["p", "q"]), min_size=1),
)
billed = st.builds(
    Billed,
    day=days,
    workspace_id=st.sampled_from(["w1", "w2"]),
    model=models,
    tier=tiers,
    kind=kinds,
    amount=st.one_of(
        st.builds(Amount, counts), st.builds(Amount, st.just(0), st.fractions(0, 10**6, max_denominator=9))
    ),
)
relayed = st.builds(Relayed, day=days, route=st.sampled_from(["a", "b"]), batches=counts, other=counts)


@settings(max_examples=200, deadline=None)
@given(st.lists(booked, max_size=8), st.lists(relayed, max_size=3), st.lists(billed, max_size=12))
def test_every_row_adds_up(ours: list[Booked], calls: list[Relayed], theirs: list[Billed]) -> None:
    found = reconcile(ours, calls, theirs, accounts=ACCOUNTS, days=DAYS, smallest_nanousd=Fraction(1))

    for row in found.rows:
        tokens, nanousd = row.unexplained.tokens, row.unexplained.nanousd
        for item in row.explanations:
            tokens, nanousd = tokens + item.tokens, nanousd + item.nanousd
        assert row.difference == Amount(tokens, nanousd)
    assert found.theirs.nanousd == sum(figure.amount.nanousd for figure in theirs)


@settings(max_examples=100, deadline=None)
@given(st.lists(booked, min_size=1, max_size=8))
def test_books_that_are_told_back_agree(ours: list[Booked]) -> None:
    ids = {"a": "w1", "b": "w2"}
    told = [
        Billed(
            day=part.day,
            workspace_id=ids[part.route],
            model=part.model,
            tier=part.tier,
            kind=kind,
            amount=one,
        )
        for part in ours
        for kind, amount in part.amounts.items()
        for one in (Amount(amount.tokens), Amount(0, amount.nanousd))
    ]
    found = reconcile(ours, [], told, accounts=ACCOUNTS, days=DAYS, tolerance_nanousd=0)

    assert found.by_cause == {}
    assert found.verdict is not Verdict.DIFFERS
