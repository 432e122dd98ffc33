"""Budgets: how every limit stands, who is in trouble first; of each one what adjusts it, and the forms that
grant more or set another amount. What they do is `admin_adjustments.Changes`, as for the admin API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from gateway.core.claims import is_subject
from gateway.core.ledger import usd as exact_usd
from gateway.core.limits import Mode, Scope, Unit
from gateway.web.adjustment_bodies import GrantBody, OverrideBody, said_as
from gateway.web.admin_adjustments import Changes
from gateway.web.admin_api import AdminError
from gateway.web.admin_budgets import BudgetsAnswer
from gateway.web.budget_view import UNKNOWN, BudgetAnswer, Quantity
from gateway.web.page import tables
from gateway.web.page.guard import form_of, redirect
from gateway.web.page.rendering import PREFIX, Screen, render, visit_of, zone_of
from gateway.web.page.tables import Cell, Column, Table

FILTERS: Final = ("organisation", "team", "workspace", "key", "limit", "tag")
PERIODS: Final = {
    "second": "per second",
    "minute": "per minute",
    "hour": "per hour",
    "calendar_day": "per day",
    "calendar_week": "per week",
    "calendar_month": "per month",
    "open": "at a time",
}
DONE: Final = {
    "granted": "More was granted. It holds on this replica now, on the others within three seconds.",
    "set": "The amount was set. It holds on this replica now, on the others within three seconds.",
    "taken-back": "That was taken back. It holds on this replica now, on the others within three seconds.",
}
PLACE: Final = ("tag", "workspace")
"""What finds a limit of a tag, or of a subject of tokens, beside its id and subject."""
NOT_SAID: Final = ("form_token", *PLACE)
"""Fields of forms that are none of the change."""
_PATH: Final = f"{PREFIX}/budgets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What the screens know of budgets."""

    read: Callable[[Mapping[str, str]], Awaitable[BudgetsAnswer]]
    """How limits stand, of those that a query as of `GET /v1/budgets` asks for. Raises `AdminError`."""
    names: Callable[[], Mapping[str, Collection[str]]]
    """Members of `organisation`, `team` and `workspace`."""
    changes: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a limit's numbers come to."""

    share: float
    """Spent of what there is."""
    more: float
    """Set aside on top."""
    state: str
    tone: str
    rank: float
    """Who is in trouble most has the highest."""


def standing(budget: BudgetAnswer) -> Standing:
    """How much of it is gone, and whether that is trouble: what is refused, before what would be, before what
    is about to be."""
    if budget.rebuilding:
        return Standing(share=0.0, more=0.0, state="computed anew", tone="warn", rank=0.5)
    gone = budget.spent.value + budget.set_aside.value
    capacity = budget.left.value + gone
    share = budget.spent.value / capacity if capacity > 0 else 1.0
    more = budget.set_aside.value / capacity if capacity > 0 else 0.0
    refuses = budget.mode == Mode.ENFORCE
    crossed = [warned for warned in budget.warn_at if share >= warned]
    if budget.left.value <= 0:
        state, tone, rank = ("exhausted", "bad", 4) if refuses else ("would refuse", "warn", 3)
    elif crossed:
        state, tone, rank = f"over {max(crossed):.0%}", "warn", 2
    elif budget.runs_out_at is not None:
        state, tone, rank = "runs out", "warn", 1
    else:
        state, tone, rank = "in budget", "good", 0
    return Standing(share=share, more=more, state=state, tone=tone, rank=rank + min(share + more, 9.0) / 10)


def budgets_screens(budgets: Budgets) -> list[Screen]:
    """The list, each limit, and what its forms do."""

    async def show(request: web.Request) -> web.StreamResponse:
        return await _draw_all(request, budgets)

    async def one(request: web.Request) -> web.StreamResponse:
        return await _draw_one(request, budgets, request.query, "", {})

    def changing(what: str, change: Callable[[Mapping[str, str], str], Awaitable[object]]) -> Screen:
        async def respond(request: web.Request) -> web.StreamResponse:
            fields, session = form_of(request), visit_of(request).session
            said = {name: value.strip() for name, value in fields.items() if value.strip()}
            said = {**said, "by": session.subject or said.get("by", "")}
            said = {name: value for name, value in said.items() if name not in NOT_SAID}
            try:
                await change(said, session.by)
            except AdminError as error:
                if error.status == 409:  # sent again, it would be the same as before once more
                    fields = {name: value for name, value in fields.items() if name != "id"}
                return await _draw_one(request, budgets, fields, error.message, {"form": what}, error.status)
            where = {name: value for name in ("limit", "subject", *PLACE) if (value := fields.get(name, ""))}
            return redirect(f"{_PATH}/limit?{urlencode({**where, 'done': visit_of(request).seal(what)})}")

        return Screen(path=f"/budgets/{what}", respond=respond, method="POST")

    async def grant(said: Mapping[str, str], via: str) -> object:
        return await budgets.changes.grant(said_as(GrantBody, said), via=via)

    async def override(said: Mapping[str, str], via: str) -> object:
        return await budgets.changes.override(said_as(OverrideBody, said), via=via)

    return [
        Screen(path="/budgets", title="Budgets", respond=show),
        Screen(path="/budgets/limit", respond=one),
        changing("granted", grant),
        changing("set", override),
    ]


async def _draw_all(request: web.Request, budgets: Budgets) -> web.StreamResponse:
    query = request.query
    asked = {name: query.get(name, "") for name in FILTERS}
    too_many = ""
    try:
        answer = await budgets.read(asked)
    except AdminError as error:
        if error.status != 400:
            raise
        too_many, answer = error.message, BudgetsAnswer(at="", budgets=[], next_skip=None, freezes=[])
    stands = [(budget, standing(budget)) for budget in answer.budgets]
    only_trouble = query.get("show", "") == "trouble"
    shown = [each for each in stands if each[1].rank >= 1] if only_trouble else stands
    return await render(
        request,
        "budgets.html",
        status=400 if too_many else 200,
        error=too_many,
        tables=[_table(shown, asked, zone_of(request))],
        asked=asked,
        names=budgets.names(),
        show=query.get("show", ""),
        freezes=answer.freezes,
        exhausted=sum(each.rank >= 3 for _, each in stands),
        near=sum(1 <= each.rank < 3 for _, each in stands),
        fine=sum(each.rank < 1 and not budget.rebuilding for budget, each in stands),
        rebuilding=any(budget.rebuilding for budget, _ in stands),
    )


async def _draw_one(
    request: web.Request,
    budgets: Budgets,
    query: Mapping[str, str],
    error: str,
    typed: Mapping[str, str],
    status: int = 200,
) -> web.StreamResponse:
    """One limit of one subject. `typed` says which form was sent, where it has an error."""
    limit, subject = query.get("limit", ""), query.get("subject", "")
    place = {name: query.get(name, "") for name in PLACE}
    found = await _find(budgets, limit, subject, place)
    zone = zone_of(request)
    return await render(
        request,
        "budget.html",
        status=status,
        budget=found,
        place=place,
        stands=standing(found),
        period=PERIODS.get(found.period, found.period),
        resets_at=moment(found.resets_at),
        runs_out_at=moment(found.runs_out_at),
        error=error,
        form=typed.get("form", ""),
        typed=query if error else {},
        done=DONE.get(visit_of(request).unseal(query.get("done", "")), ""),
        tables=[adjustments_table(found, zone, visit_of(request).may_edit)],
        may_freeze=found.scope in ("organisation", "team", "workspace", "key") and bool(found.subject),
    )


async def _find(budgets: Budgets, limit: str, subject: str, place: Mapping[str, str]) -> BudgetAnswer:
    """Raises `AdminError` where there is no such one. Limits of keys and tags are only listed where one is
    named, so it is asked for in several ways."""
    asked: list[dict[str, str]] = [{"limit": limit, "tag": place["tag"]}]
    if subject:
        asked = [{"limit": limit, "key": subject, "workspace": place["workspace"]}, *asked]
    for query in asked:
        try:
            answer = await budgets.read(query)
        except AdminError as error:
            if error.status not in (400, 404):
                raise
            continue
        for budget in answer.budgets:
            if (budget.limit, budget.subject) == (limit, subject):
                return budget
    raise AdminError(404, "There is no such limit, or it does not bind this subject.")


def _table(
    budgets: Collection[tuple[BudgetAnswer, Standing]], asked: Mapping[str, str], zone: ZoneInfo
) -> Table:
    return Table(
        caption="Limits",
        columns=(
            Column("limit", "Limit"),
            Column("subject", "Whose"),
            Column("state", "State", help="What is refused first, then what is about to be."),
            Column("used", "Used", help="Spent; lighter: set aside for requests that are under way."),
            Column("spent", "Spent", number=True),
            Column("set_aside", "Set aside", number=True, shown=False),
            Column("amount", "Amount", number=True),
            Column("left", "Left", number=True),
            Column("resets", "Resets", number=True),
            Column("mode", "Mode", shown=False),
            Column("configured", "Configured", number=True, shown=False),
            Column("unit", "Unit", shown=False),
            Column("period", "Period", shown=False),
        ),
        rows=[_row(budget, stands, asked, zone) for budget, stands in budgets],
        sort="-state",
        empty="No limit is like that.",
    )


def _row(
    budget: BudgetAnswer, stands: Standing, asked: Mapping[str, str], zone: ZoneInfo
) -> list[Cell | str | int]:
    place = {"tag": asked["tag"]} if budget.scope == Scope.TAG else {}
    if is_subject(budget.subject) and asked["workspace"]:
        place = {"workspace": asked["workspace"]}
    where = urlencode({"limit": budget.limit, "subject": budget.subject, **place})
    changed = budget.amount.value != budget.configured.value
    period = PERIODS.get(budget.period, budget.period)
    runs_out = moment(budget.runs_out_at)
    out = tables.instant(runs_out, zone).text if runs_out is not None and stands.state == "runs out" else ""
    state = Cell(text=stands.state, value=stands.rank, exported=stands.state, tone=stands.tone, badge=True)
    return [
        tables.link(budget.limit, f"{_PATH}/limit?{where}", note=budget.comment),
        Cell(text=budget.subject or "all of them", value=budget.subject, note=budget.scope),
        replace(state, note=out or ("" if budget.mode == Mode.ENFORCE else budget.mode)),
        Cell(
            text=UNKNOWN if budget.rebuilding else f"{stands.share:.0%}",
            value=stands.share,
            exported="" if budget.rebuilding else f"{stands.share:.6f}",
            tone=stands.tone,
            share=stands.share,
            more=stands.more,
        ),
        _quantity(
            budget.spent, budget, f"{budget.set_aside.text} set aside" if budget.set_aside.value else ""
        ),
        _quantity(budget.set_aside, budget),
        _quantity(
            budget.amount, budget, f"{period}; configured {budget.configured.text}" if changed else period
        ),
        _quantity(budget.left, budget),
        tables.instant(moment(budget.resets_at), zone),
        budget.mode,
        _quantity(budget.configured, budget),
        "usd" if budget.unit == Unit.NANOUSD else budget.unit,
        budget.period,
    ]


def _quantity(amount: Quantity, budget: BudgetAnswer, note: str = "") -> Cell:
    """In the CSV exactly: dollars with nine decimals, else a whole number; nothing where nobody knows."""
    exported = exact_usd(amount.value) if budget.unit == Unit.NANOUSD else str(amount.value)
    if amount.text == UNKNOWN:
        exported = ""
    return Cell(text=amount.text, value=amount.value, exported=exported, note=note)


def adjustments_table(budget: BudgetAnswer, zone: ZoneInfo, may_edit: bool) -> Table:
    """What adjusts one limit now."""
    columns = [
        Column("kind", "Change"),
        Column("amount", "Amount", number=True),
        Column("ends", "Ends", number=True),
        Column("by", "By"),
        Column("reason", "Reason"),
    ]
    if may_edit:
        columns.append(Column("action", "", sortable=False))
    rows: list[list[Cell | str | int]] = []
    for made in budget.adjustments:
        row: list[Cell | str | int] = [
            Cell(text=made.kind, note=made.id),
            Cell(text=made.amount.text if made.amount else "", value=made.amount.value if made.amount else 0),
            tables.instant(moment(made.ends_at), zone),
            Cell(text=made.by, note=f"{tables.instant(moment(made.at), zone).text}, {made.via}"),
            made.reason,
        ]
        if may_edit:
            row.append(Cell(text="Take back", href=f"{PREFIX}/changes/take-back?id={made.id}"))
        rows.append(row)
    return Table(
        caption="Changes in force",
        columns=columns,
        rows=rows,
        empty="It is as limits.yaml has it.",
        exported=False,
    )


def moment(text: str | None) -> float | None:
    """An instant of an answer of the admin API, in epoch seconds."""
    return None if text is None else datetime.fromisoformat(text).timestamp()
