"""What `gateway prewarm` prints for people: progress while prompts are warmed, a table at the end, and how
warming stands. No text of a prompt is among it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from gateway.cli.printing import console_for, plain

JsonObject = dict[str, Any]

_STYLES = {"warmed": "green", "already_warm": "green"}


class Progress:
    """A bar where somebody watches; otherwise a line for each prompt, as logs want it."""

    def __init__(self, prompts: int, *, quiet: bool) -> None:
        self._prompts = prompts
        self._quiet = quiet
        self._done = 0
        self._bar: Bar | None = None
        if not quiet and sys.stderr.isatty():
            columns = (TextColumn("warming"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=prompts)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def done(self, result: JsonObject) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif not self._quiet:
            print(
                f"{self._done}/{self._prompts} line {result['line']}: {_words(result['state'])}", flush=True
            )


def print_results(results: Sequence[JsonObject]) -> None:
    """A row for each prompt, and a sentence for each that is not warm."""
    total = sum(result["cost"]["nanousd"] for result in results)
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), show_footer=len(results) > 1)
    table.add_column("line", "all", justify="right")
    table.add_column("model", overflow="fold")
    for heading, key in (("written", "written_tokens"), ("read", "read_tokens")):
        table.add_column(heading, f"{sum(result[key] for result in results):,}", justify="right")
    table.add_column("cost $", _dollars(total), justify="right")
    table.add_column("outcome", f"{sum(result['warm'] for result in results)} of {len(results)} warm")
    for result in results:
        table.add_row(
            str(result["line"]),
            escape(plain(result["model"])),
            f"{result['written_tokens']:,}",
            f"{result['read_tokens']:,}",
            _dollars(result["cost"]["nanousd"]),
            _words(result["state"]),
            style=_STYLES.get(result["state"], "red"),
        )
    console_for(table).print(table)
    for result in results:
        if not result["warm"]:
            print(f"line {result['line']}: {result['reason']}")


def print_status(status: JsonObject) -> None:
    """What may be spent, which schedules there are, and what each warmed prefix has brought."""
    budgets = _table(("workspace",), ("a day $", "used $", "left $"), ("full again",))
    for each in status["workspaces"]:
        amounts = (_dollars(each[key]["nanousd"]) for key in ("budget", "used", "left"))
        budgets.add_row(each["workspace"], *amounts, each["resets_at"] or "")
    _print("Budgets for warming", budgets)
    schedules = _table(("schedule", "workspace", "cron", "time zone", "next"), (), ("last",))
    for each in status["schedules"]:
        last = each["last"]
        said = "not yet" if last is None else f"{last['due_at']} {_words(last['state'])}: {last['reason']}"
        place = (each["workspace"], each["cron"], each["timezone"])
        schedules.add_row(each["name"], *place, each["next_at"] or "never", escape(said))
    _print("Schedules", schedules)
    _print_profits(status)


_PROFIT = ("warm-ups", "reads", "bridged", "cost $", "saved $", "profit $")


def _print_profits(status: JsonObject) -> None:
    prefixes = _table(("name", "workspace", "model", "prefix"), ("tokens", *_PROFIT), ("",))
    for each in status["prefixes"]:
        place = (each["name"], each["workspace"], escape(plain(each["model"])), each["prefix"][:8])
        note = "nobody reads it" if each["unread"] else ""
        prefixes.add_row(*place, f"{each['tokens']:,}", *_profit(each), note)
    _print("Warmed prefixes, as this replica has seen them", prefixes)
    totals = _table(("cause",), _PROFIT, ())
    for each in status["totals"]:
        totals.add_row(_words(each["cause"]), *_profit(each))
    _print("In all", totals)
    print("bridged: reads that only a warm-up made possible; they are what it has saved.")


def _table(words: Sequence[str], figures: Sequence[str], remarks: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in remarks:
        table.add_column(heading, min_width=20 if heading else 0)
    return table


def _profit(each: JsonObject) -> tuple[str, ...]:
    counts = (f"{each[key]:,}" for key in ("warm_ups", "reads", "bridged"))
    return (*counts, *(_dollars(each[key]["nanousd"]) for key in ("cost", "saved", "profit")))


def _print(title: str, table: Table) -> None:
    if table.row_count:
        console = console_for(table)
        console.print(f"[bold]{title}[/]")
        console.print(table)
    else:
        print(f"{title}: none.")


def _words(state: str) -> str:
    return state.replace("_", " ")


def _dollars(nanousd: int) -> str:
    """For people: six decimals, since a warm-up may cost less than a cent."""
    sign = "-" if nanousd < 0 else ""
    units = (abs(nanousd) + 500) // 1_000
    return f"{sign}{units // 1_000_000:,}.{units % 1_000_000:06d}"
