"""`gateway report`: what was spent, on what, what caching saved and misses cost, why it is more than in
another period, and charges for export; from the ledger, read-only.

Several ledgers (one for each replica) are added up. Days and months are those of UTC, by the arrival of the
call. Costs are the gateway's own, from its price table; the invoice is the provider's. Tables for people are
`report_tables.py`'s, lines for machines `report_rows.py`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger_queries import read_charges, read_losses, read_totals
from gateway.adapters.ledger_source import LedgerSource
from gateway.cli.config import ConfigOption, JsonOption, settings_or_exit
from gateway.cli.days import day_given, read_day
from gateway.cli.report_rows import print_csv, print_json
from gateway.core.errors import ConfigError
from gateway.core.focus import COLUMNS, focus_rows
from gateway.core.ledger import (
    By,
    Dimension,
    Loss,
    Total,
    add_up,
    add_up_losses,
    day_bounds,
    into_teams,
    month_bounds,
    read_by,
)
from gateway.core.periods import read_span
from gateway.core.report_lines import (
    CAUSE,
    LOSS_COLUMNS,
    loss_row,
    total_row,
    variance_columns,
    variance_row,
)
from gateway.core.variance import Variance, variances
from gateway.settings import Settings
from gateway.stores import ledger_source


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


LedgerOption = Annotated[
    list[Path] | None,
    typer.Option(help="A ledger file; repeat it for each replica. Else that of the configuration."),
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180), for spreadsheets.")]


@dataclass(frozen=True, slots=True)
class Span:
    """A period of time, and its name for people. Epoch milliseconds, the end exclusive."""

    start_ms: int
    end_ms: int
    name: str


ByOption = Annotated[
    str | None,
    typer.Option(
        help=f"What to split by, with commas: {', '.join(Dimension)}, tag:NAME; else workspace,model. With "
        f"{CAUSE} among them: what misses cost, by cause (and workspace, if nothing else is named)."
    ),
]
FromOption = Annotated[
    date | None, typer.Option("--from", parser=day_given, metavar="DATE", help="First day (UTC).")
]
ToOption = Annotated[
    date | None, typer.Option("--to", parser=day_given, metavar="DATE", help="Last day (UTC).")
]
PeriodOption = Annotated[
    str | None,
    typer.Option(help="Up to now, whole hours or days: as 24h or 30d. In place of the others."),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        help="A month, or days as 2026-10-01..2026-10-15: why the period cost more or less than it. With "
        "--period also `before`: as long a time right before it."
    ),
]


def report(
    ledger: LedgerOption = None,
    by: ByOption = None,
    month: Annotated[
        str | None, typer.Option(help="Such as 2026-11, in UTC; without it, all there is.")
    ] = None,
    from_day: FromOption = None,
    to_day: ToOption = None,
    period: PeriodOption = None,
    against: AgainstOption = None,
    focus: Annotated[
        Path | None,
        typer.Option(help="Write the charges to this file as FOCUS 1.3 (CSV); - for standard output."),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TABLE,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    config: ConfigOption = None,
) -> None:
    """Print what was spent, by workspace, team, model, key, tag, day or month; and why.

    Totals of cost, tokens, requests and savings; with `--by cause` what misses
    cost; with --against why it is more or less than in another period; with
    --focus charges for other programs. For example:

    gateway report --month 2026-11 --by team,model

    gateway report --month 2026-11 --against 2026-10

    gateway report --period 24h --by cause
    """
    format = Format.JSON if as_json else Format.CSV if as_csv else format
    try:
        split, causes = _split(by)
        span, other = _spans(period, month, from_day, to_day, against)
        if other is not None and (causes or len(split) > 1):
            raise ValueError("--against wants one --by at most")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    sources, settings = sources_of(ledger, config, Dimension.TEAM in split)
    books = Books(sources, teams_of(settings))
    with said():
        if focus is not None:
            _write_focus(focus, books, span)
        elif other is not None:
            (one,) = split or (Dimension.WORKSPACE,)
            before, after = (books.totals((one, Dimension.MODEL), part) for part in (other, span))
            _show_variances(format, one, variances(before, after), other.name, span.name)
        elif causes:
            _show_losses(format, split, books.losses(split, span))
        else:
            split = split if by is not None else (Dimension.WORKSPACE, Dimension.MODEL)
            cohorts = (Dimension.WORKSPACE, Dimension.COHORT)
            by_cohort = books.totals(cohorts, span) if format is Format.TABLE else ()
            _show_totals(format, split, books.totals(split, span), by_cohort)


def span_of(month: str | None, first: date | None, last: date | None) -> Span:
    """Of the options; all there is where none is given. Raises ValueError."""
    if month is not None:
        if first or last:
            raise ValueError("--month goes without --from and --to")
        return Span(*month_bounds(month), name=month)
    return Span(*day_bounds(first, last), name="..".join(str(day or "") for day in (first, last)))


def _recent(period: str) -> tuple[Span, Span]:
    """The last hours or days, and what was before. Raises ValueError."""
    if not period[:-1].isdecimal() or period[-1:] not in ("h", "d"):
        raise ValueError(f"--period {period}: write it as 24h or 30d")
    found = read_span(period, round(SystemClock().now() * 1000))
    return (
        Span(found.start_ms, found.end_ms, found.words),
        Span(found.before_start_ms, found.before_end_ms, found.before_words),
    )


def _spans(
    period: str | None,
    month: str | None,
    first: date | None,
    last: date | None,
    against: str | None,
) -> tuple[Span, Span | None]:
    """What is asked about, and what it is to be compared with. Raises ValueError."""
    recent = None if period is None else _recent(period)
    if recent is not None and (month or first or last):
        raise ValueError("--period goes without --month, --from and --to")
    if against is not None and not (month or first or recent):
        raise ValueError("--against wants a period (--month, --from or --period)")
    span = recent[0] if recent is not None else span_of(month, first, last)
    if against is None:
        return span, None
    return span, recent[1] if recent is not None and against == "before" else _other(against)


def _other(text: str) -> Span:
    """A month, or days as 2026-10-01..2026-10-15. Raises ValueError."""
    first, dots, last = text.partition("..")
    if not dots:
        return span_of(text, None, None)
    return span_of(None, read_day(first), read_day(last))


@dataclass(frozen=True, slots=True)
class Books:
    """Ledgers that are read as one. All raise `ConfigError` where one of them cannot be read."""

    sources: Sequence[LedgerSource]
    team_of: Mapping[str, str]

    def totals(self, by: Sequence[By], span: Span) -> tuple[Total, ...]:
        """Dearest first."""
        return add_up(
            total
            for source in self.sources
            for total in into_teams(
                read_totals(source, by, start_ms=span.start_ms, end_ms=span.end_ms), by, self.team_of
            )
        )

    def losses(self, by: Sequence[By], span: Span) -> tuple[Loss, ...]:
        """Dearest first."""
        return add_up_losses(
            loss
            for source in self.sources
            for loss in into_teams(
                read_losses(source, by, start_ms=span.start_ms, end_ms=span.end_ms), by, self.team_of
            )
        )


def sources_of(
    ledger: Sequence[Path] | None, config: Path | None, configured: bool
) -> tuple[list[LedgerSource], Settings | None]:
    """The ledgers that were named, else that of the configuration; and the configuration where it was needed,
    as it is if `configured`. Prints what is wrong and exits where the configuration is. Raises
    `typer.BadParameter` for a file that is not there."""
    if missing := [str(path) for path in ledger or () if not path.exists()]:
        raise typer.BadParameter(f"there is no file {', '.join(missing)}", param_hint="--ledger")
    if ledger and not configured:
        return [*ledger], None
    settings = settings_or_exit(config)
    with said():
        return [*ledger] if ledger else [ledger_source(settings.gateway, settings)], settings
    raise AssertionError("unreachable")


def teams_of(settings: Settings | None) -> Mapping[str, str]:
    """The team of each workspace that has one."""
    named = settings.workspaces.workspaces.items() if settings else ()
    return {name: workspace.team for name, workspace in named if workspace.team}


@contextmanager
def said() -> Iterator[None]:
    """A ledger that cannot be read is said in a line, with exit code 2."""
    try:
        yield
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def _write_focus(path: Path, books: Books, span: Span) -> None:
    """Whole or not at all: a file that was there is replaced when the new one is complete."""

    def write(file: TextIO) -> None:
        charges = read_charges(books.sources, start_ms=span.start_ms, end_ms=span.end_ms)
        print_csv(COLUMNS, (row for charge in charges for row in focus_rows(charge)), file)

    if str(path) == "-":
        write(sys.stdout)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            write(file)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _show_totals(
    format: Format, by: Sequence[By], totals: Sequence[Total], by_cohort: Sequence[Total]
) -> None:
    if format is Format.TABLE:
        from gateway.cli.report_tables import print_totals

        print_totals(by, totals, by_cohort)
    elif format is Format.CSV:
        columns = list(total_row(by, Total(group=("",) * len(by))))
        print_csv(columns, (total_row(by, total) for total in totals))
    else:
        print_json([total_row(by, total) for total in totals])


def _show_losses(format: Format, by: Sequence[By], losses: Sequence[Loss]) -> None:
    if format is Format.TABLE:
        from gateway.cli.report_tables import print_losses

        print_losses(by, losses)
    elif format is Format.CSV:
        print_csv([*(one.value for one in by), *LOSS_COLUMNS], (loss_row(by, loss) for loss in losses))
    else:
        print_json([loss_row(by, loss) for loss in losses])


def _show_variances(format: Format, by: By, found: Sequence[Variance], before: str, after: str) -> None:
    if format is Format.TABLE:
        from gateway.cli.report_tables import print_variances

        print_variances(by, found, before, after)
    elif format is Format.CSV:
        print_csv(variance_columns(by), (variance_row(by, one) for one in found))
    else:
        print_json([variance_row(by, one) for one in found])


def _split(by: str | None) -> tuple[tuple[By, ...], bool]:
    """What to split by, and whether causes of misses are asked for. Raises ValueError."""
    names = [name.strip() for name in (by or "").split(",") if name.strip()]
    try:
        split = tuple(dict.fromkeys(read_by(name) for name in names if name != CAUSE))
    except ValueError as error:
        raise ValueError(f"{error}, {CAUSE}") from None
    if CAUSE in names:
        return split or (Dimension.WORKSPACE,), True
    return split, False
