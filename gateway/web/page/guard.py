"""What stands before every screen: who is asking, whether their browser means it, and errors as pages.

With a way to sign in, all but signing in needs a session. Without any, the page is for whoever sits at the
gateway's machine: the listener has to be on a loopback address and to be called by its name, so that no web
page can reach it under a name of its own. What changes something has to come from a form of this page.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.web.admin_api import AdminError, is_loopback, is_passed_on, split_url
from gateway.web.admin_body import MAX_FORM_BYTES, body_of
from gateway.web.page.rendering import PAGE, PREFIX, VISIT, Visit, render_error
from gateway.web.page.session import Role, Session, Sessions

log = logging.getLogger(__name__)

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM = web.RequestKey("form", Mapping[str, str])
"""The fields of a form that was sent."""
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
REFRESH = "x-page-refresh"
"""Requests by which a page refreshes itself have this header: nobody has to be looking at it."""
FORM_TYPE = "application/x-www-form-urlencoded"
HERE = Session(
    id="here", subject="", by="on the gateway's machine", role=Role.EDITOR, began_at=0.0, seen_at=0.0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How one gets in."""

    signing_in: bool
    """Whether there is a way to sign in, so that one has to."""
    loopback: bool
    """Whether no other machine can reach the listener."""
    public_url: str | None
    """How browsers reach the page, where that is not what their Host header says."""
    open_paths: frozenset[str]
    """Whole paths that need no session."""


def known(access: Access, sessions: Sessions) -> Middleware:
    """Nothing is shown to anybody who is not known; nothing is changed but by a form of this page."""

    @web.middleware
    async def knowing(request: web.Request, handler: _Next) -> web.StreamResponse:
        changes = request.method not in ("GET", "HEAD")
        if changes:
            _from_this_page(request, access)
        if not access.signing_in:
            _from_here(request, access)
        if request.path.startswith(f"{PREFIX}/static/"):
            return await handler(request)
        at = request.app[PAGE].clock.now()
        session = await sessions.of(request, at) if access.signing_in else HERE
        if session is not None:
            request[VISIT] = Visit(
                session=session,
                form_token=sessions.form_token(session),
                may_sign_out=access.signing_in,
                seal=partial(sessions.seal, session),
                unseal=partial(sessions.unseal, session),
            )
        is_open = request.path in access.open_paths
        if session is None and not is_open:
            return _to_sign_in(request)
        if changes:
            request[FORM] = await _fields(request)
        if session is None or is_open:
            return await handler(request)
        if changes:
            _means_it(request, sessions, session)
        response = await handler(request)
        if access.signing_in and REFRESH not in request.headers and request[VISIT].session is session:
            sessions.renew(response, session, at)
        return response

    return knowing


def errors_as_pages() -> Middleware:
    """What goes wrong is told on a page, in a sentence, with its status."""

    @web.middleware
    async def erring(request: web.Request, handler: _Next) -> web.StreamResponse:
        try:
            return await handler(request)
        except AdminError as error:
            return await render_error(request, error.status, error.message)
        except web.HTTPException as error:
            if error.status == 404:
                return await render_error(request, 404, "There is no such page.")
            return await render_error(request, error.status, f"{error.reason}.")
        except Exception:
            log.exception("the page failed on %s", request.rel_url.path)
            return await render_error(request, 500, "The gateway failed to show this; its log says why.")

    return erring


def form_of(request: web.Request) -> Mapping[str, str]:
    """The fields of the form that was sent."""
    return request[FORM]


def redirect(path: str) -> web.Response:
    """After a change, or to sign in: the browser asks for this path of ours. No other can be meant."""
    if not path.startswith("/") or path.startswith("//") or not path.isascii() or not path.isprintable():
        path = PREFIX
    return web.Response(status=303, headers={"location": path, "cache-control": "no-store"})


def _from_here(request: web.Request, access: Access) -> None:
    if not access.loopback:
        raise AdminError(
            403,
            "The page needs a way to sign in: set listen.admin_token in gateway.yaml, or let the admin plane "
            "listen on a loopback address.",
        )
    if is_passed_on(request) or not is_loopback(split_url(f"//{request.host}").hostname):
        raise AdminError(
            403,
            "Without an admin token the page is for browsers on the gateway's machine, by its own address "
            "and through no proxy.",
        )


def _from_this_page(request: web.Request, access: Access) -> None:
    """By what browsers say of where a request comes from, and no script can change."""
    origin = split_url(request.headers.get("origin", ""))
    hosts = {request.host}
    if access.public_url is not None:
        hosts.add(urlsplit(access.public_url).netloc)
    site = request.headers.get("sec-fetch-site", "same-origin")
    if origin.scheme not in ("http", "https") or origin.netloc not in hosts or site != "same-origin":
        raise AdminError(
            403,
            "This did not come from a form of this page. Behind a proxy that changes the Host header, set "
            "page.public_url in gateway.yaml.",
        )


def _means_it(request: web.Request, sessions: Sessions, session: Session) -> None:
    if session.role is not Role.EDITOR:
        raise AdminError(
            403, "You may see everything here and change nothing; ask whoever runs this gateway."
        )
    if not sessions.is_form_token(session, request[FORM].get(FORM_TOKEN, "")):
        raise AdminError(403, "This form is of another session; go back, load the page again and resend it.")


async def _fields(request: web.Request) -> Mapping[str, str]:
    if request.content_type != FORM_TYPE or (request.charset or "utf-8").lower() != "utf-8":
        raise AdminError(415, "Send a form, in UTF-8.")
    body = await body_of(request, most_bytes=MAX_FORM_BYTES)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise AdminError(400, "The form cannot be read; send it in UTF-8.") from None


def _to_sign_in(request: web.Request) -> web.Response:
    path = f"{PREFIX}/sign-in"
    if request.method == "GET" and request.path_qs != PREFIX:
        path += f"?next={quote(request.raw_path if request.raw_path.isascii() else PREFIX, safe='')}"
    return redirect(path)
