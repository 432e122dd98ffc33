"""Live requests: what is open, and what ended in the last minutes, on all replicas that can be asked. It
refreshes itself by asking for the part that changes, and can be told not to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from gateway.core.live import Live, LiveCall
from gateway.web.admin_live import FILTERS, MAX_SHOWN, ReadLive, chosen
from gateway.web.page import showing, tables
from gateway.web.page.rendering import PREFIX, Screen, render, zone_of
from gateway.web.page.tables import Cell, Column, Table

SHOWN: Final = 25
"""Rows of one table on a page: it is redrawn all the time."""
ID_DIGITS: Final = 10
"""Of a call's id, what is shown; the whole of it is its title, and in the CSV."""
ALL_READ: Final = 0.99
"""Of a prompt: what is missing then is the question that was new."""
_TONES: Final = {
    "answered": "good",
    "refused": "warn",
    "failed": "bad",
    "cut_by_client": "warn",
    "cut_by_upstream": "bad",
    "cut_by_gateway": "warn",
}
_COLUMNS: Final = (
    Column("received", "Received"),
    Column("workspace", "Workspace and key"),
    Column("model", "Model"),
    Column("state", "State"),
    Column("prompt_tokens", "Prompt", number=True, help="Tokens; expected ones while the call is open."),
    Column("output_tokens", "Output", number=True, help="Tokens; bytes sent so far while the call is open."),
    Column("cost", "Cost", number=True, help="While the call is open: what is set aside for it."),
    Column(
        "cache",
        "Cache",
        wide=True,
        help="What is read, and why breakpoints are where they are.",
    ),
    Column("duration", "Duration", number=True),
)
_REPLICA: Final = Column("replica", "Replica")


def live_screens(read: ReadLive, workspaces: Callable[[], Collection[str]]) -> list[Screen]:
    """The page and the part of it that changes."""

    async def draw(request: web.Request, template: str) -> web.StreamResponse:
        live = await read()
        found = chosen(live.told.calls, {name: request.query.get(name, "") for name in FILTERS})
        return await render(
            request,
            template,
            tables=_tables(found, live, zone_of(request)),
            path=f"{PREFIX}/live",
            live=live,
            missing=_missing(live),
            open_now=sum(call.open for call in found),
            set_aside=sum(call.set_aside_nanousd for call in found if call.open),
            ended=sum(not call.open for call in found),
            spent=sum(call.cost_nanousd or 0 for call in found if not call.open),
            read_share=_read_share(found),
            workspaces=sorted(workspaces()),
            workspace=request.query.get("workspace", ""),
            key=request.query.get("key", ""),
            limits=_limits_of(found, request.query.get("key", "")),
        )

    async def show(request: web.Request) -> web.StreamResponse:
        return await draw(request, "live.html")

    async def calls_only(request: web.Request) -> web.StreamResponse:
        return await draw(request, "live_calls.html")

    return [
        Screen(path="/live", title="Live", respond=show),
        Screen(path="/live/calls", respond=calls_only),
    ]


def _missing(live: Live) -> list[str]:
    """What is not shown, and why: sentences."""
    said = [f"{name} does not answer: its calls are missing here." for name in live.silent]
    if live.trouble:
        said.append(f"Other replicas are missing here. {live.trouble}")
    if live.told.left_out:
        said.append(
            f"{showing.count(live.told.left_out)} more calls are open on other replicas, each of which tells "
            "of its longest ones only; the figures are of those that are shown."
        )
    return said


def _limits_of(calls: Sequence[LiveCall], key: str) -> str:
    """Where the limits of a key stand, or of a subject of tokens, whose workspace its calls tell."""
    workspace = next((call.workspace for call in calls if key and call.key_id == key and call.workspace), "")
    if not key:
        return ""
    asked = {"workspace": workspace, "key": key} if workspace else {"key": key}
    return f"{PREFIX}/budgets?{urlencode(asked)}"


def _read_share(calls: Sequence[LiveCall]) -> float | None:
    """Of the prompts that were billed, what was read from a cache."""
    billed = [
        call for call in calls if not call.open and call.cost_nanousd is not None and call.prompt_tokens
    ]
    whole = sum(call.prompt_tokens or 0 for call in billed)
    return sum(call.read_tokens for call in billed) / whole if whole else None


def _tables(calls: Sequence[LiveCall], live: Live, zone: ZoneInfo) -> list[Table]:
    several = len(live.replicas) + len(live.silent) > 1
    where = "" if live.shared else " on this replica"

    def rows(shown: list[LiveCall]) -> list[list[Cell | str | int]]:
        return [_row(call, zone, several=several) for call in shown[:MAX_SHOWN]]

    columns = (*_COLUMNS, _REPLICA) if several else _COLUMNS
    return [
        Table(
            name="open",
            caption="Open now",
            columns=columns,
            rows=rows([call for call in calls if call.open]),
            empty=f"No request is open{where}.",
            per_page=SHOWN,
        ),
        Table(
            name="ended",
            caption="Ended in the last ten minutes",
            columns=columns,
            rows=rows([call for call in calls if not call.open]),
            empty=f"No request ended{where} in the last ten minutes.",
            per_page=SHOWN,
        ),
    ]


def _row(call: LiveCall, zone: ZoneInfo, *, several: bool) -> list[Cell | str | int]:
    output = tables.number(call.output_tokens)
    if call.open:
        output = Cell(text=f"{showing.count(call.response_bytes)} B", value=call.response_bytes, tone="quiet")
    cost = tables.money(call.cost_nanousd)
    if call.open:
        aside = showing.usd(call.set_aside_nanousd)
        cost = Cell(text=f"≤ {aside}", value=call.set_aside_nanousd, tone="quiet")
    received = tables.instant(call.received_at, zone, note=f"…{call.id[-ID_DIGITS:]}")
    kind = call.endpoint + (", streams" if call.streaming else "")
    href = f"{PREFIX}/live?{urlencode({'key': call.key_id})}" if call.key_id else ""
    return [
        replace(received, text=received.text[-len("00:00:00") :], title=call.id),
        Cell(text=call.workspace or showing.NOTHING, value=call.workspace, href=href, note=call.key_name),
        Cell(text=call.model or showing.NOTHING, value=call.model, note=kind),
        _state(call),
        tables.number(call.prompt_tokens),
        output,
        cost,
        _cache(call),
        tables.duration(call.duration_seconds),
        *([call.replica] if several else []),
    ]


def _state(call: LiveCall) -> Cell:
    tone = _TONES.get(call.state, "")
    if call.state == "answered" and call.status >= 400:
        tone = "warn"
    told = [str(call.status)] if call.status else []
    note = " ".join((*told, call.error_code or ""))
    return tables.badge(call.state.replace("_", " "), tone, note=note.strip())


def _cache(call: LiveCall) -> Cell:
    if call.cohort is None:
        return Cell(text=showing.NOTHING, value="", tone="quiet")
    read, whole, said = call.read_tokens, call.prompt_tokens, []
    if whole:
        said.append(f"{'expects to read' if call.open else 'read'} {showing.percent(read / whole)}")
    if call.write_tokens:
        said.append(f"{'writes' if call.open else 'wrote'} {showing.short_count(call.write_tokens)}")
    if call.miss and not (whole and read / whole > ALL_READ):
        said.append(f"missed: {call.miss.replace('_', ' ')}")
    text = ", ".join(said) or call.cohort
    # Why breakpoints were placed was said before the answer, which may have come otherwise.
    why = call.reason if call.open or not call.reason else f"As decided before: {call.reason}"
    value = read / whole if whole else 0.0
    return Cell(text=text, value=value, exported=text, note=why, title=why)
