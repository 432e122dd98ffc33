"""An HTTP proxy of the usual kind: tunnels by CONNECT, forwards absolute targets. Notes what it was asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType


class HttpProxy:
    def __init__(self, *, refuse: bool = False) -> None:
        self.asked: list[bytes] = []
        self._refuse = refuse
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> HttpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.partition(b"\r\n")[0]
            self.asked.append(line)
            method, target, _ = line.split(b" ")
            if self._refuse:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
                writer.close()
                return
            address = target if method == b"CONNECT" else target.split(b"/")[2]
            host, _, port = address.partition(b":")
            behind_reader, behind = await asyncio.open_connection(host.decode(), int(port))
            self._writers += [writer, behind]
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                behind.write(head.replace(target, b"/" + target.split(b"/", 3)[3], 1))
            async with asyncio.TaskGroup() as group:
                group.create_task(_carry(reader, behind))
                group.create_task(_carry(behind_reader, writer))


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()
