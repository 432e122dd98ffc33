"""Probes: is the process alive, may it get traffic, has it started.

Upstream's health is never part of them: one bad hour there would empty the service of all its replicas. The
store counts for readiness only where a limit refuses while the store is away, and until keys and adjustments
were read once. Nothing here is protected by a token, and nothing here tells more than which of these
conditions does not hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

PROBE_PATHS = frozenset({"/livez", "/readyz", "/startupz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What readiness depends on, as callables that neither block nor raise; `ping_store` may raise."""

    started: Callable[[], bool]
    """Whether the configuration is loaded and the data plane listens."""
    draining: Callable[[], bool]
    unread: Callable[[], list[str]] = list
    """What could not be read since the start, and calls wait for: `keys`, `adjustments`."""
    store_needed: Callable[[], bool]
    """Whether some enforced limit refuses while the store cannot serve."""
    ping_store: Callable[[], Awaitable[None]]
    """Returns if the store can serve and be written; anything it raises counts as no."""
    store_timeout_seconds: float = 1.0


def add_probes(app: web.Application, conditions: Conditions) -> None:
    """Routes for `PROBE_PATHS`; HEAD works as GET does."""

    async def livez(request: web.Request) -> web.Response:
        # That the event loop came to run this is all there is to say.
        return _answer([])

    async def startupz(request: web.Request) -> web.Response:
        return _answer([] if conditions.started() else ["starting"])

    async def readyz(request: web.Request) -> web.Response:
        return _answer(await unmet(conditions))

    app.router.add_get("/livez", livez)
    app.router.add_get("/startupz", startupz)
    app.router.add_get("/readyz", readyz)


async def unmet(conditions: Conditions) -> list[str]:
    """The conditions of readiness that do not hold: `starting`, `draining`, what is unread, `store`."""
    failing = []
    if not conditions.started():
        failing.append("starting")
    if conditions.draining():
        failing.append("draining")
    if failing:
        return failing
    failing += conditions.unread()
    if conditions.store_needed() and not await _store_serves(conditions):
        failing.append("store")
    return failing


async def _store_serves(conditions: Conditions) -> bool:
    try:
        async with asyncio.timeout(conditions.store_timeout_seconds):
            await conditions.ping_store()
    except Exception:
        return False
    return True


def _answer(failing: list[str]) -> web.Response:
    body = {"status": "unavailable", "failing": failing} if failing else {"status": "ok"}
    return web.json_response(body, status=503 if failing else 200, headers={"cache-control": "no-store"})
