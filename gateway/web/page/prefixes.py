"""The screen about what is cached: prefixes by digest, how long they are, whose, how long warm, and what for.

A bounded list, as this replica knows it at that moment: its own calls and those it heard of. No text is known
here, nor anywhere. What is drawn is in `templates/prefixes.html`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from aiohttp import web

from gateway.core.planner.listing import ListedPrefix, Order
from gateway.core.warming_book import WarmedPrefix
from gateway.web.admin_api import AdminError
from gateway.web.page import showing
from gateway.web.page.rendering import Screen, render, zone_of
from gateway.web.page.tables import Cell, Column, Table, duration, money, number, share, text

MOST = 200
"""Prefixes that one view has at most."""
DIGITS = 12
"""Of a digest, what is shown; the CSV has more."""
_ORDERS = (
    (Order.VALUE.value, "Expected saving"),
    (Order.TOKENS.value, "Tokens"),
    (Order.READS.value, "Reads"),
    (Order.RECENT.value, "Last used"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """What is known of prefixes at one moment."""

    at: float
    """Epoch seconds."""
    listed: Sequence[ListedPrefix]
    """At most as many as were asked for."""
    known: int
    """How many there are to list."""
    remembered: int
    """How many the planner remembers by key alone."""
    warmed: Mapping[int, WarmedPrefix]
    """Those that were warmed, by compact key."""


ReadPrefixes = Callable[[int, Order], Prefixes | None]
"""So many of them in an order; None where the policy does not learn. On the event loop: some milliseconds."""


def prefixes_screens(read: ReadPrefixes) -> list[Screen]:
    """The screen."""

    async def show(request: web.Request) -> web.StreamResponse:
        try:
            order = Order(request.query.get("first", Order.VALUE))
        except ValueError:
            names = ", ".join(name for name, _ in _ORDERS)
            raise AdminError(400, f"`first` is one of {names}.") from None
        found = read(MOST, order)
        if found is None:
            return await render(request, "prefixes.html", shown=None, orders=_ORDERS, order=order.value)
        workspace = request.query.get("workspace", "")
        listed = [one for one in found.listed if workspace in ("", one.workspace)]
        shown = {
            "known": found.known,
            "remembered": found.remembered,
            "most": MOST,
            "warm": sum(one.warm_seconds > 0 for one in listed),
            "warm_tokens": sum(one.tokens for one in listed if one.warm_seconds > 0),
            # Of one that was never read the chance is what was believed of its kind beforehand, and no more.
            "value": sum(one.value_nanousd for one in listed if one.reads),
            "unread": sum(not one.reads for one in listed),
            "profit": sum(found.warmed[one.key].profit_nanousd for one in listed if one.key in found.warmed),
            "workspaces": [("", "All"), *sorted({(one.workspace, one.workspace) for one in found.listed})],
        }
        table = _table(found, listed, zone_of(request))
        return await render(
            request, "prefixes.html", tables=[table], shown=shown, orders=_ORDERS, order=order.value
        )

    return [Screen(path="/prefixes", title="Cache", respond=show)]


def _table(found: Prefixes, listed: Sequence[ListedPrefix], zone: ZoneInfo) -> Table:
    rows: list[Sequence[Cell | str | int]] = [_row(found, one, zone) for one in listed]
    return Table(
        caption="Prefixes",
        columns=[
            Column("digest", "Prefix", help="The beginning of its keyed digest, as gateway explain has it."),
            Column("workspace", "Workspace"),
            Column("model", "Model"),
            Column("tokens", "Tokens", number=True),
            Column("warm_until", f"Warm for ({zone.key})", help="As upstream is believed to have it."),
            Column("reads", "Reads", number=True, help="By calls that this replica knew of."),
            Column("last_used_seconds", "Used ago", number=True),
            Column("chance", "Expected again", number=True, help="From now until it expires."),
            Column("value_usd", "Worth", number=True, help="The chance, times what one read saves."),
            Column(
                "profit_usd",
                "Warming here",
                number=True,
                help="Profit on this replica: what reads saved only because it was kept warm, less its cost.",
            ),
        ],
        rows=rows,
        empty="No call has written a prefix since this replica started.",
        per_page=50,
    )


def _row(found: Prefixes, one: ListedPrefix, zone: ZoneInfo) -> Sequence[Cell | str | int]:
    warmed = found.warmed.get(one.key)
    until = found.at + one.warm_seconds
    is_warm = one.warm_seconds > 0
    for_so_long = showing.seconds(abs(one.warm_seconds))
    warm = Cell(
        text=for_so_long if is_warm else f"cold for {for_so_long}",
        value=one.warm_seconds,
        exported=showing.iso(until, zone),
        tone="good" if is_warm else "quiet",
        note=f"{'until' if is_warm else 'since'} {datetime.fromtimestamp(until, zone):%H:%M}, "
        f"TTL {'1h' if one.hour else '5m'}",
    )
    profit = money(None)
    if warmed is not None:
        note = f"{warmed.warm_ups} warm-ups"
        profit = money(warmed.profit_nanousd, tone="bad" if warmed.profit_nanousd < 0 else "good", note=note)
    return [
        Cell(text=one.digest[:DIGITS], value=one.digest, code=True),
        text(one.workspace),
        text(one.model),
        number(one.tokens),
        warm,
        number(
            one.reads,
            tone="" if one.reads else "quiet",
            note=f"{one.writes} writes" if one.writes != 1 else "1 write",
        ),
        duration(one.last_used_seconds),
        share(one.chance) if one.reads else replace(share(one.chance), tone="quiet", note="a guess"),
        money(one.value_nanousd if one.chance is not None else None, tone="" if one.reads else "quiet"),
        profit,
    ]
