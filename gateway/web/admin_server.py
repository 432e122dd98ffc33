"""The admin plane's server: aiohttp's, within bounds. So many connections, so much time for a head and for
taking an answer, and a log that repeats nothing of what was sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

log = logging.getLogger(__name__)

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_CONNECTIONS: Final = 256
"""To the admin plane at a time: open files are what calls need, too. Beyond it, who has waited longest
without asking for anything makes room, so that probes get in however many connections others leave open."""
HEAD_SECONDS: Final = 75.0
"""From connecting, or from an answer, to the end of the next head; longer than load balancers keep idle
connections, which must not be closed while they use them."""
SLOW_CLIENT_SECONDS: Final = 60.0
"""While a client takes so little of its answer that its buffer stays full."""
CLOSING_SECONDS: Final = 1.0
"""For answers that are under way when the plane closes."""


class AdminServer:
    """Serves `app`. `most_connections`: None where another server stands in front, and bounds them. Not
    `unpacks`: bodies stay in their content encoding, to be passed on."""

    def __init__(
        self,
        app: web.Application,
        *,
        most_connections: int | None = MAX_CONNECTIONS,
        unpacks: bool = True,
    ) -> None:
        self._most = most_connections
        self._unpacks = unpacks
        self._open: set[_Connection] = set()
        self._waiting: dict[_Connection, None] = {}
        """Those that nothing is being done for, the longest first."""
        self._listening: asyncio.Server | None = None
        app.middlewares.insert(0, self._noting())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSING_SECONDS)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError where the address is taken."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._connection, host, port)
        bound: int = self._listening.sockets[0].getsockname()[1]
        return bound

    async def start_unix(self, path: str) -> None:
        """Listen on a socket in the file system."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_unix_server(self._connection, path)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    # The connections' side

    def arrived(self, connection: _Connection) -> None:
        if self._most is not None and len(self._open) >= self._most:
            oldest = next(iter(self._waiting), connection)  # where all others are served: it
            oldest.cut()
            self.left(oldest)
            if oldest is connection:
                return
        self._open.add(connection)
        self._waiting[connection] = None

    def left(self, connection: _Connection) -> None:
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    # Within

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        return _Connection(self, server, unpacks=self._unpacks)

    def _noting(self) -> Middleware:
        @web.middleware
        async def noting(request: web.Request, handler: _Next) -> web.StreamResponse:
            connection = cast(_Connection, request.protocol)
            self._waiting.pop(connection, None)
            try:
                return await handler(request)
            finally:
                if connection in self._open:
                    self._waiting[connection] = None

        return noting


class _Connection(web.RequestHandler):
    __slots__ = ("_owner", "_socket", "_stuck")

    def __init__(self, owner: AdminServer, server: web.Server, *, unpacks: bool) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=HEAD_SECONDS,
            logger=_TOLD,
            access_log=None,  # type: ignore[arg-type]  # as `AppRunner` takes it
            auto_decompress=unpacks,
        )
        self._owner = owner
        self._socket: asyncio.Transport | None = None
        """Known here for as long as it is open; aiohttp forgets it when it closes it, with bytes to send."""
        self._stuck: asyncio.TimerHandle | None = None

    def cut(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket = cast(asyncio.Transport, transport)
        self._owner.arrived(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._socket = None
        self._take_back()
        self._owner.left(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = asyncio.get_running_loop().call_later(SLOW_CLIENT_SECONDS, self.cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_back()

    def _take_back(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    """Of a request that cannot be read, the errors' kinds: their texts quote heads and bodies, and what was
    meant for a person or a program with the admin token holds that."""
    error = record.exc_info[1] if record.exc_info else None
    kinds: list[type[BaseException]] = []
    while error is not None and type(error) not in kinds:
        kinds.append(type(error))
        error = error.__cause__ or error.__context__
    if any(issubclass(kind, HttpProcessingError | web.RequestPayloadError) for kind in kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        record.msg, record.args = f"{record.getMessage()}: {names}", ()
        record.exc_info = record.exc_text = None
    return True


_TOLD: Final = logging.getLogger(f"{__name__}.requests")
_TOLD.addFilter(_without_what_was_sent)
