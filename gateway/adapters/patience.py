"""A deadline for an answer from elsewhere that this process's own troubles do not use up.

A process can stand still for a second (the machine had other work, or was moved to another host), or be so
busy that its loop takes long to come round. The answer came meanwhile and lies in a socket, but timers are
looked at before sockets are. Nothing here knows who answers.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

LOOKS: Final = 8
"""So often at least the loop looks at its sockets before it is given up; an answer that needs a few round
trips is not late because each of them waits for a busy loop."""


class Patience:
    """`asyncio.timeout`: raises `TimeoutError` after so many seconds of a loop that comes round in time, and
    later where it does not."""

    __slots__ = ("_due", "_each_seconds", "_left", "_loop", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._each_seconds = seconds / LOOKS
        self._left = LOOKS
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._due = self._loop.time() + self._each_seconds
        self._timer = self._loop.call_at(self._due, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _look(self) -> None:
        self._left -= 1
        if self._left:  # a look that was late delays the next one only where there would be none in between
            now = self._loop.time()
            self._due = max(self._due + self._each_seconds, now + self._each_seconds / 2)
            self._timer = self._loop.call_at(self._due, self._look)
        else:  # takes effect after whoever was woken by what was read
            self._timeout.reschedule(self._loop.time())
