"""The screen about caching: what it saved, what misses cost and why, what warming brought, what was measured.

Misses come as sentences with times and dollars, and each leads to who they cost it and where. What is read is
`caching_found.py`'s, its tables are `caching_tables.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from zoneinfo import ZoneInfo

from aiohttp import web
from markupsafe import Markup

from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.ledger import (
    SAVED_MEANS,
    Dimension,
    Loss,
    Total,
    add_up_losses,
    loss_sentence,
)
from gateway.web.admin_warming import WarmingStatus
from gateway.web.page import showing
from gateway.web.page.asking import (
    Books,
    as_of,
    command,
    periods,
    read_asked,
    unreadable,
)
from gateway.web.page.caching_found import (
    Found,
    caching_href,
    cause_words,
    losses_stacked,
    read_caching,
    step_word,
)
from gateway.web.page.caching_tables import losses_table, steps_table, totals_table, warming_table
from gateway.web.page.charts import Series, lines, stacked_bars
from gateway.web.page.rendering import Screen, render, zone_of
from gateway.web.page.spend_view import short_usd
from gateway.web.page.tables import Table

BY = ("workspace", "model", "key")
MOST_SENTENCES = 8
_UTC = ZoneInfo("UTC")

ReadWarming = Callable[[], Awaitable[WarmingStatus]]
"""How warming stands. May raise `StoreUnavailable`."""


def caching_screens(books: Books, warming: ReadWarming) -> list[Screen]:
    """The screen."""

    async def show(request: web.Request) -> web.StreamResponse:
        now = books.now()
        asked = read_asked(request, now, BY, "workspace")
        cause = request.query.get("cause", "")[:60]
        zone = zone_of(request)

        def work() -> tuple[list[Table], dict[str, object]]:
            found = read_caching(books, asked, cause)
            tables = [totals_table(found), losses_table(found, zone), steps_table(found)]
            return tables, _values(found, books, now)

        try:  # in a thread, charts and all
            tables, shown = await asyncio.to_thread(work)
        except ConfigError as error:
            raise unreadable(error) from None
        status, trouble = None, ""
        try:
            status = await warming()
        except StoreUnavailable as error:
            trouble = f"The budgets of warming cannot be read: {error.message}"
        tables += [warming_table(status)] if status else []
        shown["warming_trouble"] = trouble
        return await render(request, "caching.html", tables=tables, shown=shown)

    return [Screen(path="/caching", title="Caching", respond=show)]


def _values(found: Found, books: Books, now: float) -> dict[str, object]:
    asked = found.asked
    return {
        "alone": books.alone,
        "asked": asked,
        "span": asked.span,
        "who": ", ".join(asked.only.values()) or "All workspaces together",
        "books_as_of": as_of(found.state),
        "pruned": sorted(found.state.pruned_months),
        "trouble": found.state.trouble,
        "periods": periods(now),
        "by_choices": BY,
        "workspaces": [("", "All"), *((name, name) for name in found.workspaces)],
        "causes": [("", "All"), *((one, cause_words(one)) for one in _causes(found))],
        "cause": found.cause,
        "chips": _chips(found),
        "total": found.total,
        "saved_means": SAVED_MEANS,
        "sentences": _sentences(found),
        "ratio_chart": _ratio_chart(found),
        "lost_chart": _lost_chart(found),
        "warm_ups": _warm_ups_sentence(found),
        "holdouts": found.holdouts,
        "shadows": [_shadow_sentence(total) for total in found.shadows],
        "command": command(asked, by=(asked.by,)),
        "cause_command": command(asked, by=(Dimension.WORKSPACE, "cause")),
    }


def _causes(found: Found) -> list[str]:
    return sorted({loss.cause for loss in found.losses} | ({found.cause} if found.cause else set()))


def _chips(found: Found) -> list[tuple[str, str]]:
    chips = [
        (f"{one.value}: {found.key_names.get(value, value)}", caching_href(found, **{one.value: None}))
        for one, value in found.asked.only.items()
    ]
    if found.cause:
        chips.append((f"cause: {cause_words(found.cause)}", caching_href(found, cause=None)))
    return chips


def _sentences(found: Found) -> list[tuple[str, str, str]]:
    """What misses cost, dearest first: sentence, when it was seen last, and where to see more of it."""
    by_workspace = add_up_losses(_of_workspace(loss) for loss in found.losses)
    return [
        (
            loss_sentence(loss),
            showing.when(loss.last_ms / 1000, _UTC),
            caching_href(found, workspace=loss.group[0], cause=loss.cause),
        )
        for loss in by_workspace[:MOST_SENTENCES]
        if loss.nanousd
    ]


def _of_workspace(loss: Loss) -> Loss:
    return replace(loss, group=loss.group[:1])


def _ratio_chart(found: Found) -> Markup:
    span = found.asked.span
    words = f"Share of the prompt tokens that were read from caches, by {step_word(found)}"
    overall = found.total.cache_read_ratio
    return lines(
        id="ratio",
        title=f"{words}, {span.words}, UTC",
        description=f"{showing.percent(overall)} over the whole period. The table below has all values.",
        unit="read",
        points=[span.label(at) for at, _ in found.steps],
        series=[Series(name="read", values=[total.cache_read_ratio for _, total in found.steps])],
        show=showing.percent,
        top=1.0,
        height=200,
    )


def _lost_chart(found: Found) -> dict[str, object]:
    stacks, span = losses_stacked(found), found.asked.span
    return {
        "legend": [name for name, _ in stacks],
        "svg": stacked_bars(
            id="lost",
            title=f"What misses cost by {step_word(found)} and cause, {span.words}, UTC",
            description=f"{showing.usd(found.total.miss_nanousd)} in all. The table below has all values.",
            unit="US dollars",
            points=[span.label(at) for at, _ in found.lost],
            series=[Series(name=name, values=[float(one) for one in values]) for name, values in stacks],
            show=short_usd,
            height=220,
        ),
    }


def _warm_ups_sentence(found: Found) -> str:
    """What warming cost, by the books."""
    cost = sum(total.cost_nanousd for total in found.warm_ups)
    if not found.warm_ups:
        return "The books have no warm-up in this period."
    ranked = sorted(found.warm_ups, key=lambda total: -total.cost_nanousd)
    whose = ", ".join(f"{total.group[0]} {showing.usd(total.cost_nanousd)}" for total in ranked)
    count = sum(total.requests for total in found.warm_ups)
    return f"By the books {showing.count(count)} warm-ups cost {showing.usd(cost)} in this period: {whose}."


def _shadow_sentence(total: Total) -> str:
    saved = total.shadow_paid_nanousd - total.shadow_nanousd
    rest = "less" if saved >= 0 else "more"
    return (
        f"{total.group[0]}: in shadow mode, prompts that cost {showing.usd(total.shadow_paid_nanousd)} would "
        f"have cost {showing.usd(total.shadow_nanousd)} as decided: {showing.usd(abs(saved))} {rest}."
    )
