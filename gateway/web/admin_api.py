"""The admin API: what its resources have in common. Each resource is a module of its own, which makes
`Operation`s from callables that it is given; nothing here knows any of them.

Routes are under /v1 of the admin plane, answers and errors are JSON. All of them need the admin token, or
else a caller on the same machine that is no web page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Middleware

from gateway.web.health import PROBE_PATHS
from gateway.web.openapi import Answer, Description, openapi_document

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]

AUTHENTICATED = web.RequestKey("authenticated", str)
"""How the caller of a request showed that they may make it."""
FORWARDING = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
)
"""Headers by which proxies say for whom they ask."""


class AdminError(Exception):
    """An error that the caller is told in the admin plane's shape. The message is a sentence that says what
    to do; it holds no content and no credential."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    respond: Respond
    description: Description
    open: bool = False
    """Without the admin token: it finds out by itself who is asking."""


def add_operations(app: web.Application, operations: Sequence[Operation], *, version: str) -> None:
    """Serve them, and the OpenAPI document of exactly them."""
    described = [*operations]

    async def openapi(request: web.Request) -> web.Response:
        listed = [(each.method, each.path, each.description) for each in described]
        return web.json_response(openapi_document(listed, version=version))

    described.append(
        Operation(
            method="GET",
            path="/v1/openapi.json",
            respond=openapi,
            description=Description(id="openapi", summary="This document."),
        )
    )
    for operation in described:
        app.router.add_route(operation.method, operation.path, operation.respond)


def answer_json(answer: Answer) -> web.Response:
    """An answer that no cache keeps: it is as of now."""
    return web.Response(
        body=answer.model_dump_json().encode(),
        content_type="application/json",
        headers={"cache-control": "no-store"},
    )


def only_from_here(*, token: bool, loopback: bool, open_paths: frozenset[str] = frozenset()) -> Middleware:
    """Without a token, nothing but the probes and `open_paths` is for callers of other machines, and they
    cannot be told apart unless the listener is on `loopback`. There all but the probes is refused to web
    pages, which can reach that address from any browser on the machine: by a request across sites, or by a
    name of their own that leads to it; and to what a proxy passes on for somebody else."""

    @web.middleware
    async def guarded(request: web.Request, handler: Respond) -> web.StreamResponse:
        if token or request.path in PROBE_PATHS or (not loopback and request.path in open_paths):
            return await handler(request)
        if not loopback:
            raise AdminError(
                403,
                "The admin plane has no token, and other machines can reach it: set listen.admin_token in "
                "gateway.yaml, or listen on a loopback address.",
            )
        if request.path not in open_paths and is_passed_on(request):
            raise AdminError(
                403,
                "Without an admin token this is for commands on the gateway's machine, and a proxy has "
                "passed this on: set listen.admin_token in gateway.yaml.",
            )
        if "origin" in request.headers or not is_loopback(split_url(f"//{request.host}").hostname):
            raise AdminError(
                403,
                "Without an admin token this is for commands on the gateway's machine, not for web pages.",
            )
        return await handler(request)

    return guarded


def is_passed_on(request: web.Request) -> bool:
    """Whether a proxy says that it asks for somebody else; or, by HTTP/1.0, looks like one. One that hides
    itself better cannot be told from a command on this machine."""
    return request.version < HttpVersion11 or any(name in request.headers for name in FORWARDING)


def split_url(url: str) -> SplitResult:
    """Parts of a URL that a stranger wrote; what is none has no parts."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def is_loopback(host: str | None) -> bool:
    """Whether this address, or name, is of the machine itself."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
