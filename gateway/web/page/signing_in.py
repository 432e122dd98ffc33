"""Signing in with the admin token, and signing out. Other ways to sign in are screens of their own, which
call `Sessions.begin_session` as this one does, and are offered here by a link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock
from gateway.web.admin_api import AdminError
from gateway.web.admission import Admission
from gateway.web.page.guard import form_of, redirect
from gateway.web.page.rendering import PREFIX, VISIT, Screen, render
from gateway.web.page.session import MAX_SUBJECT, Role, Sessions

BY_TOKEN = "by the admin token"  # noqa: S105 - words of the audit trail

NOT_TOLD = (
    "This browser is signed out. The other workers and replicas could not be told: somebody who copied its "
    "cookie could still use it there until the session's end."
)


@dataclass(frozen=True, slots=True)
class Way:
    """Another way to sign in."""

    title: str
    path: str
    """Below /page; `next` is added to its query."""


def signing_in_screens(
    sessions: Sessions,
    *,
    admission: Admission,
    clock: Clock,
    new_session_id: Callable[[], str],
    ways: Sequence[Way] = (),
) -> list[Screen]:
    """The form, what it does, and the way out."""

    async def form(request: web.Request, error: str = "", status: int = 200) -> web.StreamResponse:
        values = form_of(request) if request.method == "POST" else request.query
        return await render(
            request,
            "sign_in.html",
            status=status,
            with_token=admission.asks,
            ways=ways,
            error=error,
            name=values.get("name", ""),
            next=inside(values.get("next", "")),
        )

    async def show(request: web.Request) -> web.StreamResponse:
        return redirect(PREFIX) if VISIT in request else await form(request)

    async def sign_in(request: web.Request) -> web.StreamResponse:
        fields = form_of(request)
        name = fields.get("name", "").strip()
        try:
            admission.check(fields.get("token", ""), request.remote or "")
        except AdminError as error:
            return await form(request, error.message, error.status)
        if not 1 <= len(name) <= MAX_SUBJECT or not name.isprintable():
            return await form(request, "Say who you are: changes are recorded under that name.", 400)
        response = redirect(inside(fields.get("next", "")))
        sessions.begin_session(
            response, id=new_session_id(), subject=name, by=BY_TOKEN, role=Role.EDITOR, at=clock.now()
        )
        return response

    async def sign_out(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = redirect(f"{PREFIX}/sign-in")
        visit = request.pop(VISIT, None)
        if visit is not None:
            try:
                await sessions.end(visit.session, clock.now())
            except StoreUnavailable as error:
                response = await form(request, f"{NOT_TOLD} {error.message}", 503)
            sessions.forget(response)
        return response

    return [
        Screen(path="/sign-in", respond=show, open=True),
        Screen(path="/sign-in", respond=sign_in, method="POST", open=True),
        Screen(path="/sign-out", respond=sign_out, method="POST", open=True),
    ]


def inside(path: str) -> str:
    """Where somebody wanted to go: a place of this page, and nowhere else."""
    inside = path.startswith((f"{PREFIX}/", f"{PREFIX}?")) and not path.startswith(f"{PREFIX}/sign-")
    return path if inside else PREFIX
