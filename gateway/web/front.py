"""The admin plane of several workers: one address for all of them.

Probes and metrics are answered from all; everything else (the admin API, the page) goes to one worker as it
came, always to the same as long as that answers, so that what one process keeps of a session is found again.
Who may ask is the workers' own decision: what they are asked on somebody's behalf carries that one's headers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import HttpVersion11, web
from yarl import URL

from gateway.web.admin_body import UNREADABLE
from gateway.web.health import PROBE_PATHS
from gateway.web.merged_metrics import WorkersMetrics

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 2.0
METRICS_SECONDS: Final = 5.0
_HOP_BY_HOP: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    )
)
_REPEATABLE: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """One worker as it is now."""

    number: int
    process: int
    session: aiohttp.ClientSession
    """Reaches its admin plane, whatever host is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number of the supervisor's own, by worker."""

    name: str
    kind: str
    help: str
    values: Callable[[], dict[int, int]]


def open_session(socket_path: str) -> aiohttp.ClientSession:
    """To a worker's admin plane."""
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(socket_path, limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=PROBE_SECONDS),
        auto_decompress=False,
        skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
    )


class Front:
    """`app` answers. `workers` are those that run; `draining`: whether all of them go away."""

    def __init__(
        self,
        workers: Callable[[], Sequence[Behind]],
        metrics: WorkersMetrics,
        *,
        counts: Sequence[Count] = (),
        draining: Callable[[], bool],
    ) -> None:
        self._workers = workers
        self._metrics = metrics
        self._counts = counts
        self._draining = draining
        self._reading = asyncio.Lock()
        self.app = web.Application()
        self.app.router.add_get("/livez", self._livez)
        for path in PROBE_PATHS - {"/livez"}:
            self.app.router.add_get(path, self._probe)
        self.app.router.add_get("/metrics", self._page)
        self.app.router.add_route("*", "/{path:.*}", self._relay)

    async def _livez(self, request: web.Request) -> web.Response:
        # The supervisor lives, and replaces workers that do not: a restart of all would help nobody.
        return _said(200, {"status": "ok"})

    async def _probe(self, request: web.Request) -> web.Response:
        """As soon as one worker may get traffic the gateway may: connections come to those that take them."""
        if self._draining():
            return _said(503, {"status": "unavailable", "failing": ["draining"]})
        answers = await asyncio.gather(*(_ask(each, request, PROBE_SECONDS) for each in self._workers()))
        found = sorted((answer for answer in answers if answer is not None), key=lambda answer: answer.status)
        if not found:
            return _said(503, {"status": "unavailable", "failing": ["workers"]})
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        return web.Response(status=found[0].status, body=found[0].body, headers=headers)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        async with self._reading:
            workers = self._workers()
            pages = await asyncio.gather(*(_ask(each, request, METRICS_SECONDS) for each in workers))
            alive = set()
            content_type = ""
            for worker, page in zip(workers, pages, strict=True):
                if page is None:
                    continue
                if page.status != 200:  # it is not for whoever asks
                    return web.Response(status=page.status, body=page.body, headers=page.headers)
                alive.add(worker.number)
                content_type = page.headers["content-type"]
                await asyncio.to_thread(self._metrics.read, worker.number, worker.process, page.body.decode())
            if not alive:
                return _error(503, "No worker of this gateway answers; they are being replaced.")
            text = await asyncio.to_thread(self._metrics.render, alive)
        openmetrics = content_type.startswith("application/openmetrics-text")
        own = "".join(_written(count, openmetrics=openmetrics) for count in self._counts)
        response = web.Response(
            body="".join((own, text, "# EOF\n" if openmetrics else "")).encode(),
            headers={
                "content-type": content_type,
                "cache-control": "no-store",
                "vary": "accept, accept-encoding",
            },
        )
        response.enable_compression()
        return response

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        for worker in self._workers():
            try:
                async with worker.session.request(
                    request.method,
                    URL(f"http://gateway{request.raw_path}", encoded=True),
                    headers=_asked(request),
                    data=request.content if request.body_exists else None,
                    allow_redirects=False,
                ) as answer:
                    return await _pass_on(request, answer)
            except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as error:
                log.warning("worker %d does not answer on its admin plane: %s", worker.number, error)
                if request.method not in _REPEATABLE and not isinstance(error, aiohttp.ClientConnectorError):
                    return _error(502, "The worker that was asked died; whether it did this is not known.")
            except aiohttp.ClientOSError:
                if request.content.exception() is None:
                    raise
                return _error(400, UNREADABLE)  # what the client sends, and not the way to the worker
        return _error(503, "No worker of this gateway answers; they are being replaced.")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def _ask(worker: Behind, request: web.Request, seconds: float) -> _Answer | None:
    """What a worker answers to this, uncompressed; None where it does not in time."""
    headers = [(name, value) for name, value in _asked(request) if name.lower() != "accept-encoding"]
    try:
        async with (
            asyncio.timeout(seconds),
            worker.session.get(f"http://gateway{request.path}", headers=headers) as answer,
        ):
            kept = ("content-type", "www-authenticate")
            said = {name: answer.headers[name] for name in kept if name in answer.headers}
            return _Answer(answer.status, said, await answer.read())
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in _end_to_end(answer.headers.items()):
        response.headers.add(name, value)
    await response.prepare(request)
    async for piece in answer.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response


def _asked(request: web.Request) -> list[tuple[str, str]]:
    """Headers that a worker is asked with. It is asked by HTTP/1.1 always, and takes HTTP/1.0 for a sign that
    a proxy passes this on: a header tells it."""
    headers = _end_to_end(request.headers.items())
    return [*headers, ("via", "1.0 front")] if request.version < HttpVersion11 else headers


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def _written(count: Count, *, openmetrics: bool) -> str:
    name = count.name.removesuffix("_total") if openmetrics else count.name
    head = f"# HELP {name} {count.help}\n# TYPE {name} {count.kind}\n"
    samples = (f'{count.name}{{worker="{worker}"}} {value}\n' for worker, value in count.values().items())
    return head + "".join(samples)


def _said(status: int, body: dict[str, object]) -> web.Response:
    return web.json_response(body, status=status, headers={"cache-control": "no-store"})


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"status": status, "message": message}}, status=status)
