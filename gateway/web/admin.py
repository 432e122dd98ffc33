"""The admin plane: an application of its own, on a port of its own, for probes, metrics and the admin API.

It is told everything through plain callables and knows neither Prometheus nor the store. Spend data is
here and never on the data port. Errors are JSON.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.web.admin_api import AUTHENTICATED, AdminError, Operation, add_operations, only_from_here
from gateway.web.admission import Admission
from gateway.web.health import PROBE_PATHS, Conditions, add_probes

log = logging.getLogger(__name__)

Render = Callable[[str], tuple[str, bytes]]
"""From an `Accept` header to content type and page. Runs in a thread."""
_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

MIN_GZIP_BYTES = 1024
PAGE_PREFIX = "/page"
METRICS_PATH = "/metrics"


def admin_app(
    *,
    conditions: Conditions,
    render: Render,
    admission: Admission,
    operations: Sequence[Operation] = (),
    loopback: bool = False,
    version: str = "",
    page: web.Application | None = None,
) -> web.Application:
    """The application. Where `admission` asks for a token, all but the probes and `open` operations need
    `authorization: Bearer <token>`. `operations` are the admin API's; `loopback` says that no other machine
    can reach the listener: otherwise all of them need a token. `page` is for browsers, and finds out by
    itself who is asking."""
    own = frozenset(operation.path for operation in operations if operation.open)
    guard = only_from_here(token=admission.asks, loopback=loopback, open_paths=own | {METRICS_PATH})
    admits = [_authorised(admission, PROBE_PATHS | own), guard]
    app = web.Application(middlewares=[_errors_as_json, *(_but_for_the_page(each) for each in admits)])
    add_probes(app, conditions)
    app.router.add_get(METRICS_PATH, _metrics(render))
    add_operations(app, operations, version=version)
    if page is not None:
        app.router.add_get("/", _to_the_page)
        app.add_subapp(PAGE_PREFIX, page)
    return app


async def _to_the_page(request: web.Request) -> web.Response:
    return web.Response(status=303, headers={"location": PAGE_PREFIX})


def _but_for_the_page(admit: Middleware) -> Middleware:
    """It has a guard of its own, which knows browsers: sessions in place of tokens, and their forms."""

    @web.middleware
    async def admitting(request: web.Request, handler: _Next) -> web.StreamResponse:
        if request.path in ("/", PAGE_PREFIX) or request.path.startswith(f"{PAGE_PREFIX}/"):
            return await handler(request)
        return await admit(request, handler)

    return admitting


def _metrics(render: Render) -> _Next:
    one_at_a_time = asyncio.Lock()

    async def metrics(request: web.Request) -> web.Response:
        accept = request.headers.get("accept", "")
        compress = _accepts_gzip(request.headers.get("accept-encoding", ""))
        # A page of thousands of series takes some 100 ms, which would stall every stream on the event loop;
        # one page at a time, so that scrapers cannot fill the pool of threads.
        async with one_at_a_time:
            content_type, page, zipped = await asyncio.to_thread(_page, render, accept, compress)
        headers = {
            "content-type": content_type,
            "cache-control": "no-store",
            "vary": "accept, accept-encoding",
        }
        if zipped:
            headers["content-encoding"] = "gzip"
        return web.Response(body=page, headers=headers)

    return metrics


def _page(render: Render, accept: str, compress: bool) -> tuple[str, bytes, bool]:
    content_type, page = render(accept)
    if compress and len(page) >= MIN_GZIP_BYTES:
        return content_type, gzip.compress(page, compresslevel=1, mtime=0), True
    return content_type, page, False


def _accepts_gzip(header: str) -> bool:
    """Whether `gzip` (or `*`, where gzip is not named) is accepted with a weight above zero."""
    weights = {}
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        name, _, weight = parameters.strip().partition("=")
        try:
            weights[coding.strip()] = float(weight) if name.strip() == "q" else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _authorised(admission: Admission, unguarded: frozenset[str]) -> Middleware:
    @web.middleware
    async def authorised(request: web.Request, handler: _Next) -> web.StreamResponse:
        metrics = request.path == METRICS_PATH
        asks = admission.asks_for_metrics if metrics else admission.asks
        request[AUTHENTICATED] = "on the gateway's machine"
        if asks and request.path not in unguarded:
            request[AUTHENTICATED] = "by the admin token"
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            given = given if scheme.lower() == "bearer" else ""
            try:
                admission.check(given, request.remote or "", for_metrics=metrics)
            except AdminError as error:
                if error.status != 401:
                    raise
                message = "This needs the admin token as a bearer token."
                return _error(401, message, {"www-authenticate": "Bearer"})
        return await handler(request)

    return authorised


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Next) -> web.StreamResponse:
    try:
        return await handler(request)
    except AdminError as error:
        return _error(error.status, error.message, {})
    except web.HTTPException as error:
        allow = error.headers.get("allow")
        return _error(error.status, error.reason, {"allow": allow} if allow else {})
    except Exception:
        log.exception("the admin plane failed on %s", request.rel_url.path)
        return _error(500, "The gateway failed to answer this; its log says why.", {})


def _error(status: int, message: str, headers: dict[str, str]) -> web.Response:
    return web.json_response(
        {"error": {"status": status, "message": message}}, status=status, headers=headers
    )
