"""`gateway report`: what was spent, on what, what caching saved and misses cost, from the ledger, read-only.

Several ledgers (one for each replica) are added up. Days and months are those of UTC, by the arrival of the
call. Costs are the gateway's own, from its price table; the invoice is the provider's. Tables for people are
`report_tables.py`'s.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.ledger_queries import read_losses, read_totals
from gateway.adapters.ledger_source import LedgerSource
from gateway.cli.config import ConfigOption, settings_or_exit
from gateway.core.errors import ConfigError
from gateway.core.ledger import (
    Dimension,
    Loss,
    Total,
    add_up,
    add_up_losses,
    iso_instant,
    loss_sentence,
    month_bounds,
    usd,
)
from gateway.stores import ledger_source

app = typer.Typer(help="What was spent, by workspace, model, key, day or month.")


CAUSE = "cause"
"""In `--by`: not totals, but what misses cost, by cause and what else is asked for."""

Row = dict[str, str | int | float | None]
"""One line for machines. Dollars are exact, as text with nine decimals."""


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
        str,
        typer.Option(
            help=f"What to split by, with commas: {', '.join(Dimension)}. With {CAUSE} among them: what "
            "misses cost, by cause (and workspace, where nothing else is named)."
        ),
    ] = "workspace,model",
    month: Annotated[
        str | None, typer.Option(help="Such as 2026-11, in UTC; without it, all there is.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TABLE,
    config: ConfigOption = None,
) -> None:
    """Print totals of cost, tokens, requests and savings, or what misses cost."""
    try:
        dimensions, causes = _dimensions(by)
        start_ms, end_ms = month_bounds(month) if month else (0, 2**62)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    paths: list[LedgerSource] = [*ledger] if ledger else [configured_ledger(config)]

    def totals(split: Sequence[Dimension]) -> tuple[Total, ...]:
        return add_up(
            total for path in paths for total in read_totals(path, split, start_ms=start_ms, end_ms=end_ms)
        )

    try:
        if causes:
            losses = [
                loss
                for path in paths
                for loss in read_losses(path, dimensions, start_ms=start_ms, end_ms=end_ms)
            ]
            _show_losses(format, dimensions, add_up_losses(losses))
        else:
            by_cohort = totals((Dimension.WORKSPACE, Dimension.COHORT)) if format is Format.TABLE else ()
            _show_totals(format, dimensions, totals(dimensions), by_cohort)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def _show_totals(
    format: Format, dimensions: Sequence[Dimension], totals: Sequence[Total], by_cohort: Sequence[Total]
) -> None:
    if format is Format.TABLE:
        from gateway.cli.report_tables import print_totals

        print_totals(dimensions, totals, by_cohort)
    else:
        columns = list(_row(dimensions, Total(group=("",) * len(dimensions))))
        _PRINTERS[format](columns, [_row(dimensions, total) for total in totals])


def _show_losses(format: Format, dimensions: Sequence[Dimension], losses: Sequence[Loss]) -> None:
    if format is Format.TABLE:
        from gateway.cli.report_tables import print_losses

        print_losses(dimensions, losses)
    else:
        _PRINTERS[format]([*dimensions, *_LOSS_COLUMNS], [_loss_row(dimensions, loss) for loss in losses])


def configured_ledger(config: Path | None) -> LedgerSource:
    """The ledger of the configuration: the shared one where there is one, else this host's. Prints what is
    wrong and exits where the configuration is."""
    settings = settings_or_exit(config)
    try:
        return ledger_source(settings.gateway, settings)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def _dimensions(by: str) -> tuple[tuple[Dimension, ...], bool]:
    """What to split by, and whether causes of misses are asked for."""
    names = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in names if name != CAUSE and name not in list(Dimension)]
    if unknown:
        raise ValueError(f"cannot split by {', '.join(unknown)}; there are {', '.join(Dimension)}, {CAUSE}")
    dimensions = tuple(dict.fromkeys(Dimension(name) for name in names if name != CAUSE))
    if CAUSE in names:
        return dimensions or (Dimension.WORKSPACE,), True
    return dimensions, False


def _row(dimensions: Sequence[Dimension], total: Total) -> Row:
    row: Row = {dimension.value: value for dimension, value in zip(dimensions, total.group, strict=True)}
    row |= {
        "requests": total.requests,
        "refused": total.refused,
        "failed": total.failed,
        "uncached_input_tokens": total.uncached_input_tokens,
        "cache_read_tokens": total.cache_read_tokens,
        "cache_write_5m_tokens": total.cache_write_5m_tokens,
        "cache_write_1h_tokens": total.cache_write_1h_tokens,
        "output_tokens": total.output_tokens,
        "cache_read_ratio": _rounded(total.cache_read_ratio),
        "uncached_input_usd": usd(total.uncached_input_nanousd),
        "cache_read_usd": usd(total.cache_read_nanousd),
        "cache_write_5m_usd": usd(total.cache_write_5m_nanousd),
        "cache_write_1h_usd": usd(total.cache_write_1h_nanousd),
        "output_usd": usd(total.output_nanousd),
        "server_tools_usd": usd(total.server_tools_nanousd),
        "cost_usd": usd(total.cost_nanousd),
        "counterfactual_cost_usd": usd(total.counterfactual_nanousd),
        "input_plain_usd": usd(total.plain_nanousd),
        "input_paid_usd": usd(total.paid_nanousd),
        "saved_usd": usd(total.saved_nanousd),
        "saved_ratio": _rounded(total.saved_ratio),
        "lost_by_misses_usd": usd(total.miss_nanousd),
        "saved_by_holding_usd": usd(total.held_saved_nanousd),
        "shadow_paid_usd": usd(total.shadow_paid_nanousd),
        "shadow_usd": usd(total.shadow_nanousd),
        "guessed_usd": usd(total.guessed_nanousd),
        "fallback_usd": usd(total.fallback_nanousd),
    }
    return row


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 6)


_LOSS_COLUMNS = (CAUSE, "calls", "tokens", "lost_usd", "first_at", "last_at", "detail", "sentence")


def _loss_row(dimensions: Sequence[Dimension], loss: Loss) -> Row:
    row: Row = {dimension.value: value for dimension, value in zip(dimensions, loss.group, strict=True)}
    values: tuple[str | int, ...] = (
        loss.cause,
        loss.calls,
        loss.tokens,
        usd(loss.nanousd),
        iso_instant(loss.first_ms),
        iso_instant(loss.last_ms),
        loss.detail,
        loss_sentence(loss),
    )
    return row | dict(zip(_LOSS_COLUMNS, values, strict=True))


def _print_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    writer = csv.DictWriter(sys.stdout, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _inert(value) for name, value in row.items()})


def _inert(value: str | int | float | None) -> str | int | float | None:
    """A model name that a spreadsheet would take for a formula is shown as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r") else value


def _print_json(_columns: Sequence[str], rows: Iterable[Row]) -> None:
    json.dump(list(rows), sys.stdout, indent=2)
    sys.stdout.write("\n")


_PRINTERS = {Format.CSV: _print_csv, Format.JSON: _print_json}
