"""A TCP proxy that spoils connections on purpose: delays, cuts, corrupts, throttles, either direction.

It knows nothing of HTTP; byte counts are per connection and direction.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType


class Cut(Enum):
    FIN = "fin"
    """Close this direction's receiver in order."""
    RESET = "reset"
    STALL = "stall"
    """Pass nothing more, close nothing."""
    HALF_CLOSE = "half_close"
    """End this direction only."""


@dataclass(slots=True, kw_only=True)
class Spoil:
    """What to do to one direction. `cut_at`, `corrupt_at`: byte offsets."""

    delay_seconds: float = 0.0
    cut_at: int | None = None
    cut: Cut = Cut.FIN
    corrupt_at: int | None = None
    bytes_per_second: int | None = None
    passed: int = 0


@dataclass(slots=True)
class _Pair:
    inner: asyncio.StreamWriter
    outer: asyncio.StreamWriter


@dataclass(slots=True)
class ChaosProxy:
    """Stands before `port`. `to_server` and `to_client` say how each new connection is spoilt."""

    port_behind: int
    to_server: Spoil = field(default_factory=Spoil)
    to_client: Spoil = field(default_factory=Spoil)
    connections: int = 0
    _server: asyncio.Server | None = None
    _pairs: list[_Pair] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> ChaosProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for pair in self._pairs:
            pair.inner.transport.abort()
            pair.outer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", self.port_behind)
        self._pairs.append(_Pair(behind, writer))
        async with asyncio.TaskGroup() as group:
            group.create_task(_carry(reader, behind, writer, self.to_server))
            group.create_task(_carry(behind_reader, writer, behind, self.to_client))


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, other: asyncio.StreamWriter, spoil: Spoil
) -> None:
    passed = 0
    with suppress(ConnectionError):
        while data := await source.read(65536 if spoil.bytes_per_second is None else 256):
            if spoil.delay_seconds:
                await asyncio.sleep(spoil.delay_seconds)
            if spoil.corrupt_at is not None and passed <= spoil.corrupt_at < passed + len(data):
                at = spoil.corrupt_at - passed
                data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            cut_here = spoil.cut_at is not None and passed + len(data) >= spoil.cut_at
            if cut_here and spoil.cut_at is not None:
                data = data[: spoil.cut_at - passed]
            target.write(data)
            await target.drain()
            passed += len(data)
            spoil.passed = max(spoil.passed, passed)
            if cut_here:
                await _cut(spoil.cut, target, other)
                return
            if spoil.bytes_per_second is not None:
                await asyncio.sleep(len(data) / spoil.bytes_per_second)
        if target.can_write_eof():
            target.write_eof()


async def _cut(how: Cut, target: asyncio.StreamWriter, other: asyncio.StreamWriter) -> None:
    if how is Cut.STALL:
        await asyncio.Event().wait()
    elif how is Cut.HALF_CLOSE:
        target.write_eof()
    elif how is Cut.RESET:
        sock = target.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        target.transport.abort()
        other.close()
    else:
        target.close()
        other.close()
