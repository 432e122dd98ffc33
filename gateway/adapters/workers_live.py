"""The live calls of all workers of one machine: each tells the others its own when it is asked.

Asking is connecting: the answer is what `live_calls.py` has, whole, and then the end. Alone there is nobody
to ask. Whoever does not answer in time is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from gateway.adapters.live_calls import LiveCalls
from gateway.core.live import LiveCall
from gateway.core.worker import Worker

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
MAX_BYTES = 64 << 20


class _Told(msgspec.Struct, frozen=True):
    calls: list[LiveCall]
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

    async def calls(self) -> Sequence[LiveCall]:
        """Those that are open, the longest first; then those that ended lately, the last first."""
        own = self._own.calls()
        if self._worker is None:
            return own
        told = await asyncio.gather(*map(_ask, self._worker.other_live_sockets))
        others = [each for each in told if each is not None]
        for each in others:
            _newest(self._heard, each.last_used)
        return merged([own, *(each.calls for each in others)])

    @property
    def last_used(self) -> Mapping[str, float]:
        """When each key last sent a call, epoch seconds by id; what the others had of it when `calls` was
        last asked for."""
        return MappingProxyType(_newest({**self._own.last_used}, self._heard))

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            told = _Told(calls=self._own.calls(), last_used=dict(self._own.last_used))
            writer.write(msgspec.msgpack.encode(told))
            await writer.drain()
        except ConnectionError:
            pass  # who asked has left
        finally:
            writer.close()


def merged(lists: Iterable[Sequence[LiveCall]]) -> list[LiveCall]:
    """One list in the order of each of them."""
    calls = [call for each in lists for call in each]
    opened = sorted((call for call in calls if call.open), key=lambda call: -call.duration_seconds)
    ended = sorted(
        (call for call in calls if not call.open), key=lambda call: -call.received_at - call.duration_seconds
    )
    return [*opened, *ended]


async def _ask(path: str) -> _Told | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_BYTES)
            with contextlib.closing(writer):
                return msgspec.msgpack.decode(await reader.read(), type=_Told)
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        log.info("a worker does not say which calls it has: %s", error or type(error).__name__)
        return None


def _newest(into: dict[str, float], more: Mapping[str, float]) -> dict[str, float]:
    for key_id, at in more.items():
        into[key_id] = max(at, into.get(key_id, 0.0))
    return into
