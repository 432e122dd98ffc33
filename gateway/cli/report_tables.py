"""The tables of `gateway report`, for people: figures rounded, a sentence below on what needs one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.printing import console_for, plain
from gateway.core.ledger import (
    SAVED_MEANS,
    By,
    Loss,
    Total,
    add_up,
    dollars,
    holdout_sentences,
    loss_sentence,
)
from gateway.core.variance import PARTS, Variance, add_up_variances

MOST_SENTENCES = 10
"""Below a table of losses."""


def print_totals(by: Sequence[By], totals: Sequence[Total], by_cohort: Sequence[Total]) -> None:
    """`by_cohort`: the same entries by workspace and cohort, for the comparison with what was held out."""
    overall = add_up(replace(total, group=()) for total in totals)
    if not overall:
        typer.echo("No entries.")
        return
    table = _table(by, [total.group for total in totals])
    for heading, figure in zip(_HEADINGS, _figures(overall[0]), strict=True):
        table.add_column(heading, figure, justify="right", no_wrap=True)
    for total in totals:
        table.add_row(*_cells(total.group), *_figures(total))
    comparisons = [f"{plain(name)}: {sentence}" for name, sentence in holdout_sentences(by_cohort)]
    _print(table, [*_notes(overall[0]), *comparisons])


_HEADINGS = ("calls", "prompt", "read", "output", "cost $", "input plain $", "paid $", "saved $", "saved")


def _figures(total: Total) -> tuple[str, ...]:
    return (
        f"{total.requests:,}",
        _tokens(total.prompt_tokens),
        _percent(total.cache_read_ratio),
        _tokens(total.output_tokens),
        dollars(total.cost_nanousd),
        dollars(total.plain_nanousd),
        dollars(total.paid_nanousd),
        dollars(total.saved_nanousd),
        _percent(total.saved_ratio),
    )


def _notes(overall: Total) -> Iterator[str]:
    yield "prompt, output: tokens. read: share of the prompt tokens read from a cache."
    yield (
        "input plain: what the input would have cost without caching; paid: what it did cost. "
        "Days and months in UTC."
    )
    yield SAVED_MEANS
    if overall.miss_nanousd:
        yield f"${dollars(overall.miss_nanousd)} of it was lost by misses: --by cause says by which."
    if overall.shadow_paid_nanousd:
        yield (
            f"In shadow mode, input that cost ${dollars(overall.shadow_paid_nanousd)} would have cost "
            f"${dollars(overall.shadow_nanousd)} as decided."
        )
    if overall.held_saved_nanousd:
        yield f"Holding calls saved ${dollars(overall.held_saved_nanousd)}."
    if overall.guessed_nanousd:
        yield f"${dollars(overall.guessed_nanousd)} of the cost rests on usage not reported in full."
    if overall.fallback_nanousd:
        yield f"${dollars(overall.fallback_nanousd)} is at the fallback price: no price was known."


def print_losses(by: Sequence[By], losses: Sequence[Loss]) -> None:
    """What misses cost, dearest first, and in a sentence each."""
    if not losses:
        typer.echo("No misses.")
        return
    table = _table(by, [loss.group for loss in losses])
    table.add_column("cause", "")
    sums = [sum(column) for column in zip(*((x.calls, x.tokens, x.nanousd) for x in losses), strict=True)]
    for heading, figure in zip(("calls", "tokens", "lost $"), _loss_figures(*sums), strict=True):
        table.add_column(heading, figure, justify="right", no_wrap=True)
    for loss in losses:
        figures = _loss_figures(loss.calls, loss.tokens, loss.nanousd)
        table.add_row(*_cells(loss.group), escape(plain(loss.cause)), *figures)
    notes = [
        "lost: what tokens that were known, and could not be read, cost above a read. Times in UTC.",
        *(plain(loss_sentence(loss)) for loss in losses[:MOST_SENTENCES] if loss.nanousd),
    ]
    _print(table, notes)


def _loss_figures(calls: int, tokens: int, nanousd: int) -> tuple[str, str, str]:
    return f"{calls:,}", _tokens(tokens), dollars(nanousd)


def print_variances(by: By, found: Sequence[Variance], before: str, after: str) -> None:
    """What each part of the difference is, and in a sentence for each."""
    if not found:
        typer.echo("No entries.")
        return
    table = _table([by], [(one.name,) for one in found])
    whole = _variance_figures(add_up_variances(found, "all"))
    headings = (f"{before} $", f"{after} $", "difference $", *(f"{part} $" for part in PARTS))
    for heading, figure in zip(headings, whole, strict=True):
        table.add_column(heading, figure, justify="right", no_wrap=True)
    for one in found:
        table.add_row(*_cells((one.name,)), *_variance_figures(one))
    notes = [
        "volume: more or fewer tokens. mix: other models, or more or less output beside the prompt. "
        "cache: more or less of the prompts read from caches or written to them. price: other prices. "
        "They add up to the difference.",
        *(plain(one.sentence) for one in found[:MOST_SENTENCES]),
    ]
    _print(table, notes)


def _variance_figures(one: Variance) -> tuple[str, ...]:
    return tuple(
        dollars(amount)
        for amount in (one.before_nanousd, one.after_nanousd, one.difference_nanousd, *one.parts)
    )


def _table(by: Sequence[By], groups: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_footer=len(groups) > 1, footer_style="bold")
    for index, one in enumerate(by):
        longest = max(len(plain(group[index])) for group in groups)
        table.add_column(one.value, "all" if index == 0 else "", overflow="fold", min_width=min(longest, 8))
    return table


def _print(table: Table, notes: Sequence[str]) -> None:
    console = console_for(table)
    console.print(table)
    console.print("\n".join(notes), markup=False, highlight=False)


def _cells(group: Sequence[str]) -> Iterator[str]:
    return (escape(plain(value)) for value in group)


def _tokens(count: int) -> str:
    """Three or four digits and a unit."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1_000:,.0f} k" if count < 10_000_000 else f"{count / 1_000_000:,.0f} M"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"
