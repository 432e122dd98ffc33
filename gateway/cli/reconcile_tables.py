"""What `gateway reconcile` prints: a table for people, JSON and CSV for programs, and one sentence."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from fractions import Fraction

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.printing import console_for, plain
from gateway.core.ledger import usd
from gateway.core.reconcile import ABSOLVED, Reconciliation, Row, Verdict
from gateway.core.reconcile_cells import Amount, Cause

MOST_ROWS = 200
"""Of the table; the other forms have all."""
_WORDS = {
    Cause.MIDNIGHT: "around midnight, counted on the other day",
    Cause.ITERATIONS: "answers of several models, booked under one",
    Cause.GUESSED: "usage that was not reported in full, and guessed",
    Cause.NOT_CHARGED: "answers that cost nothing",
    Cause.BATCHES: "batches that are not booked yet",
    Cause.OTHER_TRAFFIC: "did not pass through this gateway",
    Cause.WITHOUT_USAGE: "maybe calls of which the gateway reads no usage",
    Cause.TOO_RECENT: "too recent for the reports",
    Cause.PRICE: "another price",
    Cause.ROUNDING: "rounding",
}


_NAMES = ("day", "account", "model", "service_tier", "kind", "agrees")
_AMOUNTS = ("ours", "theirs", "unexplained", *(cause.value for cause in Cause))
"""Columns of the CSV; each amount is two."""


def print_table(found: Reconciliation) -> None:
    """The rows that differ, what explains them, and the sentence."""
    rows = [row for row in found.rows if row.difference != Amount()]
    if rows:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("day", "account", "model", "tokens of"):
            table.add_column(heading, overflow="fold")
        for heading in ("here", "there", "difference", "$"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("why", overflow="fold", min_width=30)
        for row in rows[:MOST_ROWS]:
            table.add_row(*_cells(row, found.tolerance_nanousd))
        console = console_for(table)
        console.print(table)
        if len(rows) > MOST_ROWS:
            console.print(f"and {len(rows) - MOST_ROWS:,} more rows: see --json or --csv")
    for cause, amount in found.by_cause.items():
        typer.echo(f"{cause.value}: {amount.tokens:+,} tokens, {_signed(amount.nanousd)}: {_WORDS[cause]}.")
    typer.echo(sentence(found))


def sentence(found: Reconciliation) -> str:
    """The verdict, for people."""
    if found.verdict is Verdict.CANNOT_TELL:
        return f"There is no telling. {found.reason}"
    ours, theirs = found.ours, found.theirs
    sums = (
        f"{len(found.rows):,} rows; here {ours.tokens:,} tokens and ${_exact(ours.nanousd)}, there "
        f"{theirs.tokens:,} and ${_exact(theirs.nanousd)}."
    )
    if found.charged_nanousd != theirs.nanousd:
        sums += f" After discounts they charge ${_exact(found.charged_nanousd)}."
    if found.verdict is Verdict.AGREES:
        how = "to the nano-dollar" if not found.by_cause else "once the causes above are taken into account"
        return f"The ledger and the reports agree {how}: {sums}"
    return f"The ledger and the reports differ in {len(found.differing):,} of {sums}"


def print_json(found: Reconciliation) -> None:
    value = {
        "verdict": found.verdict.value,
        "summary": sentence(found),
        "tolerance_usd": usd(found.tolerance_nanousd),
        "ours": _amount(found.ours),
        "theirs": _amount(found.theirs),
        "theirs_charged_usd": _exact(found.charged_nanousd),
        "causes": {cause.value: _amount(amount) for cause, amount in found.by_cause.items()},
        "rows": [_row(row, found.tolerance_nanousd) for row in found.rows],
    }
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_csv(found: Reconciliation) -> None:
    """One line for each row; the sentence goes to standard error."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((*_NAMES, *(f"{amount}_{unit}" for amount in _AMOUNTS for unit in ("tokens", "usd"))))
    for row in found.rows:
        causes = {cause: Amount() for cause in Cause}
        for item in row.explanations:
            before = causes[item.cause]
            causes[item.cause] = Amount(before.tokens + item.tokens, before.nanousd + item.nanousd)
        place = row.place
        names = (place.day.isoformat(), place.account, place.model, place.tier, row.kind.value)
        amounts = (row.ours, row.theirs, row.unexplained, *causes.values())
        writer.writerow(
            (
                *(_inert(name) for name in names),
                row.agrees(found.tolerance_nanousd),
                *(value for amount in amounts for value in (amount.tokens, _exact(amount.nanousd))),
            )
        )
    typer.echo(sentence(found), err=True)


def _row(row: Row, tolerance_nanousd: int) -> dict[str, object]:
    place = row.place
    return {
        "day": place.day.isoformat(),
        "account": place.account,
        "model": place.model,
        "service_tier": place.tier,
        "kind": row.kind.value,
        "agrees": row.agrees(tolerance_nanousd),
        "ours": _amount(row.ours),
        "theirs": _amount(row.theirs),
        "explanations": [
            {"cause": item.cause.value, **_amount(Amount(item.tokens, item.nanousd)), "note": item.note}
            for item in row.explanations
        ],
        "unexplained": _amount(row.unexplained),
    }


def _amount(amount: Amount) -> dict[str, int | str]:
    return {"tokens": amount.tokens, "usd": _exact(amount.nanousd)}


def _cells(row: Row, tolerance_nanousd: int) -> Iterator[str]:
    place, difference = row.place, row.difference
    tier = "" if place.tier == "standard" else f" ({place.tier})"
    yield place.day.isoformat()
    yield escape(plain(place.account))
    yield escape(plain(place.model + tier))
    yield row.kind.value
    yield f"{row.ours.tokens:,}"
    yield f"{row.theirs.tokens:,}"
    yield f"{difference.tokens:+,}"
    yield _signed(difference.nanousd)
    yield "; ".join(escape(plain(reason)) for reason in _reasons(row, tolerance_nanousd))


def _reasons(row: Row, tolerance_nanousd: int) -> Iterator[str]:
    for item in row.explanations:
        what = f"{item.tokens:+,}" if item.tokens else _signed(item.nanousd)
        note = f" ({item.note})" if item.note else ""
        yield f"{'' if item.cause in ABSOLVED else '! '}{item.cause.value} {what}{note}"
    left = row.unexplained
    if left.tokens:
        yield f"! unexplained {left.tokens:+,}"
    elif left.nanousd:
        yield f"{'! ' if abs(left.nanousd) > tolerance_nanousd else ''}unexplained {_signed(left.nanousd)}"


def _exact(nanousd: Fraction) -> str:
    """Nine decimals; what is less than a nano-dollar is rounded."""
    return usd(round(nanousd))


def _signed(nanousd: Fraction) -> str:
    sign = "-" if round(nanousd) < 0 else "+"
    return f"{sign}${usd(abs(round(nanousd)))}"


def _inert(text: str) -> str:
    """A name that a spreadsheet would take for a formula is shown as text."""
    return f"'{text}" if text[:1] in ("=", "+", "@", "\t", "\r") else text
