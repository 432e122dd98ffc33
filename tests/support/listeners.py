"""A listener with a handler of the test's own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.web.listener import ClientReply, InboundRequest, Listener, ListenerLimits, read_body


@asynccontextmanager
async def listening(
    handle: object, limits: ListenerLimits | None = None
) -> AsyncIterator[tuple[Listener, int]]:
    numbers = itertools.count(1)
    listener = Listener(handle, new_id=lambda: f"req_test{next(numbers)}", limits=limits)  # type: ignore[arg-type]
    port = await listener.start("127.0.0.1", 0)
    try:
        yield listener, port
    finally:
        await listener.close(2)


async def emptied(listener: Listener) -> None:
    """Until no connection is open."""
    async with asyncio.timeout(20):
        while listener.open:  # noqa: ASYNC110  # the listener offers no event for it
            await asyncio.sleep(0.01)


async def echo(request: InboundRequest, reply: ClientReply) -> None:
    """Answers with what it was asked: method, target, body."""
    body = await read_body(request, limit_bytes=1_000_000, timeout_seconds=5)
    data = b"%b %b %b" % (request.method.encode(), request.target.encode(), body.data)
    reply.start(200, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(data))])
    reply.write(data)
    reply.finish()
