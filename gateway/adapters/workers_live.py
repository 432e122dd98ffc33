"""The live calls of all workers of one machine: each tells the others its own when it is asked.

Asking is connecting: the answer is what `live_calls.py` has, whole, and then the end. Alone there is nobody
to ask. Whoever does not answer in time is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from gateway.adapters.live_calls import LiveCalls
from gateway.core.live import Told, merged
from gateway.core.worker import Worker

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
MAX_BYTES = 64 << 20


class _Answer(msgspec.Struct, frozen=True):
    told: Told
    last_used: dict[str, float]


class WorkersLive:
    """`own` and those of the others. `start` it to let them ask; `close` it at the end."""

    def __init__(self, own: LiveCalls, worker: Worker | None) -> None:
        self._own = own
        self._worker = worker
        self._server: asyncio.Server | None = None
        self._heard: dict[str, float] = {}

    async def start(self) -> None:
        """Raises OSError."""
        if self._worker is not None:
            self._server = await asyncio.start_unix_server(self._tell, self._worker.live_socket)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def told(self) -> Told:
        """The calls of all of them."""
        own = self._own.told()
        if self._worker is None:
            return own
        answers = await asyncio.gather(*map(_ask, self._worker.other_live_sockets))
        others = [each for each in answers if each is not None]
        for each in others:
            _newest(self._heard, each.last_used)
        return merged([own, *(each.told for each in others)])

    @property
    def last_used(self) -> Mapping[str, float]:
        """When each key last sent a call, epoch seconds by id; what the others had of it when `told` was
        last asked for."""
        return MappingProxyType(_newest({**self._own.last_used}, self._heard))

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = _Answer(told=self._own.told(), last_used=dict(self._own.last_used))
            writer.write(msgspec.msgpack.encode(answer))
            await writer.drain()
        except ConnectionError:
            pass  # who asked has left
        finally:
            writer.close()


async def _ask(path: str) -> _Answer | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_BYTES)
            with contextlib.closing(writer):
                return msgspec.msgpack.decode(await reader.read(), type=_Answer)
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        log.info("a worker does not say which calls it has: %s", error or type(error).__name__)
        return None


def _newest(into: dict[str, float], more: Mapping[str, float]) -> dict[str, float]:
    for key_id, at in more.items():
        into[key_id] = max(at, into.get(key_id, 0.0))
    return into
