"""A TCP proxy that spoils connections on purpose: delays, cuts, corrupts, throttles, either direction.

It knows nothing of HTTP. Byte counts are per connection and direction, or from bytes on that a test names: an
event's end, a request's mark.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
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
    """What to do to one direction. `cut_at`, `corrupt_at`: byte offsets, which count from the end of the
    `occurrence`th `after`, where there is one."""

    delay_seconds: float = 0.0
    cut_at: int | None = None
    cut: Cut = Cut.FIN
    corrupt_at: int | None = None
    bytes_per_second: int | None = None
    after: bytes = b""
    occurrence: int = 1
    passed: int = 0


Spoils = tuple[Spoil, Spoil]
"""To the server, to the client."""


@dataclass(slots=True)
class _Pair:
    inner: asyncio.StreamWriter
    outer: asyncio.StreamWriter


@dataclass(slots=True)
class ChaosProxy:
    """Stands before `port`. `to_server` and `to_client` say how each new connection is spoilt; `each` says so
    for the n-th one, from 1.

    `marked`: a connection over which a client sends these bytes is spoilt so from then on, counting from the
    end of the mark in its direction, and from the next byte in the other."""

    port_behind: int
    to_server: Spoil = field(default_factory=Spoil)
    to_client: Spoil = field(default_factory=Spoil)
    each: Callable[[int], Spoils] | None = None
    marked: dict[bytes, Spoils] = field(default_factory=dict)
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
        spoils = self.each(self.connections) if self.each else (self.to_server, self.to_client)
        to_server, to_client = _Lane(spoils[0]), _Lane(spoils[1])
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", self.port_behind)
        self._pairs.append(_Pair(behind, writer))
        tail = b""

        def look(data: bytes) -> None:
            nonlocal tail
            seen = tail + data
            for mark, (ahead, back) in self.marked.items():
                if (at := seen.find(mark)) >= 0 and at + len(mark) > len(tail):
                    to_server.begin(ahead, after=at + len(mark) - len(tail))
                    to_client.begin(back)
            tail = seen[-_LONGEST_MARK:]

        async with asyncio.TaskGroup() as group:
            group.create_task(_carry(reader, behind, writer, to_server, look))
            group.create_task(_carry(behind_reader, writer, behind, to_client))


_LONGEST_MARK = 64


class _Lane:
    """One direction of one connection: where in it its spoil strikes."""

    def __init__(self, spoil: Spoil) -> None:
        self.passed = 0
        self.begin(spoil)

    def begin(self, spoil: Spoil, after: int = 0) -> None:
        """From now on, counting from `after` bytes on."""
        self.spoil = spoil
        self._origin: int | None = None if spoil.after else self.passed + after
        self._seen = 0
        self._tail = b""

    def find(self, data: bytes) -> tuple[int | None, int | None]:
        """Where in this piece, or behind it, to cut and to corrupt; None: not yet known, or never."""
        if self._origin is None:
            self._look(data)
        if self._origin is None:
            return None, None
        here = self._origin - self.passed
        cut, corrupt = self.spoil.cut_at, self.spoil.corrupt_at
        return None if cut is None else here + cut, None if corrupt is None else here + corrupt

    def _look(self, data: bytes) -> None:
        after, joined, at = self.spoil.after, self._tail + data, 0
        while (at := joined.find(after, at)) >= 0:
            at += len(after)
            self._seen += 1
            if self._seen == self.spoil.occurrence:
                self._origin = self.passed - len(self._tail) + at
                return
        self._tail = joined[-(len(after) - 1) :] if len(after) > 1 else b""


async def _carry(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    other: asyncio.StreamWriter,
    lane: _Lane,
    look: Callable[[bytes], None] | None = None,
) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536 if lane.spoil.bytes_per_second is None else 256):
            if look is not None:
                look(data)
            spoil = lane.spoil
            if spoil.delay_seconds:
                await asyncio.sleep(spoil.delay_seconds)
            cut, corrupt = lane.find(data)
            if corrupt is not None and 0 <= corrupt < len(data):
                data = data[:corrupt] + bytes([data[corrupt] ^ 0xFF]) + data[corrupt + 1 :]
            cut_here = cut is not None and cut <= len(data)
            if cut is not None and cut_here:
                data = data[: max(0, cut)]
            target.write(data)
            await target.drain()
            lane.passed += len(data)
            spoil.passed = max(spoil.passed, lane.passed)
            if cut_here:
                await _cut(spoil.cut, target, other)
                return
            if spoil.bytes_per_second is not None:
                await asyncio.sleep(len(data) / spoil.bytes_per_second)
        if target.can_write_eof():
            with suppress(OSError):  # it may have left already
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
