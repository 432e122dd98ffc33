"""The simulator on a socket: routes, what every request passes through, start and stop.

Endpoints are in files of their own; this one knows HTTP and the order of checks: body, fault, credential,
version, endpoint. Errors leave in the API's envelope with a request id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aiohttp import web

from gateway.adapters.clock import SystemClock
from gateway.ports import Clock
from gateway.sim import batches, control, federation, files, models, reports
from gateway.sim.answers import Script, ScriptHook
from gateway.sim.bill import Bill
from gateway.sim.cache import PromptCache
from gateway.sim.catalogue import find_model
from gateway.sim.faults import Fault, FaultKind, Faults
from gateway.sim.federation import Federated
from gateway.sim.messages import count_tokens, create_message, hang_up
from gateway.sim.pacing import Pacing, pause
from gateway.sim.records import Received
from gateway.sim.report_lines import Reports
from gateway.sim.threads import Threads
from gateway.sim.wire import ApiError, JsonObject, dump, not_found
from gateway.sim.world import ORGANIZATION_ID, Options, World

_RECEIVED: Final = web.RequestKey("received", Received)
_MEGABYTE: Final = 1024 * 1024
_STALL_WITHOUT_END: Final = 86_400.0


class Simulator:
    """A Claude API on a loopback port. Start it, point a client at `url`, look at what it recorded."""

    def __init__(
        self,
        *,
        pacing: Pacing | None = None,
        seed: int = 0,
        credentials: Mapping[str, str | Sequence[str]] | None = None,
        tier: str = "scale",
        enforce_limits: bool = False,
        batch_seconds: float = 0.0,
        clock: Clock | None = None,
        script: ScriptHook | None = None,
    ) -> None:
        options = Options(
            pacing=pacing or Pacing(),
            seed=seed,
            credentials=credentials,
            tier=tier,
            enforce_limits=enforce_limits,
            batch_seconds=batch_seconds,
            script=script,
        )
        self._world = World(options, clock or SystemClock())
        self._runner: web.AppRunner | None = None
        self.url = ""

    @property
    def faults(self) -> Faults:
        return self._world.faults

    @property
    def script(self) -> Script:
        return self._world.script

    @property
    def requests(self) -> list[Received]:
        """What was received, oldest first; control requests are not among them."""
        return list(self._world.records.items)

    @property
    def bill(self) -> Bill:
        return self._world.engine.bill

    @property
    def cache(self) -> PromptCache:
        return self._world.engine.cache

    @property
    def reports(self) -> Reports:
        """How the usage and cost reports differ from the bill."""
        return self._world.reports

    @property
    def federation(self) -> Federated:
        """Whose identity tokens are exchanged, and the tokens that were given for them."""
        return self._world.federation

    @property
    def threads(self) -> Threads:
        return self._world.engine.threads

    def add_file(self, *, workspace: str, filename: str, content: bytes) -> str:
        """A file as if a tool had made it: such can be downloaded. Returns its id."""
        return files.add_made_file(self._world, workspace, filename, content)

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, public_url: str | None = None) -> str:
        """Listen; returns the base URL. Port 0 takes a free one. `public_url` is what a batch's
        `results_url` begins with, where `host` is not what clients can reach (0.0.0.0 in a container)."""
        runner = web.AppRunner(
            _application(self._world),
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            shutdown_timeout=0.2,
        )
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        self._runner = runner
        bound = runner.addresses[0]
        self.url = f"http://{host}:{bound[1]}"
        self._world.base_url = (public_url or self.url).rstrip("/")
        return self.url

    async def idle(self, timeout_seconds: float = 30.0) -> None:
        """Until no request is being served, so that records and bill are final. Raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            await self._world.records.idle.wait()

    async def stop(self) -> None:
        """Close the port and every connection. Records and bill stay readable."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def run_simulator(
    host: str = "127.0.0.1",
    port: int = 8900,
    *,
    pacing: Pacing | None = None,
    seed: int = 0,
    credentials: Mapping[str, str | Sequence[str]] | None = None,
    tier: str = "scale",
    enforce_limits: bool = False,
    faults: Sequence[Fault] = (),
    public_url: str | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled: the body of `gateway simulate`. `started` is told the URL."""
    simulator = Simulator(
        pacing=pacing or Pacing.realistic(),
        seed=seed,
        credentials=credentials,
        tier=tier,
        enforce_limits=enforce_limits,
        batch_seconds=2.0,
    )
    for fault in faults:
        simulator.faults.add(fault)
    url = await simulator.start(host, port, public_url=public_url)
    try:
        if started is not None:
            started(url)
        await asyncio.Event().wait()
    finally:
        await simulator.stop()


def _application(world: World) -> web.Application:
    app = web.Application(client_max_size=520 * _MEGABYTE, middlewares=[_through(world)])
    app.on_response_prepare.append(_headers_of(world))
    routes: list[tuple[str, str, control.Endpoint]] = [
        ("HEAD", "/", _root),
        ("POST", "/v1/messages/count_tokens", _count_tokens),
        ("GET", "/v1/models", _list_models),
        ("GET", "/v1/models/{id}", _get_model),
        *batches.ROUTES,
        *files.ROUTES,
        *reports.ROUTES,
        *federation.ROUTES,
        *control.ROUTES,
    ]
    for method, path, endpoint in routes:
        app.router.add_route(method, path, _bound(endpoint, world))
    app.router.add_route("POST", "/v1/messages", _bound(_create_message, world))
    return app


def _bound(
    endpoint: control.Endpoint, world: World
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        return await endpoint(world, request, request[_RECEIVED])

    return serve


def _through(world: World) -> Callable[..., Awaitable[web.StreamResponse]]:
    """What every request passes: recording, its fault if one is armed, the error envelope."""

    @web.middleware
    async def through(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        received = _received(world, request)
        request[_RECEIVED] = received
        watched = not request.path.startswith("/_sim/")
        if watched:
            world.records.add(received)
        try:
            received.body = await _read_body(request)
            response = await _answered(world, request, received, handler)
        except ApiError as error:
            response = _error_response(error, received.request_id)
        except web.HTTPException as error:
            response = _error_response(_as_api_error(error, request), received.request_id)
        except asyncio.CancelledError:
            _left(received)
            raise
        except ConnectionError:
            _left(received)
            response = web.Response()  # nobody reads it; raised on, it would be logged as a fault
        finally:
            if watched:
                world.records.close(received, world.clock.now())
        if received.ended == "open":
            received.ended = "complete"
        return response

    return through


def _left(received: Received) -> None:
    if received.ended == "open":
        received.ended = "client_left"


def _received(world: World, request: web.Request) -> Received:
    return Received(
        request_id=world.next_id("req_"),
        method=request.method,
        target=request.raw_path,
        headers=tuple(request.raw_headers),
        received_at=world.clock.now(),
    )


async def _read_body(request: web.Request) -> bytes:
    """The raw body, within the endpoint's size (errors page, 2026-08-21)."""
    megabytes = 32
    if request.path.startswith("/v1/messages/batches"):
        megabytes = 256
    elif request.path.startswith("/v1/files"):
        megabytes = 500
    announced = request.content_length or 0
    body = b"" if announced > megabytes * _MEGABYTE else await request.read()
    if max(announced, len(body)) > megabytes * _MEGABYTE:
        raise ApiError(413, "request_too_large", "Request exceeds the maximum size")
    return body


async def _answered(
    world: World,
    request: web.Request,
    received: Received,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Strike with an armed fault as far as it comes before the response's head; else serve."""
    fault = control.struck(world, request, received)
    if fault is None:
        return await handler(request)
    received.fault = fault.kind.value
    if fault.kind is FaultKind.STATUS:
        raise fault.error()
    if fault.kind is FaultKind.STALL:
        await pause(_STALL_WITHOUT_END if fault.seconds is None else fault.seconds)
    elif fault.kind is FaultKind.CUT and fault.at_event is None and not fault.processed:
        return hang_up(request, received, fault)
    if request.path == "/v1/messages" and request.method == "POST":
        return await create_message(world, request, received, fault)
    return await handler(request)


def _error_response(error: ApiError, request_id: str) -> web.Response:
    if error.html is not None:
        return web.Response(
            status=error.status, text=error.html, content_type="text/html", headers=error.headers
        )
    return web.Response(
        status=error.status,
        body=dump(error.envelope(request_id)),
        headers={"content-type": "application/json", **error.headers},
    )


def _as_api_error(error: web.HTTPException, request: web.Request) -> ApiError:
    if error.status == 413:
        return ApiError(413, "request_too_large", "Request exceeds the maximum size")
    if error.status in (404, 405):
        return (
            not_found("Not Found")
            if error.status == 404
            else ApiError(405, "invalid_request_error", f"Method {request.method} not allowed")
        )
    return ApiError(error.status, "api_error", error.reason)


def _headers_of(world: World) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """The headers of every response (errors, rate limits and workspaces pages, 2026-08-21)."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        received = request.get(_RECEIVED)
        if received is None:
            return
        if received.ended != "cut":
            received.status = response.status
        response.headers["request-id"] = received.request_id
        response.headers["anthropic-organization-id"] = ORGANIZATION_ID
        if received.workspace is not None:
            response.headers["anthropic-workspace-id"] = received.workspace
        row = find_model(received.model) if received.model else None
        if row is not None:
            response.headers.update(world.limits.headers(row, world.clock.now()))

    return add


async def _root(_world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    return web.Response()


async def _create_message(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    return await create_message(world, request, received, None)


async def _count_tokens(world: World, _request: web.Request, received: Received) -> web.StreamResponse:
    return await count_tokens(world, received)


async def _list_models(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    world.caller(received)
    query = request.query
    stages = [*query.getall("lifecycle", []), *query.getall("lifecycle[]", [])]
    found = models.list_models(query.get("limit"), query.get("after_id"), query.get("before_id"), stages)
    return _json(found)


async def _get_model(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    world.caller(received)
    return _json(models.get_model(request.match_info["id"]))


def _json(value: JsonObject) -> web.Response:
    return web.Response(body=dump(value), content_type="application/json")
