"""Changes: who is frozen and the form that freezes, taking back what was changed, and the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from gateway.core.adjustments import Author, Freeze, FreezeScope, LogEntry
from gateway.core.ledger import usd as exact_usd
from gateway.web.adjustment_bodies import Body, FreezeBody, said_as
from gateway.web.admin_adjustments import Changes
from gateway.web.admin_api import AdminError
from gateway.web.budget_view import AdjustmentAnswer, adjustment_answer, entry_answer
from gateway.web.page import tables
from gateway.web.page.budgets import moment
from gateway.web.page.guard import form_of, redirect
from gateway.web.page.rendering import PREFIX, Screen, render, visit_of, zone_of
from gateway.web.page.tables import Cell, Column, Table

ENTRIES: Final = 100
"""Of the audit trail on one page."""
DONE: Final = {
    "frozen": "Frozen. Calls are refused on this replica now, on the others within three seconds.",
    "taken-back": "Taken back. It holds on this replica now, on the others within three seconds.",
}
_PATH: Final = f"{PREFIX}/changes"


def changes_screens(
    changes: Changes,
    freezes: Callable[[], Collection[Freeze]],
    members: Callable[[FreezeScope], Collection[str]],
    stopped: Callable[[FreezeScope, str], tuple[int, int]],
) -> list[Screen]:
    """The audit trail, the freeze form, the questions whether to freeze and to take back, and what they do.
    `freezes` are those in force; `members` whom one could freeze; `stopped` how many workspaces and keys that
    would stop."""
    forms = _Forms(changes, freezes, members, stopped)
    return [
        Screen(path="/changes", title="Changes", respond=forms.show),
        Screen(path="/changes/freeze", respond=forms.freeze, method="POST"),
        Screen(path="/changes/take-back", respond=forms.ask),
        Screen(path="/changes/take-back", respond=forms.take_back, method="POST"),
    ]


class _Forms:
    def __init__(
        self,
        changes: Changes,
        freezes: Callable[[], Collection[Freeze]],
        members: Callable[[FreezeScope], Collection[str]],
        stopped: Callable[[FreezeScope, str], tuple[int, int]],
    ) -> None:
        self._changes = changes
        self._freezes = freezes
        self._members = members
        self._stopped = stopped

    async def _draw(
        self, request: web.Request, values: Mapping[str, str], error: str = "", status: int = 200
    ) -> web.StreamResponse:
        before = request.query.get("before", "")
        if before and (not before.isascii() or not before.isdigit() or len(before) > 15):
            raise AdminError(400, "?before= is a whole number.")
        entries = await self._changes.history(before=int(before) if before else None, at_most=ENTRIES)
        zone, may_edit = zone_of(request), visit_of(request).may_edit
        last = entries[-1].number if entries else 1
        return await render(
            request,
            "changes.html",
            status=status,
            path=_PATH,
            tables=[_frozen_table(self._freezes(), zone, may_edit), _trail_table(entries, zone)],
            older=f"{_PATH}?before={last}" if last > 1 else "",
            done=DONE.get(visit_of(request).unseal(request.query.get("done", "")), ""),
            error=error,
            typed=values,
            scopes=[scope.value for scope in FreezeScope],
            subjects={scope.value: sorted(self._members(scope)) for scope in FreezeScope},
        )

    async def show(self, request: web.Request) -> web.StreamResponse:
        return await self._draw(request, request.query)

    async def freeze(self, request: web.Request) -> web.StreamResponse:
        fields, session = form_of(request), visit_of(request).session
        said = {name: fields.get(name, "").strip() for name in ("scope", "subject", "reason", "id")}
        said["by"] = session.subject or fields.get("by", "").strip()
        try:
            body = said_as(FreezeBody, {name: value for name, value in said.items() if value})
            self._changes.check_freeze(body)
            if fields.get("sure") != "yes":
                workspaces, keys = self._stopped(body.scope, body.subject)
                return await render(request, "freeze.html", body=body, workspaces=workspaces, keys=keys)
            await self._changes.freeze(body, via=session.by)
        except AdminError as error:
            if error.status == 409:
                fields = {name: value for name, value in fields.items() if name != "id"}
            return await self._draw(request, fields, error.message, error.status)
        return self._done(request, "frozen")

    async def ask(self, request: web.Request, error: str = "", status: int = 200) -> web.StreamResponse:
        values = form_of(request) if request.method == "POST" else request.query
        entry = entry_answer(await self._changes.find(values.get("id", "")))
        return await render(request, "take_back.html", status=status, made=entry, error=error, typed=values)

    async def take_back(self, request: web.Request) -> web.StreamResponse:
        fields, session = form_of(request), visit_of(request).session
        by, reason = session.subject or fields.get("by", "").strip(), fields.get("reason", "").strip()
        try:
            body = said_as(Body, {"by": by, "reason": reason})
            await self._changes.take_back(
                fields.get("id", ""), Author(name=body.by, via=session.by), body.reason
            )
        except AdminError as error:
            if error.status == 404:
                raise
            return await self.ask(request, error.message, error.status)
        return self._done(request, "taken-back")

    def _done(self, request: web.Request, what: str) -> web.Response:
        return redirect(f"{_PATH}?{urlencode({'done': visit_of(request).seal(what)})}")


def _frozen_table(freezes: Collection[Freeze], zone: ZoneInfo, may_edit: bool) -> Table:
    columns = [
        Column("subject", "Who"),
        Column("since", "Since", number=True),
        Column("by", "By"),
        Column("reason", "Reason"),
    ]
    if may_edit:
        columns.append(Column("action", "", sortable=False))
    rows: list[list[Cell | str | int]] = []
    for made in map(adjustment_answer, freezes):
        row: list[Cell | str | int] = [
            Cell(text=made.subject, note=made.scope),
            tables.instant(moment(made.at), zone),
            Cell(text=made.by, note=made.via),
            made.reason,
        ]
        if may_edit:
            row.append(Cell(text="Unfreeze", href=f"{_PATH}/take-back?id={made.id}"))
        rows.append(row)
    return Table(name="frozen", caption="Frozen now", columns=columns, rows=rows, empty="Nobody is frozen.")


def _trail_table(entries: Collection[LogEntry], zone: ZoneInfo) -> Table:
    return Table(
        name="trail",
        caption="Audit trail",
        columns=(
            Column("number", "No.", sortable=False),
            Column("at", "When", sortable=False),
            Column("by", "Who", sortable=False),
            Column("what", "What", sortable=False),
            Column("whose", "Whose", sortable=False),
            Column("amount", "Amount", number=True, sortable=False),
            Column("ends", "Ends", number=True, sortable=False),
            Column("reason", "Reason", sortable=False),
        ),
        rows=[_trail_row(entry.number, entry_answer(entry), zone) for entry in entries],
        per_page=ENTRIES,
        empty="Nobody has changed anything.",
    )


def _trail_row(number: int, made: AdjustmentAnswer, zone: ZoneInfo) -> list[Cell | str | int]:
    back = made.taken_back
    done = back if back is not None else made
    what = f"{made.kind} taken back" if back is not None else made.kind
    return [
        number,
        tables.instant(moment(done.at), zone),
        Cell(text=done.by, note=done.via),
        Cell(text=what, badge=True, exported=what, tone="quiet" if back else "warn", note=made.id),
        Cell(
            text=made.subject or "all of them",
            value=made.subject,
            note=f"{made.scope}, limit {made.limit}" if made.limit else made.scope,
        ),
        _amount(made),
        tables.instant(moment(made.ends_at), zone),
        done.reason,
    ]


def _amount(made: AdjustmentAnswer) -> Cell:
    """In the CSV exactly: dollars with nine decimals, else a whole number."""
    if made.amount is None:
        return Cell(text="", value=0, exported="")
    money = made.amount.text.startswith(("$", "-$"))
    exported = exact_usd(made.amount.value) if money else str(made.amount.value)
    return Cell(text=made.amount.text, value=made.amount.value, exported=exported)
