"""An upstream that answers as scripted, to the byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType


@dataclass(slots=True)
class Asked:
    """One request as it came, framing taken off."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class Peer:
    """One connection of a client of this upstream."""

    def __init__(
        self, upstream: MockUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._upstream = upstream
        self.reader = reader
        self.writer = writer

    async def asked(self, *, body: bool = True) -> Asked:
        """The next request. Without `body`, only its head is read."""
        line = (await self.reader.readuntil(b"\r\n"))[:-2]
        asked = Asked(line, [])
        while field := (await self.reader.readuntil(b"\r\n"))[:-2]:
            name, _, value = field.partition(b":")
            asked.headers.append((name, value.strip()))
        self._upstream.requests.append(asked)
        if body:
            if asked.header(b"transfer-encoding") == b"chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    asked.body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            elif length := int(asked.header(b"content-length") or 0):
                asked.body = await self.reader.readexactly(length)
        return asked

    async def say(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionResetError("the other end has left")
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> None:
        head = [b"HTTP/1.1 " + status, *headers, b"content-length: %d" % len(body)]
        await self.say(b"\r\n".join(head) + b"\r\n\r\n" + body)

    async def left(self) -> None:
        """Until the other end has gone; whatever it still says is dropped."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def finish(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class MockUpstream:
    """Runs `script` once per connection. `departures` counts connections that the other end closed."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Asked] = []
        self.connections = 0
        self.failures: list[BaseException] = []
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> MockUpstream:
        self._server = await asyncio.start_server(self._run, "127.0.0.1", 0, ssl=self._tls, limit=2**20)
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
        for writer in list(self._writers):
            writer.transport.abort()
        if kind is None and self.failures:
            raise self.failures[0]

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self.script(Peer(self, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other end, or the test, is done with this connection
        except Exception as error:
            self.failures.append(error)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()


def forever(*answers: bytes) -> Script:
    """Answer each request of each connection with these bytes, until the connection ends."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.asked()
            for piece in answers:
                await peer.say(piece)

    return script


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return body + (b"0\r\n\r\n" if end else b"")
