"""`gateway statement`: one month, a statement for each workspace, team or cost centre; from the ledger,
read-only. Budgets are those of the configuration, without what was granted since."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.adapters.clock import SystemClock
from gateway.cli.config import ConfigOption, JsonOption
from gateway.cli.printing import plain
from gateway.cli.report import Books, CsvOption, LedgerOption, Span, said, sources_of, span_of, teams_of
from gateway.cli.report_rows import print_csv, print_json
from gateway.core.ledger import SAVED_MEANS, By, Dimension, Tag, day_bounds, dollars, read_by, usd
from gateway.core.month_end import METHOD, MonthEnd, month_end
from gateway.core.report_lines import Row
from gateway.core.statement import Statement, month_budgets, statements
from gateway.settings import Settings
from gateway.settings.build import build_limits

HISTORY = timedelta(days=400)
"""As far back as the forecast looks."""
_BY = (Dimension.WORKSPACE, Dimension.TEAM)


def statement(
    month: Annotated[str | None, typer.Option(help="Such as 2026-11, in UTC; else this one.")] = None,
    by: Annotated[str, typer.Option(help="workspace, team, or tag:NAME for a cost centre.")] = "workspace",
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    config: ConfigOption = None,
) -> None:
    """Print what each workspace, team or cost centre spent in a month, on what, and of which budget.

    A month that is not over has a forecast. For example:

    gateway statement --month 2026-11 --by tag:x-cost-centre --csv
    """
    today = datetime.fromtimestamp(SystemClock().now(), UTC).date()
    try:
        one = read_by(by)
        if one not in _BY and not isinstance(one, Tag):
            raise ValueError(f"statements are by workspace, team or tag:NAME, not by {by}")
        span = span_of(month or f"{today:%Y-%m}", None, None)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    sources, settings = sources_of(ledger, config, configured=True)
    assert settings is not None
    books = Books(sources, teams_of(settings))
    with said():
        totals = books.totals((one, Dimension.MODEL), span)
        forecasts = _forecasts(books, one, today) if span.name == f"{today:%Y-%m}" else {}
        names = {total.group[0] for total in totals}
        found = statements(totals, _budgets(settings, one, names), forecasts)
    if as_json:
        print_json([_object(one, span, each) for each in found])
    elif as_csv:
        print_csv(_columns(one), [row for each in found for row in _rows(one, span, each)])
    else:
        _print(one, span, found)


def _forecasts(books: Books, by: By, today: date) -> dict[str, MonthEnd]:
    start_ms, end_ms = day_bounds(today - HISTORY, today)
    spent: dict[str, dict[date, int]] = defaultdict(dict)
    for total in books.totals((by, Dimension.DAY), Span(start_ms, end_ms, "")):
        name, day = total.group
        spent[name][date.fromisoformat(day)] = total.cost_nanousd
    return {name: month_end(days, today) for name, days in spent.items()}


def _budgets(settings: Settings, by: By, names: set[str]) -> dict[str, int]:
    organisations = {name: each.organisation for name, each in settings.workspaces.workspaces.items()}
    return month_budgets(build_limits(settings), by, names, organisations)


def _columns(by: By) -> list[str]:
    return ["month", by.value, "model", "kind", "quantity", "unit", "cost_usd"]


def _rows(by: By, span: Span, each: Statement) -> list[Row]:
    return [
        {
            "month": span.name,
            by.value: each.name,
            "model": line.model,
            "kind": line.kind,
            "quantity": line.quantity,
            "unit": line.unit,
            "cost_usd": usd(line.nanousd),
        }
        for line in each.lines
    ]


def _object(by: By, span: Span, each: Statement) -> dict[str, object]:
    total, end = each.total, each.month_end
    forecast = None if end is None or end.forecast_nanousd is None else usd(end.forecast_nanousd)
    return {
        "month": span.name,
        by.value: each.name,
        "requests": total.requests,
        "cost_usd": usd(total.cost_nanousd),
        "budget_usd": None if each.budget_nanousd is None else usd(each.budget_nanousd),
        "budget_share": None if each.share is None else round(each.share, 6),
        "saved_usd": usd(total.saved_nanousd),
        "saved_means": SAVED_MEANS,
        "lost_by_misses_usd": usd(total.miss_nanousd),
        "guessed_usd": usd(total.guessed_nanousd),
        "fallback_usd": usd(total.fallback_nanousd),
        "forecast_usd": forecast,
        "forecast_off_ratio": None if end is None or end.off is None else round(end.off, 6),
        "forecast_sentence": None if end is None else end.sentence,
        "lines": _rows(by, span, each),
    }


def _print(by: By, span: Span, found: tuple[Statement, ...]) -> None:
    if not found:
        typer.echo("No entries.")
        return
    console = Console(width=120)
    for each in found:
        table = Table(box=None, padding=(0, 2, 0, 0), show_footer=True, footer_style="bold")
        table.add_column("model", "all")
        table.add_column("kind")
        table.add_column("quantity", justify="right")
        table.add_column("cost $", dollars(each.total.cost_nanousd), justify="right")
        for line in each.lines:
            table.add_row(escape(plain(line.model)), line.kind, f"{line.quantity:,}", dollars(line.nanousd))
        title = f"{plain(each.name)} ({by.value}), {span.name}, UTC"
        console.print(title, markup=False, highlight=False, soft_wrap=True)
        console.print(table)
        console.print("\n".join(_notes(each)), markup=False, highlight=False, soft_wrap=True)
        console.print()
    notes = [SAVED_MEANS, *([METHOD] if any(each.month_end for each in found) else [])]
    console.print("\n".join(notes), markup=False, highlight=False, soft_wrap=True)


def _notes(each: Statement) -> list[str]:
    total = each.total
    notes = [
        f"Saved by caching: ${dollars(total.saved_nanousd)}; lost by misses: ${dollars(total.miss_nanousd)}."
    ]
    if each.budget_nanousd and each.share is not None:
        notes.append(f"{each.share:.1%} of the budget of ${dollars(each.budget_nanousd, 2)}.")
    if total.guessed_nanousd:
        notes.append(f"Guessed: ${dollars(total.guessed_nanousd)} rests on usage not reported in full.")
    if total.fallback_nanousd:
        notes.append(f"${dollars(total.fallback_nanousd)} is at the fallback price: no price was known.")
    if each.month_end is not None:
        notes.append(each.month_end.sentence)
    return notes
