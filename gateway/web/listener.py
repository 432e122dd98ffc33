"""The data plane's server end: listening sockets, and one look a second at every connection.

aiohttp's C parser reads requests, and with it come its strictness and its limits; `connection.py` does what
is left of a server's work with one task per request. Answers are written by `client_reply.py`, bodies read by
`request_body.py`. `handle` gets an `InboundRequest` and a `ClientReply`, and is cancelled when the client
leaves before its answer is complete.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from gateway.core.exchange import DRAINING
from gateway.web.client_reply import ClientReply
from gateway.web.connection import Connection, Handle
from gateway.web.inbound import InboundRequest, ListenerLimits
from gateway.web.request_body import RelayedBody, read_body
from gateway.web.shared_socket import SharedSocket

__all__ = ["ClientReply", "InboundRequest", "Listener", "ListenerLimits", "RelayedBody", "read_body"]


class Listener:
    """Accepts connections and runs `handle` for each request. `new_id` names answers that are made here."""

    def __init__(
        self, handle: Handle, *, new_id: Callable[[], str], limits: ListenerLimits | None = None
    ) -> None:
        self.handle = handle
        self.new_id = new_id
        self.limits = limits or ListenerLimits()
        self.accepting = False
        self.open: set[Connection] = set()
        self._server: asyncio.Server | SharedSocket | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        backlog: int = 2_048,
    ) -> int:
        """Listen; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, loop),
            host,
            port,
            ssl=tls,
            reuse_port=reuse_port or None,
            reuse_address=True,
            backlog=backlog,
        )
        self._begin()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def start_shared(self, listening: socket.socket) -> int:
        """Take connections from a socket that other processes listen on, too, and close it at the end;
        returns the port."""
        loop = asyncio.get_running_loop()
        self._server = SharedSocket(listening, lambda: Connection(self, loop))
        self._begin()
        return self._server.port

    def unfinished(self) -> int:
        """How many connections have an answer in the making, or on its way out."""
        return sum(connection.unfinished for connection in self.open)

    def announce(self) -> None:
        """Go on serving, and let every answer say `connection: close`, so that clients go elsewhere."""
        self.accepting = False

    def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections."""
        self.announce()
        if self._server is not None:
            self._server.close()
        for connection in list(self.open):
            connection.retire()

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Stop accepting, cancel what still runs (with `DRAINING` as message), cut what is still open."""
        self.stop_accepting()
        tasks = [connection.cancel(DRAINING) for connection in list(self.open)]
        running = [task for task in tasks if task is not None]
        if running:
            await asyncio.wait(running, timeout=timeout_seconds)
        for connection in list(self.open):
            connection.cut()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self.accepting = True
        self._interval = min(1.0, self.limits.head_seconds / 4, self.limits.idle_seconds / 4)
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            for connection in list(self.open):
                connection.judge(now)
        finally:
            self._timer = loop.call_later(self._interval, self._look)
