"""The admin API: what its resources have in common. Each resource is a module of its own, which makes
`Operation`s from callables that it is given; nothing here knows any of them.

Routes are under /v1 of the admin plane, answers and errors are JSON. An operation that changes or spends
something needs the admin token, or else a caller on the same machine that is no web page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.web.health import PROBE_PATHS
from gateway.web.openapi import Answer, Description, openapi_document

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]

API_PREFIX = "/v1/"
AUTHENTICATED = web.RequestKey("authenticated", str)
"""How the caller of a request showed that they may make it."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


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


def only_from_here(*, token: bool, loopback: bool) -> Middleware:
    """Without a token, what changes or spends something is refused unless the listener is on `loopback`; and
    there all but the probes is refused to web pages, which can reach that address from any browser on the
    machine: by a request across sites, or by a name of their own that leads to it."""

    @web.middleware
    async def guarded(request: web.Request, handler: Respond) -> web.StreamResponse:
        reads = request.method in _READING or not request.path.startswith(API_PREFIX)
        if token or (reads and not loopback) or request.path in PROBE_PATHS:
            return await handler(request)
        if not loopback:
            raise AdminError(
                403,
                "This changes or spends something, and the admin plane has no token: set listen.admin_token "
                "in gateway.yaml, or listen on a loopback address.",
            )
        if "origin" in request.headers or not is_loopback(urlsplit(f"//{request.host}").hostname):
            raise AdminError(
                403,
                "Without an admin token this is for commands on the gateway's machine, not for web pages.",
            )
        return await handler(request)

    return guarded


def is_loopback(host: str | None) -> bool:
    """Whether this address, or name, is of the machine itself."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
