"""`gateway replay`: what caching would have cost on recorded traffic, by policy. Sends nothing."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.config import JsonOption
from gateway.cli.printing import console_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.replay.play import Choice
    from gateway.replay.report import Report
    from gateway.replay.trace import TraceFile

HOW_TO_RECORD = """\
Nothing to replay. Let the gateway record your traffic first: digests, lengths and token counts, no text.

  In config/gateway.yaml:
    placement:
      policy: learned
      mode: shadow                      # decides, and sends the clients' own bytes
      recording: recording.jsonl.gz

  Run it for as long as is typical of your traffic, a working day at least, then:
    gateway replay recording*.jsonl.gz
"""


def replay(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="TRACE...", help="Recordings of the gateway, which count as one, or traces.", exists=True
        ),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only this policy; may be repeated. All without it.")
    ] = None,
    workspace: Annotated[
        list[str] | None, typer.Option(help="Only this workspace's requests; may be repeated.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="From when: 2026-11-20T08:00 (UTC), or the trace's seconds.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Up to when, as --from.")] = None,
    read_price: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Price of a read, of traces that name no model.")
    ] = 0.1,
    minimum: Annotated[
        int, typer.Option(min=0, help="Shortest prefix that is cached, of traces that name no model.")
    ] = 1024,
    chart: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw a chart as well.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that the planner decides as the recorded gateway did.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Price every caching policy on traffic that was recorded.

    The simulator's own cache and price table judge; holds and warm-ups are played in virtual time.
    """
    from gateway.core.planner import Prices
    from gateway.replay.play import POLICIES, Choice
    from gateway.replay.trace import Span, TraceError

    if not traces:
        typer.echo(HOW_TO_RECORD, err=True)
        raise typer.Exit(2)
    if unknown := set(policy or ()) - set(POLICIES):
        raise typer.BadParameter(f"no policy {', '.join(sorted(unknown))}; there are {', '.join(POLICIES)}")
    choice = Choice(
        policies=tuple(policy or POLICIES),
        span=Span(_instant(start, float("-inf")), _instant(end, float("inf"))),
        workspaces=tuple(workspace or ()),
        prices=Prices(read=read_price, minimum_tokens=minimum),
    )
    try:
        if verify:
            _verify(traces)
        else:
            _print(_played(traces, choice, chart), as_json=as_json, as_csv=as_csv)
    except TraceError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _played(traces: Sequence[Path], choice: Choice, drawing: Path | None) -> list[Report]:
    from gateway.replay.chart import chart
    from gateway.replay.play import play, together
    from gateway.replay.trace import TraceFile

    reports = []
    for group in together([TraceFile(path) for path in traces]):
        with _progress(group) as told:
            reports.append(play(group, choice, told))
    if drawing is not None:
        drawing.write_text(chart(reports))
    return reports


def _verify(traces: Sequence[Path]) -> None:
    from gateway.replay.trace import TraceFile
    from gateway.replay.verify import verify

    verdict = verify([TraceFile(path) for path in traces])
    typer.echo(
        f"{verdict.compared:,} decisions compared, {verdict.different:,} differ; "
        f"{verdict.followed:,} requests were not the policy's to decide."
    )
    first = verdict.first
    if first is None:
        return
    typer.echo(f"The first: call {first.call} at {_date(first.at)}")
    typer.echo(f"  recorded {_marks(first.recorded)}")
    typer.echo(f"  planned  {_marks(first.planned)}")
    if first.after_warm_up:
        typer.echo("  The gateway had sent warm-ups by then, which are not retraced.")
    raise typer.Exit(1)


def _marks(marks: Sequence[tuple[int, bool]]) -> str:
    return ", ".join(f"block {block} ({'1h' if hour else '5m'})" for block, hour in marks) or "none"


def _instant(text: str | None, otherwise: float) -> float:
    if text is None:
        return otherwise
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"neither a time such as 2026-11-20T08:00 nor seconds: {text}") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


@contextmanager
def _progress(files: Sequence[TraceFile]) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total = sum(file.path.stat().st_size for file in files)
        bar = progress.add_task("replaying", total=total)
        yield lambda count: progress.update(bar, completed=count)


def _print(reports: Sequence[Report], *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        json.dump([report.as_json() for report in reports], sys.stdout, indent=2)
        sys.stdout.write("\n")
    elif as_csv:
        _print_csv(reports)
    else:
        for report in reports:
            _print_table(report)


def _print_csv(reports: Sequence[Report]) -> None:
    from gateway.replay.report import row_values

    rows = [
        {"trace": report.title, "unit": report.as_json()["unit"], **row_values(row)}
        for report in reports
        for row in report.rows
    ]
    if rows:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _print_table(report: Report) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from gateway.replay.report import show_cost

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("cost", "to none", "x bound", "read", "written", "wasted", "held", "longest", "warm-ups"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        "bound", "", show_cost(report.bound, report.in_dollars), "", "1.000", *[""] * 6, style="dim"
    )
    full = max([row.cost for row in report.rows] + [report.bound, 1e-12])
    for row in report.rows:
        warm = f"{row.warm_ups:,} {show_cost(row.warm_cost, report.in_dollars)}" if row.warm_ups else "-"
        table.add_row(
            row.name + (" *" if row.best_fixed else ""),
            _bar(row.cost / full),
            show_cost(row.cost, report.in_dollars),
            "" if row.name == "none" else f"{-row.saved:+.1%}",
            "-" if row.of_bound is None else f"{row.of_bound:.3f}",
            f"{row.read_share:.1%}",
            _tokens(row.written_tokens),
            _tokens(row.wasted_tokens),
            f"{row.mean_hold_seconds * 1000:,.0f} ms" if row.held else "-",
            f"{row.max_hold_seconds:.1f} s" if row.held else "-",
            warm,
            style="bold" if row.best_fixed or row.name == "learned" else None,
        )
    console = console_for(table)
    console.print(
        f"{report.title}: {report.requests:,} requests, {_tokens(report.prompt_tokens)} prompt tokens, "
        f"{report.seconds / 3600:,.1f} h",
        markup=False,
        highlight=False,
    )
    console.print(table)
    for line in (*report.advice, "", *_legend(report), *report.notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print()


def _legend(report: Report) -> list[str]:
    from gateway.replay.report import show_cost

    unit = (
        f"Costs are of prompts; output costs {show_cost(report.output_usd, True)} under any policy."
        if report.in_dollars
        else "Costs are in millions of uncached input tokens."
    )
    return [
        f"{unit} bound: what no policy can go below. *: the best fixed rule.",
        "read: share of the prompt tokens read. wasted: written, and expired before anything read them.",
        "held: added to a request, on average; longest: to one of them.",
    ]


def _bar(share: float, width: int = 16) -> str:
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _tokens(count: int) -> str:
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:,.0f}k" if count < 10_000_000 else f"{count / 1e6:,.0f}M"
