"""From values to a page: templates, navigation, who is looking, as of when; and its security headers.

Templates are in `templates/`, escaped by default, and draw tables by `tables.py`. Drawing runs in a thread,
one page at a time: a long table takes some 100 ms, which would stall every stream on the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.client import responses
from pathlib import Path
from zoneinfo import ZoneInfo

import jinja2
from aiohttp import web
from markupsafe import Markup

from gateway.ports import Clock
from gateway.web.admin_api import AdminError
from gateway.web.page import showing
from gateway.web.page.session import Role, Session
from gateway.web.page.tables import Table, View, as_csv, drawn

PREFIX = "/page"
Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: forms would then say that they come from nowhere (`Origin: null`).
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_FILES = Path(__file__).parent
_FORM_TOKEN = Markup('<input type="hidden" name="form_token" value="{}">')
STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """One route of the page, below /page. With a `title` it is in the navigation."""

    path: str
    respond: Respond
    title: str = ""
    method: str = "GET"
    """`POST` is for editors, from a form of this page only."""
    open: bool = False
    """For anybody, as what makes a session; a form of it has no `form_token` to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who is asking."""

    session: Session
    form_token: str
    may_sign_out: bool
    seal: Callable[[str], str]
    """For what the page says of itself in a URL."""
    unseal: Callable[[str], str]
    """What was sealed for this session; empty where it was not."""

    @property
    def may_edit(self) -> bool:
        return self.session.role is Role.EDITOR


VISIT = web.RequestKey("visit", Visit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What all screens have in common."""

    screens: Sequence[Screen]
    clock: Clock
    zone: ZoneInfo
    version: str
    static: Mapping[str, bytes]
    """Files that browsers load, by name."""
    new_id: Callable[[], str]
    """For forms: what a form makes has this id, so that sending it twice makes it once."""
    templates: jinja2.Environment
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


PAGE = web.AppKey("page", Page)


def make_page(
    screens: Iterable[Screen], *, clock: Clock, timezone: str, version: str, new_id: Callable[[], str]
) -> Page:
    """All that rendering needs, read once."""
    zone = ZoneInfo(timezone)
    static = {path.name: path.read_bytes() for path in sorted((_FILES / "static").iterdir())}
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FILES / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "usd": showing.usd,
        "count": showing.count,
        "short_count": showing.short_count,
        "percent": showing.percent,
        "seconds": showing.seconds,
        "when": partial(showing.when, zone=zone),
        "day": partial(showing.day, zone=zone),
    }
    digests = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in static.items()}
    templates.globals |= {
        "static": lambda name: f"{PREFIX}/static/{name}?{digests[name]}",
        "prefix": PREFIX,
    }
    return Page(
        screens=tuple(screens),
        clock=clock,
        zone=zone,
        version=version,
        static=static,
        new_id=new_id,
        templates=templates,
    )


def visit_of(request: web.Request) -> Visit:
    """Who is asking; screens are only called for somebody."""
    return request[VISIT]


def zone_of(request: web.Request) -> ZoneInfo:
    """The time zone of all instants on the page."""
    return request.app[PAGE].zone


def view_of(request: web.Request) -> View:
    """The URL that is asked for, for links to the same with another parameter."""
    return View(request.path, dict(request.query))


async def render(
    request: web.Request,
    template: str,
    *,
    tables: Sequence[Table] = (),
    status: int = 200,
    path: str | None = None,
    **values: object,
) -> web.Response:
    """The template as a page; or, where the URL says `format=csv`, one of its tables. Raises `AdminError`
    where the URL asks for a table, column or page that is not there. `path`: where links of its tables lead,
    of a part that stands in another page."""
    page = request.app[PAGE]
    if request.query.get("format") == "csv":
        return await _csv(request, tables)
    at = page.clock.now()
    view = View(path or request.path, dict(request.query))
    async with page.drawing:
        body = await asyncio.to_thread(_drawn, request, page, template, tables, view, at, values)
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=HEADERS)


def _drawn(
    request: web.Request,
    page: Page,
    template: str,
    tables: Sequence[Table],
    view: View,
    at: float,
    values: Mapping[str, object],
) -> bytes:
    visit = request.get(VISIT)
    nav = [
        (screen.title, PREFIX + screen.path, _is_within(request.path, PREFIX + screen.path))
        for screen in page.screens
        if screen.title
    ]
    context = {
        "nav": nav if visit is not None else [],
        "visit": visit,
        "form_token": _FORM_TOKEN.format(visit.form_token) if visit is not None else "",
        "new_id": page.new_id,
        "as_of": at,
        "timezone": page.zone.key,
        "version": page.version,
        "view": view,
        "tables": {table.name: drawn(table, view) for table in tables},
        **values,
    }
    return page.templates.get_template(template).render(context).encode()


def _is_within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


async def _csv(request: web.Request, tables: Sequence[Table]) -> web.Response:
    wanted = request.query.get("table", tables[0].name if tables else "")
    found = [table for table in tables if table.name == wanted and table.exported]
    if not found:
        raise AdminError(404, "This page has no such table to export.")
    data = await asyncio.to_thread(as_csv, found[0], request.query)
    name = request.path.removeprefix(PREFIX).strip("/").replace("/", "-") or "page"
    suffix = "" if wanted == "table" else f"-{wanted}"
    return web.Response(
        body=data.encode(),
        content_type="text/csv",
        charset="utf-8",
        headers={**HEADERS, "content-disposition": f'attachment; filename="{name}{suffix}.csv"'},
    )


async def render_error(request: web.Request, status: int, message: str) -> web.Response:
    """An error as a page."""
    phrase = responses.get(status, "Error")
    page = request.app[PAGE]
    values = {"phrase": phrase, "message": message}
    body = _drawn(request, page, "error.html", (), view_of(request), page.clock.now(), values)
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=HEADERS)


async def static_file(request: web.Request) -> web.Response:
    """A file that browsers load; its URL changes with it, so that it may be kept for ever."""
    name = request.match_info["name"]
    data = request.app[PAGE].static.get(name)
    kind = STATIC_TYPES.get(Path(name).suffix)
    if data is None or kind is None:
        raise AdminError(404, "There is no such file.")
    kept = "public, max-age=31536000, immutable" if request.query_string else "no-cache"
    return web.Response(
        body=data, content_type=kind, charset="utf-8", headers={**HEADERS, "cache-control": kept}
    )
