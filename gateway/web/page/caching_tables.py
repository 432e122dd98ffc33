"""The tables of the screen about caching; each can be had as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from gateway.core.ledger import (
    SAVED_MEANS,
    Dimension,
)
from gateway.web.admin_warming import WarmingStatus
from gateway.web.page.caching_found import Found, caching_href, cause_words, losses_stacked, step_word
from gateway.web.page.tables import Cell, Column, Table, instant, link, money, number, share, text


def totals_table(found: Found) -> Table:
    by = found.asked.by
    rows: list[Sequence[Cell | str | int]] = []
    for total in found.totals:
        name = total.group[0]
        shown = found.key_names.get(name, name)
        rows.append(
            [
                link(shown, caching_href(found, **{by: name}), note=name if shown != name else ""),
                money(total.plain_nanousd),
                money(total.paid_nanousd),
                money(total.saved_nanousd, tone="bad" if total.saved_nanousd < 0 else ""),
                share(total.saved_ratio),
                share(total.cache_read_ratio),
                money(total.miss_nanousd),
                money(total.held_saved_nanousd),
            ]
        )
    return Table(
        caption=f"Prompts by {by}",
        columns=[
            Column(by, by.capitalize()),
            Column("input_plain_usd", "Plain", number=True, help="All prompt tokens as uncached input."),
            Column("input_paid_usd", "Paid", number=True, help="The prompts as they were billed."),
            Column("saved_usd", "Saved", number=True, help=SAVED_MEANS),
            Column("saved_ratio", "Saved, share", number=True),
            Column("cache_read_ratio", "Read", number=True, help="Share of tokens read from caches."),
            Column("lost_by_misses_usd", "Lost by misses", number=True, help="Within what was paid."),
            Column("saved_by_holding_usd", "By holding", number=True, help="Not spent as calls were held."),
        ],
        rows=rows,
        empty="There were no calls in this period.",
    )


def losses_table(found: Found, zone: ZoneInfo) -> Table:
    rows: list[Sequence[Cell | str | int]] = [
        [
            *(_loss_name(found, one, value) for one, value in zip(found.loss_by, loss.group, strict=True)),
            link(cause_words(loss.cause), caching_href(found, workspace=loss.group[0], cause=loss.cause)),
            money(loss.nanousd),
            number(loss.calls),
            number(loss.tokens),
            instant(loss.first_ms / 1000, zone),
            instant(loss.last_ms / 1000, zone),
            text(loss.detail, tone="quiet"),
        ]
        for loss in found.losses
    ]
    return Table(
        name="misses",
        caption="Misses by " + ", ".join(one.value for one in found.loss_by) + " and cause",
        columns=[
            *(Column(one.value, one.value.capitalize()) for one in found.loss_by),
            Column("cause", "Cause"),
            Column("lost_usd", "Lost", number=True, help="What tokens that were known cost above a read."),
            Column("calls", "Calls", number=True),
            Column("tokens", "Tokens", number=True),
            Column("first_at", f"First ({zone.key})"),
            Column("last_at", f"Last ({zone.key})"),
            Column("detail", "The dearest one", sortable=False),
        ],
        rows=rows,
        empty="Nothing that was known was missed in this period.",
    )


def _loss_name(found: Found, by: Dimension, value: str) -> Cell:
    if by is Dimension.WORKSPACE:
        return link(value, caching_href(found, workspace=value))
    return text(found.key_names.get(value, value))


def steps_table(found: Found) -> Table:
    stacks = losses_stacked(found)
    rows: list[Sequence[Cell | str | int]] = [
        [
            text(found.asked.span.step_name(at)),
            share(total.cache_read_ratio),
            money(total.saved_nanousd),
            money(total.miss_nanousd),
            *(money(values[n]) for _, values in stacks),
        ]
        for n, (at, total) in enumerate(found.steps)
    ]
    return Table(
        name="days",
        caption=f"Values of the charts, by {step_word(found)}",
        columns=[
            Column(step_word(found), f"{step_word(found).capitalize()} (UTC)"),
            Column("cache_read_ratio", "Read", number=True),
            Column("saved_usd", "Saved", number=True),
            Column("lost_by_misses_usd", "Lost by misses", number=True),
            *(Column(name.replace(" ", "_"), name.capitalize(), number=True) for name, _ in stacks),
        ],
        rows=rows,
    )


def warming_table(status: WarmingStatus) -> Table:
    rows: list[Sequence[Cell | str | int]] = [
        [
            text(cause.value.replace("_", " ")),
            number(total.warm_ups),
            number(total.reads),
            number(total.bridged),
            money(total.cost_nanousd),
            money(total.saved_nanousd),
            money(total.profit_nanousd, tone="bad" if total.profit_nanousd < 0 else "good"),
        ]
        for cause, total in status.totals.items()
        if total.warm_ups
    ]
    return Table(
        name="warming",
        caption="Profit and loss of warming on this replica, since its start",
        columns=[
            Column("cause", "Warmed because"),
            Column("warm_ups", "Warm-ups", number=True),
            Column("reads", "Reads", number=True, help="By real calls, while it was warm."),
            Column("bridged", "Bridged", number=True, help="Reads that only a warm-up made possible."),
            Column("cost_usd", "Cost", number=True),
            Column("saved_usd", "Saved", number=True, help="By the bridged reads alone."),
            Column("profit_usd", "Profit", number=True),
        ],
        rows=rows,
        empty="This replica has warmed nothing since its start.",
    )
