"""A receiver of webhooks on loopback that does as it is told: answers, redirects, hangs, closes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

HANG, CLOSE, REDIRECT, HUGE = "hang", "close", "redirect", "huge"
SECRET = "sk-test-webhook-secret"


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_signed(self, secret: str = SECRET) -> bool:
        """As docs/alerts.md tells receivers to check, in code of its own."""
        parts = dict(part.split("=", 1) for part in self.headers["x-gateway-signature"].split(","))
        signed = parts["t"].encode() + b"." + self.body
        return hmac.compare_digest(hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(), parts["v1"])


@dataclass
class Receiver:
    """`script` says what the next requests get; 200 once it is used up."""

    url: str = ""
    script: list[int | str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path_qs, headers, await request.read()))
        self.arrived.set()
        what = self.script.pop(0) if self.script else 200
        if what == HANG:
            await self.let_go.wait()
        elif what == CLOSE:
            assert request.transport is not None
            request.transport.abort()
        elif what == REDIRECT:
            return web.Response(status=307, headers={"location": f"{self.url}/elsewhere"})
        elif what == HUGE:
            return web.Response(body=b"x" * 1_000_000)
        return web.Response(status=what if isinstance(what, int) else 200, text="ok")


@asynccontextmanager
async def a_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        await runner.cleanup()
