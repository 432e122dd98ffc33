"""The keys that apps call with: which there are, making one, stopping one. A key's text is on the answer to
the form that made it, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from gateway.core.errors import StoreUnavailable
from gateway.core.ids import WorkspaceId
from gateway.core.principal import KeyRecord, mint_key
from gateway.ports import Clock
from gateway.web.admin_api import AdminError
from gateway.web.page import tables
from gateway.web.page.guard import form_of, redirect
from gateway.web.page.rendering import PREFIX, Screen, render, visit_of, zone_of
from gateway.web.page.tables import Cell, Column, Table

log = logging.getLogger(__name__)

DAY: Final = 86_400
LIFETIMES: Final = (("30", "30 days"), ("90", "90 days"), ("365", "A year"), ("", "Never"))
STATES: Final = (("", "All"), ("active", "Active"), ("expired", "Expired"), ("revoked", "Revoked"))
SOON_SECONDS: Final = 14 * DAY
"""How long before its end a key is marked."""
MAX_NAME: Final = 100
MAX_FORM: Final = 64
_TONES: Final = {"active": "good", "expires soon": "warn", "expired": "quiet", "revoked": "quiet"}
_PATH: Final = f"{PREFIX}/keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What the screens know of keys. What changes something raises `StoreUnavailable`, and holds on this
    replica when it returns."""

    records: Callable[[], Collection[KeyRecord]]
    workspaces: Callable[[], Collection[str]]
    last_used: Callable[[], Mapping[str, float]]
    """By id, as far as it is known."""
    put: Callable[[KeyRecord], Awaitable[None]]
    revoke: Callable[[KeyRecord, float, str], Awaitable[None]]
    """At what instant, and who does it."""
    secret_of: Callable[[str], bytes]
    """`RANDOM_BYTES` that nobody else can know, the same for the same text: a form that is sent twice makes
    one key, and both answers show it."""


def keys_screens(keys: Keys, clock: Clock) -> list[Screen]:
    """The list, the form, the question whether to revoke, and what they do."""
    forms = _Forms(keys, clock)
    return [
        Screen(path="/keys", title="Keys", respond=forms.show),
        Screen(path="/keys/new", respond=forms.ask_new),
        Screen(path="/keys/new", respond=forms.create, method="POST"),
        Screen(path="/keys/revoke", respond=forms.ask_revoke),
        Screen(path="/keys/revoke", respond=forms.revoke, method="POST"),
    ]


class _Forms:
    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def show(self, request: web.Request) -> web.StreamResponse:
        now, query = self._clock.now(), request.query
        workspace, wanted = query.get("workspace", ""), query.get("state", "")
        records = [
            record
            for record in self._keys.records()
            if workspace in ("", record.workspace) and wanted in ("", _state(record, now))
        ]
        return await render(
            request,
            "keys.html",
            tables=[
                _table(records, self._keys.last_used(), now, zone_of(request), visit_of(request).may_edit)
            ],
            workspaces=sorted(self._keys.workspaces()),
            workspace=workspace,
            states=STATES,
            state=wanted,
            revoked=visit_of(request).unseal(query.get("revoked", "")),
        )

    async def ask_new(self, request: web.Request) -> web.StreamResponse:
        return await _new_form(request, self._keys, request.query, "")

    async def create(self, request: web.Request) -> web.StreamResponse:
        fields, visit, now = form_of(request), visit_of(request), self._clock.now()
        name, workspace, lifetime = (
            fields.get(each, "").strip() for each in ("name", "workspace", "lifetime")
        )
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            return await _new_form(request, self._keys, fields, "A name has 1 to 100 printable characters.")
        if workspace not in self._keys.workspaces():
            return await _new_form(request, self._keys, fields, "Choose a workspace.")
        if lifetime not in dict(LIFETIMES):
            return await _new_form(request, self._keys, fields, "Choose when it ends.")
        form = fields.get("form", "")
        if not 8 <= len(form) <= MAX_FORM:
            return await _new_form(request, self._keys, fields, "This form was not whole; send it again.")
        said = "\0".join((visit.session.id, form, name, workspace, lifetime))
        secret, record = mint_key(
            random_bytes=self._keys.secret_of(said),
            name=name,
            workspace=WorkspaceId(workspace),
            created_at=now,
            created_by=visit.session.subject or visit.session.by,
            expires_at=now + int(lifetime) * DAY if lifetime else None,
        )
        before = next((each for each in self._keys.records() if each.id == record.id), None)
        if before is not None:
            if before.revoked_at is not None:
                raise AdminError(409, "This form was sent before, and the key that it made is revoked.")
            return await render(request, "key_made.html", secret=secret, record=before)
        await _reached(self._keys.put(record))
        log.info("key %s of workspace %s was made by %r", record.id, record.workspace, record.created_by)
        return await render(request, "key_made.html", secret=secret, record=record)

    async def ask_revoke(self, request: web.Request) -> web.StreamResponse:
        record = self._find(request.query.get("id", ""))
        last_used = self._keys.last_used().get(record.id)
        return await render(request, "key_revoke.html", record=record, last_used=last_used)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        record, visit = self._find(form_of(request).get("id", "")), visit_of(request)
        who = visit.session.subject or visit.session.by
        await _reached(self._keys.revoke(record, self._clock.now(), who))
        log.info("key %s was revoked by %r", record.id, who)
        return redirect(f"{_PATH}?{urlencode({'revoked': visit.seal(record.id)})}")

    def _find(self, key_id: str) -> KeyRecord:
        found = next((record for record in self._keys.records() if record.id == key_id), None)
        if found is None:
            raise AdminError(404, "There is no such key.")
        return found


async def _new_form(
    request: web.Request, keys: Keys, values: Mapping[str, str], error: str
) -> web.StreamResponse:
    return await render(
        request,
        "key_new.html",
        status=400 if error else 200,
        error=error,
        form=values.get("form", ""),
        name=values.get("name", ""),
        workspace=values.get("workspace", ""),
        lifetime=values.get("lifetime", "90"),
        workspaces=sorted(keys.workspaces()),
        lifetimes=LIFETIMES,
    )


def _table(
    records: Collection[KeyRecord],
    last_used: Mapping[str, float],
    now: float,
    zone: ZoneInfo,
    may_edit: bool,
) -> Table:
    columns = [
        Column("name", "Name"),
        Column("id", "Id"),
        Column("workspace", "Workspace"),
        Column("state", "State"),
        Column("created", "Created", number=True),
        Column("expires", "Expires", number=True),
        Column("last_used", "Last used here", number=True, help="On this replica, since it started."),
    ]
    if may_edit:
        columns.append(Column("action", "", sortable=False))
    return Table(
        caption="Keys",
        columns=columns,
        rows=[_row(record, last_used.get(record.id), now, zone, may_edit) for record in records],
        sort="-created",
        empty="There is no such key.",
    )


def _row(
    record: KeyRecord, last_used: float | None, now: float, zone: ZoneInfo, may_edit: bool
) -> list[Cell | str | int]:
    state = _state(record, now)
    if state == "active" and record.expires_at is not None and record.expires_at - now < SOON_SECONDS:
        state = "expires soon"
    row: list[Cell | str | int] = [
        record.name,
        Cell(
            text=record.id, value=record.id, code=True, note=f"ends in {record.last4}" if record.last4 else ""
        ),
        tables.link(record.workspace, f"{PREFIX}/budgets?workspace={record.workspace}"),
        tables.badge(state, _TONES[state], note=by_whom(record.revoked_by)),
        # Of one that was declared nobody knows since when.
        tables.instant(record.created_at or None, zone, note=by_whom(record.created_by)),
        Cell(text="never", value=float("inf"), exported="", tone="quiet")
        if record.expires_at is None
        else tables.instant(record.expires_at, zone),
        tables.instant(last_used, zone, tone="" if last_used else "quiet"),
    ]
    if may_edit:
        revocable = record.revoked_at is None
        href = f"{_PATH}/revoke?id={record.id}" if revocable else ""
        row.append(Cell(text="Revoke" if revocable else "", href=href, exported=""))
    return row


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked_at is not None:
        return "revoked"
    return "active" if record.is_active(now) else "expired"


def by_whom(who: str) -> str:
    """Of a name; of what is known in place of one, as `on the gateway's machine`, just that."""
    return who if not who or who.startswith(("by ", "on ")) else f"by {who}"


async def _reached(answer: Awaitable[None]) -> None:
    try:
        await answer
    except StoreUnavailable as error:
        raise AdminError(503, f"The keys cannot be reached, nothing was changed: {error.message}") from None
