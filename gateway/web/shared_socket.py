"""Accepting connections from a listening socket that several processes share.

A connection that no process has accepted yet belongs to none: when one of them dies or hangs, the others take
what it would have taken. But whoever wakes up first would take all that wait, and keep them for as long as
their clients keep connections open; so each takes a few, and lets the others have a turn.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

TURN_SECONDS = 0.001
MOST_AT_ONCE = 64
"""In one turn, where many wait: a thousand clients that come back at once are served within moments."""
TROUBLE_SECONDS = 1.0
"""Until the next attempt, where the system has no descriptors left."""


class SharedSocket:
    """Hands connections to protocols that `make` makes, from construction on until it is closed."""

    def __init__(self, listening: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        listening.setblocking(False)
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._connecting = TaskSet()
        self._at_once = 1
        self._pause: asyncio.TimerHandle | None = None
        self._watch()

    def close(self) -> None:
        """Accept no more. The other processes go on."""
        if self._listening.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._listening, self._take)

    def _take(self) -> None:
        """One turn, and then a pause that is the others' turn."""
        self._loop.remove_reader(self._listening)
        pause, taken = TURN_SECONDS, 0
        try:
            while taken < self._at_once:
                connection, _ = self._listening.accept()
                connection.setblocking(False)
                taken += 1
                self._connecting.spawn(self._connect(connection), "accepting a connection")
        except (BlockingIOError, ConnectionAbortedError):
            pass  # another process took it, or its client has left
        except OSError as error:
            log.error("a connection could not be accepted: %s", error)
            pause = TROUBLE_SECONDS
        self._at_once = min(2 * self._at_once, MOST_AT_ONCE) if taken == self._at_once else 1
        self._pause = self._loop.call_later(pause, self._watch)

    async def _connect(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._make, connection)
