"""Does the ledger agree with the provider's own usage and cost reports, and if not, why? Pure.

What remains of each difference is given to causes in a fixed order, each with an amount; what no cause
explains stays unexplained. The values and cells are `reconcile_cells.py`'s.

Tokens come first. Dollars follow them: tokens that a cause explains are worth what ours cost on average in
the same cell, and only where the tokens agree after that is a difference in dollars one of price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from fractions import Fraction

from gateway.core.reconcile_cells import (
    BATCH,
    TOKEN_KINDS,
    Account,
    Amount,
    Billed,
    Booked,
    Books,
    Cause,
    Cell,
    Explanation,
    Group,
    Kind,
    Place,
    Relayed,
    add_up,
)

CENT_NANOUSD = 10_000_000
BATCH_DAYS = 2
"""A batch ends within 24 hours of its creation (batch processing page, 2026-08-21)."""

ABSOLVED = frozenset(Cause) - {Cause.WITHOUT_USAGE, Cause.PRICE}
"""Causes that leave the books right. The other ones name a suspect, and somebody has to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One place and kind, with everything that is to be said about it."""

    place: Place
    kind: Kind
    ours: Amount
    theirs: Amount
    explanations: tuple[Explanation, ...]
    unexplained: Amount

    @property
    def difference(self) -> Amount:
        return Amount(self.theirs.tokens - self.ours.tokens, self.theirs.nanousd - self.ours.nanousd)

    def agrees(self, tolerance_nanousd: int) -> bool:
        """Whether no tokens, and not more than the tolerance in dollars, are left to somebody to look at."""
        suspect = [item for item in self.explanations if item.cause not in ABSOLVED]
        open_nanousd = self.unexplained.nanousd + sum((item.nanousd for item in suspect), Fraction(0))
        open_tokens = self.unexplained.tokens != 0 or any(item.tokens for item in suspect)
        return not open_tokens and abs(open_nanousd) <= tolerance_nanousd


class Verdict(StrEnum):
    AGREES = "agrees"
    DIFFERS = "differs"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    rows: tuple[Row, ...]
    verdict: Verdict
    reason: str
    """One sentence where there is no telling; else empty."""
    tolerance_nanousd: int
    charged_nanousd: Fraction
    """What the provider asks for after discounts."""

    @property
    def ours(self) -> Amount:
        """Tokens, and the dollars of everything."""
        return add_up(_tokens_only(row.kind, row.ours) for row in self.rows)

    @property
    def theirs(self) -> Amount:
        return add_up(_tokens_only(row.kind, row.theirs) for row in self.rows)

    @property
    def differing(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.agrees(self.tolerance_nanousd))

    @property
    def by_cause(self) -> Mapping[Cause, Amount]:
        found: dict[Cause, list[Amount]] = {}
        for row in self.rows:
            for item in row.explanations:
                amount = _tokens_only(row.kind, Amount(item.tokens, item.nanousd))
                found.setdefault(item.cause, []).append(amount)
        return {cause: add_up(found[cause]) for cause in Cause if cause in found}


def reconcile(
    booked: Iterable[Booked],
    relayed: Iterable[Relayed],
    billed: Iterable[Billed],
    *,
    accounts: Sequence[Account],
    days: Sequence[date],
    smallest_nanousd: Fraction = Fraction(0),
    tolerance_nanousd: int = CENT_NANOUSD,
    others: bool = True,
) -> Reconciliation:
    """Compare the given days; with `others`, also say what the provider has in accounts of nobody here.

    Both sides should hold the day before and the day after as well, so that calls around midnight are found.
    `smallest_nanousd` is the unit that the cost report is rounded to."""
    books = Books(accounts, others=others)
    for sum_ in booked:
        books.add_booked(sum_)
    for calls in relayed:
        books.add_relayed(calls)
    wanted = frozenset(days)
    charged = Fraction(0)
    for figure in billed:
        if books.add_billed(figure) and figure.day in wanted:
            charged += figure.charged_nanousd
    _explain(books, smallest_nanousd)
    rows = tuple(
        Row(
            place=place,
            kind=kind,
            ours=cell.ours,
            theirs=cell.theirs,
            explanations=tuple(cell.explanations),
            unexplained=cell.unexplained,
        )
        for place, group in sorted(books.groups.items(), key=lambda item: _order(item[0]))
        if place.day in wanted
        for kind in Kind
        if (cell := group.cells.get(kind)) is not None and (cell.ours != Amount() or cell.theirs != Amount())
    )
    reason = _no_telling(rows)
    agrees = all(row.agrees(tolerance_nanousd) for row in rows)
    verdict = Verdict.CANNOT_TELL if reason else Verdict.AGREES if agrees else Verdict.DIFFERS
    return Reconciliation(
        rows=rows,
        verdict=verdict,
        reason=reason,
        tolerance_nanousd=tolerance_nanousd,
        charged_nanousd=charged,
    )


def _tokens_only(kind: Kind, amount: Amount) -> Amount:
    return amount if kind in TOKEN_KINDS else Amount(0, amount.nanousd)


def _no_telling(rows: Sequence[Row]) -> str:
    if not any(row.ours.tokens for row in rows):
        return "The ledger has no usage in these days."
    if not any(row.theirs.tokens for row in rows):
        return "The provider's reports have no usage in these days: is it the right organisation?"
    return ""


def _order(place: Place) -> tuple[date, str, str, str]:
    return (place.day, place.account, place.model, place.tier)


def _explain(books: Books, smallest_nanousd: Fraction) -> None:
    """Every cause in turn; then what the tokens leave of the dollars."""
    for step in _STEPS:
        step(books)
    for place, group in books.groups.items():
        for cell in group.cells.values():
            cell.unexplained = Amount(cell.rest)
            _explain_dollars(place, group, cell, smallest_nanousd)


def _midnight(books: Books) -> None:
    """Moves between a day and the next, of no more than the calls that may belong to either."""
    for place, group in books.groups.items():
        following = books.groups.get(replace(place, day=place.day + timedelta(days=1)))
        if following is None:
            continue
        for kind, today in group.cells.items():
            tomorrow = following.cells.get(kind)
            if tomorrow is None:
                continue
            later = min(-today.rest, tomorrow.rest, today.next_day)
            earlier = min(today.rest, -tomorrow.rest, tomorrow.previous_day)
            moved = max(later, 0) - max(earlier, 0)
            today.explain(Cause.MIDNIGHT, -moved)
            tomorrow.explain(Cause.MIDNIGHT, moved)


def _iterations(books: Books) -> None:
    """Moves between models of one day and account, of no more than answers of several iterations have."""
    models: dict[Place, list[Group]] = {}
    for place, group in books.groups.items():
        models.setdefault(replace(place, model=""), []).append(group)
    for groups in models.values():
        for kind in TOKEN_KINDS:
            cells = [cell for group in groups if (cell := group.cells.get(kind)) is not None]
            for fewer in cells:
                left = min(-fewer.rest, fewer.iterated)
                for more in cells:
                    moved = min(left, more.rest)
                    if moved > 0:
                        fewer.explain(Cause.ITERATIONS, -moved)
                        more.explain(Cause.ITERATIONS, moved)
                        left -= moved


def _guessed(books: Books) -> None:
    """No less than nothing of what was guessed; no more than was set aside for it, in dollars."""
    for group in books.groups.values():
        left = group.most_guessed_nanousd
        for cell in group.cells.values():
            rest, price = cell.rest, cell.price
            if rest < 0:
                cell.explain(Cause.GUESSED, max(rest, -cell.guessed))
            elif rest > 0 and price and left > 0:
                more = min(rest, int(left / price))
                left -= more * price
                cell.explain(Cause.GUESSED, more)


def _not_charged(books: Books) -> None:
    for group in books.groups.values():
        for cell in group.cells.values():
            cell.explain(Cause.NOT_CHARGED, min(0, max(cell.rest, -cell.not_charged)))


def _batches(books: Books) -> None:
    for place, group in books.groups.items():
        first = place.day - timedelta(days=BATCH_DAYS - 1)
        created = sum(
            calls.batches for calls in books.relayed.get(place.account, ()) if first <= calls.day <= place.day
        )
        if place.tier == BATCH and created:
            for cell in group.cells.values():
                cell.explain(Cause.BATCHES, max(0, cell.rest), f"{created} created here")


def _other_traffic(books: Books) -> None:
    accounts = {account for account, _, _ in books.seen}
    for place, group in books.groups.items():
        account = place.account
        note = "" if account in accounts else "nothing of this account passed through here"
        unseen = (account, place.model, place.tier) not in books.seen
        for kind, cell in group.cells.items():
            most = cell.rest if unseen and kind in TOKEN_KINDS else _unseen(books, account, cell)
            cell.explain(Cause.OTHER_TRAFFIC, max(0, min(cell.rest, most)), note)


def _unseen(books: Books, account: str, cell: Cell) -> int:
    """Of what is compared over all models: how much comes from models that the ledger never saw."""
    return sum(
        count for source, count in cell.theirs_by_model.items() if (account, *source) not in books.seen
    )


def _without_usage(books: Books) -> None:
    for place, group in books.groups.items():
        calls = sum(calls.other for calls in books.relayed.get(place.account, ()) if calls.day == place.day)
        if calls:
            for cell in group.cells.values():
                cell.explain(Cause.WITHOUT_USAGE, max(0, cell.rest), f"{calls} such calls")


def _too_recent(books: Books) -> None:
    for group in books.groups.values():
        for cell in group.cells.values():
            cell.explain(Cause.TOO_RECENT, min(0, max(cell.rest, -cell.recent)))


_STEPS: Sequence[Callable[[Books], None]] = (
    _midnight, _iterations, _guessed, _not_charged, _batches, _other_traffic, _without_usage, _too_recent,
)  # fmt: skip


def _explain_dollars(place: Place, group: Group, cell: Cell, smallest_nanousd: Fraction) -> None:
    """What tokens do not account for is rounding, the price, or unexplained like the tokens themselves."""
    ours, theirs = cell.ours, cell.theirs
    explained = sum((item.nanousd for item in cell.explanations), Fraction(0))
    missing = cell.unexplained.tokens * cell.price
    rest = theirs.nanousd - ours.nanousd - explained - missing
    # Each entry is rounded up once, to a nano-dollar, and each amount of theirs to its last digit.
    bound = group.entries + max(1, cell.figures) * smallest_nanousd
    if rest and abs(rest) <= bound:
        cell.explanations.append(Explanation(Cause.ROUNDING, 0, rest))
    elif rest and cell.unexplained.tokens:
        missing += rest
    elif rest and _is_of_mixed_prices(group, cell, rest):
        last = cell.explanations[-1]
        cell.explanations[-1] = replace(last, nanousd=last.nanousd + rest)
    elif rest < 0 and -rest <= cell.recent * cell.price:
        cell.explanations.append(Explanation(Cause.TOO_RECENT, 0, rest, "dollars come later than tokens"))
    elif rest and cell.kind is Kind.OTHER:
        cell.explanations.append(Explanation(Cause.OTHER_TRAFFIC, 0, rest, "containers and sessions"))
    elif rest:
        cell.explanations.append(Explanation(Cause.PRICE, 0, rest, _prices(cell, explained)))
    cell.unexplained = Amount(cell.unexplained.tokens, missing)


def _is_of_mixed_prices(group: Group, cell: Cell, rest: Fraction) -> bool:
    """Whether the cell's average price says little about the tokens explained, because they had several."""
    moved = sum(abs(item.tokens) for item in cell.explanations)
    several = len(group.prices) > 1 or any(item.cause is Cause.ITERATIONS for item in cell.explanations)
    return several and abs(rest) <= moved * cell.price


def _prices(cell: Cell, explained: Fraction) -> str:
    """Both prices, in dollars for a million."""
    tokens = cell.theirs.tokens
    if not tokens:
        return "they ask dollars for nothing"
    ours, theirs = (cell.ours.nanousd + explained) / tokens, cell.theirs.nanousd / tokens
    return f"${float(ours) / 1000:.6g} here, ${float(theirs) / 1000:.6g} there, for a million"
