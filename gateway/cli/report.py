"""`gateway report`: what was spent, on what, and what caching did, from the ledger, read-only.

Several ledgers (one for each replica) are added up. Days and months are those of UTC, by the arrival of the
call. Costs are the gateway's own, from its price table; the invoice is the provider's.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gateway.adapters.ledger import read_totals
from gateway.cli.config import ConfigOption, settings_or_exit
from gateway.core.errors import ConfigError
from gateway.core.ledger import Dimension, Total, add_up, month_bounds, usd
from gateway.settings.gateway import LEDGER_FILE

app = typer.Typer(help="What was spent, by workspace, model, key, day or month.")


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.callback(invoke_without_command=True)
def report(
    ledger: Annotated[
        list[Path] | None,
        typer.Option(help="A ledger file; repeat it for each replica. Else that of the configuration."),
    ] = None,
    by: Annotated[
        str, typer.Option(help=f"What to split by, with commas: {', '.join(Dimension)}.")
    ] = "workspace,model",
    month: Annotated[
        str | None, typer.Option(help="Such as 2026-11, in UTC; without it, all there is.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TABLE,
    config: ConfigOption = None,
) -> None:
    """Print totals of cost, tokens and requests."""
    try:
        dimensions = _dimensions(by)
        start_ms, end_ms = month_bounds(month) if month else (0, 2**62)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        totals = add_up(
            total
            for path in ledger or [configured_ledger(config)]
            for total in read_totals(path, dimensions, start_ms=start_ms, end_ms=end_ms)
        )
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    _PRINTERS[format](dimensions, totals)


def configured_ledger(config: Path | None) -> Path:
    """The ledger of this host's gateway. Prints what is wrong and exits where the configuration is."""
    return settings_or_exit(config).gateway.state_path(LEDGER_FILE)


def _dimensions(by: str) -> tuple[Dimension, ...]:
    names = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in names if name not in list(Dimension)]
    if unknown:
        raise ValueError(f"cannot split by {', '.join(unknown)}; there are {', '.join(Dimension)}")
    return tuple(dict.fromkeys(Dimension(name) for name in names))


def _row(dimensions: Sequence[Dimension], total: Total) -> dict[str, str | int | float | None]:
    """One group for machines. Dollars are exact, as text with nine decimals."""
    row: dict[str, str | int | float | None] = {
        dimension.value: value for dimension, value in zip(dimensions, total.group, strict=True)
    }
    row |= {
        "requests": total.requests,
        "refused": total.refused,
        "failed": total.failed,
        "uncached_input_tokens": total.uncached_input_tokens,
        "cache_read_tokens": total.cache_read_tokens,
        "cache_write_5m_tokens": total.cache_write_5m_tokens,
        "cache_write_1h_tokens": total.cache_write_1h_tokens,
        "output_tokens": total.output_tokens,
        "cache_read_ratio": None if total.cache_read_ratio is None else round(total.cache_read_ratio, 6),
        "uncached_input_usd": usd(total.uncached_input_nanousd),
        "cache_read_usd": usd(total.cache_read_nanousd),
        "cache_write_5m_usd": usd(total.cache_write_5m_nanousd),
        "cache_write_1h_usd": usd(total.cache_write_1h_nanousd),
        "output_usd": usd(total.output_nanousd),
        "server_tools_usd": usd(total.server_tools_nanousd),
        "cost_usd": usd(total.cost_nanousd),
        "counterfactual_cost_usd": usd(total.counterfactual_nanousd),
        "saved_usd": usd(total.counterfactual_nanousd - total.cost_nanousd),
        "guessed_usd": usd(total.guessed_nanousd),
        "fallback_usd": usd(total.fallback_nanousd),
    }
    return row


def _print_csv(dimensions: Sequence[Dimension], totals: Sequence[Total]) -> None:
    columns = list(_row(dimensions, Total(group=("",) * len(dimensions))))
    writer = csv.DictWriter(sys.stdout, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for total in totals:
        row = _row(dimensions, total)
        writer.writerow({name: _inert(value) for name, value in row.items()})


def _inert(value: str | int | float | None) -> str | int | float | None:
    """A model name that a spreadsheet would take for a formula is shown as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r") else value


def _print_json(dimensions: Sequence[Dimension], totals: Sequence[Total]) -> None:
    json.dump([_row(dimensions, total) for total in totals], sys.stdout, indent=2)
    sys.stdout.write("\n")


def _print_table(dimensions: Sequence[Dimension], totals: Sequence[Total]) -> None:
    from rich.console import Console
    from rich.table import Table

    overall = add_up(replace(total, group=()) for total in totals)
    if not overall:
        typer.echo("No entries.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_footer=len(totals) > 1, footer_style="bold")
    for index, dimension in enumerate(dimensions):
        longest = max(len(_plain(total.group[index])) for total in totals)
        table.add_column(
            dimension.value, "all" if index == 0 else "", overflow="fold", min_width=min(longest, 8)
        )
    for heading, figure in zip(_HEADINGS, _figures(overall[0]), strict=True):
        table.add_column(heading, figure, justify="right", no_wrap=True)
    for total in totals:
        table.add_row(*(escape(_plain(value)) for value in total.group), *_figures(total))
    # A pipe has no width, and a terminal that is too narrow had better break lines than lose figures.
    console = Console(width=250)
    if sys.stdout.isatty():
        console = Console(width=max(Console().width, console.measure(table).minimum))
    console.print(table)
    console.print(_notes(overall[0]), markup=False, highlight=False)


_HEADINGS = ("calls", "prompt", "read", "output", "cost $", "without $", "saved")


def _figures(total: Total) -> tuple[str, ...]:
    ratio, without = total.cache_read_ratio, total.counterfactual_nanousd
    return (
        f"{total.requests:,}",
        _tokens(total.prompt_tokens),
        "-" if ratio is None else f"{ratio:.1%}",
        _tokens(total.output_tokens),
        _dollars(total.cost_nanousd),
        _dollars(without),
        f"{(without - total.cost_nanousd) / without:.1%}" if without else "-",
    )


def _tokens(count: int) -> str:
    """For people: three or four digits and a unit."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1_000:,.0f} k" if count < 10_000_000 else f"{count / 1_000_000:,.0f} M"


def _notes(overall: Total) -> str:
    notes = [
        "prompt, output: tokens. read: share of the prompt tokens read from a cache.",
        "without: what the same calls would have cost without caching. Days and months in UTC.",
    ]
    if overall.guessed_nanousd:
        notes.append(f"${_dollars(overall.guessed_nanousd)} of the cost rests on usage not reported in full.")
    if overall.fallback_nanousd:
        notes.append(f"${_dollars(overall.fallback_nanousd)} is at the fallback price: no price was known.")
    return "\n".join(notes)


def _dollars(nanousd: int) -> str:
    """For people: four decimals, half a unit rounded up."""
    units = (abs(nanousd) + 50_000) // 100_000
    sign = "-" if nanousd < 0 and units else ""
    return f"{sign}{units // 10_000:,}.{units % 10_000:04d}"


def _plain(text: str) -> str:
    """A model's name may come from outside: nothing in it may act on a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv, Format.JSON: _print_json}
