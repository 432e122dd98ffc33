"""How `gateway top` looks: a few lines and three tables, as many rows as the terminal has. Names come from
clients: nothing in them may act on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.top_figures import Figures, Limit
from gateway.web.page.showing import percent, seconds, short_count, usd

SCARCE: Final = 0.9
"""A limit of which more is used is shown in another colour."""
HEAD_LINES: Final = 12
"""That are no rows of calls: what is said above them, headings and blank lines."""
LIMITS: Final = 4
PLAIN_ROWS: Final = 10
"""Of each table, where there is no terminal whose height could say."""


def drawn(figures: Figures | None, *, url: str, trouble: str, rows: int) -> RenderableType:
    """The whole of it, in about so many lines. `trouble`: why these are not the figures of now."""
    if figures is None:
        return Text(trouble or f"Asking {url} …", style="yellow" if trouble else "")
    limits = figures.limits[:LIMITS]
    left = max(2, rows - HEAD_LINES - len(limits) - len(figures.missing))
    slowest = figures.slowest[: max(1, left // 2)]
    newest = figures.newest[: max(1, left - len(slowest))]
    said = [trouble, *figures.missing] if trouble else figures.missing
    several = len(figures.replicas) > 1
    parts: list[RenderableType] = [_head(figures, url), Text("\n", style="yellow").join(map(_clean, said))]
    if limits:
        parts.append(_limits(limits))
    parts.append(_calls("Open, the longest first", slowest, opened=True, several=several))
    parts.append(_calls("Ended, the last first", newest, opened=False, several=several))
    return Group(*parts)


def height_of(console: Console) -> int:
    """In lines; where there is no terminal, as many as `PLAIN_ROWS` of each table take."""
    return console.height if console.is_terminal else HEAD_LINES + LIMITS + 2 * PLAIN_ROWS


def _head(figures: Figures, url: str) -> Text:
    last = figures.last_minute
    minute = "a minute" if last.seconds >= 60 else f"a minute (of {last.seconds:.0f} s)"
    text = Text(f"gateway top   {url}   {figures.at}\n", style="bold")
    text.append(
        f"open {figures.open} ({figures.streaming} stream)   set aside {usd(figures.set_aside_nanousd)}"
        f"{f'   on {len(figures.replicas)} replicas' if len(figures.replicas) > 1 else ''}\n",
        style="not bold",
    )
    text.append(
        f"{minute}: {last.per_minute(last.requests):,.0f} requests, "
        f"{last.failed} failed   tokens in {short_count(round(last.per_minute(last.prompt_tokens)))}, "
        f"out {short_count(round(last.per_minute(last.output_tokens)))}   "
        f"{usd(round(last.per_minute(last.cost_nanousd)))}   read from cache {percent(last.read_share)}",
        style="not bold",
    )
    return text


def _limits(limits: Sequence[Limit]) -> Table:
    table = _table(("limit", "whose"), ("used", "left", "of"))
    for limit in limits:
        table.add_row(
            _clean(limit.id),
            _clean(limit.whose),
            percent(limit.used_share),
            limit.left,
            limit.amount,
            style="red" if limit.used_share >= SCARCE else "",
        )
    return table


def _calls(title: str, calls: Sequence[Mapping[str, Any]], *, opened: bool, several: bool) -> Table:
    texts = (title, "workspace", "model", "state", *(["replica"] if several else []))
    table = _table(texts, ("prompt", "read", "output", "cost"))
    for call in calls:
        told = f" {call['status']}" if call["status"] >= 400 else ""
        output = f"{short_count(call['response_bytes'])} B" if opened else short_count(call["output_tokens"])
        cost = usd(call["set_aside_nanousd"] if opened else call["cost_nanousd"])
        table.add_row(
            seconds(call["duration_seconds"]),
            _clean(call["workspace"]),
            _clean(call["model"]),
            _clean(str(call["state"]).replace("_", " ") + told),
            *([_clean(call["replica"])] if several else []),
            short_count(call["prompt_tokens"]),
            percent(call["read_tokens"] / call["prompt_tokens"]) if call["prompt_tokens"] else "–",
            output,
            f"≤ {cost}" if opened else cost,
            style="" if call["state"] == "answered" or opened else "yellow",
        )
    return table


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in texts:
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _clean(text: str) -> Text:
    """What others wrote, as text and nothing else."""
    return Text("".join(each if each.isprintable() else "?" for each in text))
