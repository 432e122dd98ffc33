"""The transport alone: listener and upstream with nothing between them. The bench's second row.

    python -m tests.bench.passthrough UPSTREAM_BASE_URL [PORT]

Prints the port that it listens on. Reads each body whole, as the gateway does for what it meters.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from gateway.adapters.claude import ClaudeUpstream
from gateway.core.headers import request_headers, response_headers
from gateway.core.rules import Route
from gateway.ports import Upstream, UpstreamRequest
from gateway.web.listener import ClientReply, InboundRequest, Listener, read_body
from gateway.web.malloc import keep_freed_memory


class Passthrough:
    def __init__(self, upstream: Upstream, route: Route) -> None:
        self._upstream = upstream
        self._route = route

    async def handle(self, request: InboundRequest, reply: ClientReply) -> None:
        body = await read_body(request, limit_bytes=32 * 2**20, timeout_seconds=60)
        outgoing = UpstreamRequest(
            method=request.method,
            target=request.target,
            headers=request_headers(request.headers, decoded=body.decoded, identity=True),
            route=self._route,
            body=(body.data,) if body.data else (),
        )
        opening = self._upstream.open(outgoing)
        del body, outgoing
        async with opening as answer:
            reply.start(answer.status, response_headers(answer.headers))
            while not await answer.pump(reply.write):
                await reply.drained()
        reply.finish()


async def main() -> None:
    route = Route(name="bench", base_url=sys.argv[1], credential=lambda: ())
    upstream = ClaudeUpstream()
    listener = Listener(Passthrough(upstream, route).handle, new_id=lambda: "req_bench")
    port = await listener.start("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    keep_freed_memory()
    gc.freeze()
    uvloop.run(main())
