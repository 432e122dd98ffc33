"""An HTTP client that says exactly what it is told to, and can leave at any moment."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType


@dataclass(slots=True)
class RawResponse:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = False
    """Whether the body ended as its framing says."""
    pieces: list[bytes] = field(default_factory=list)
    """Chunks, where it came in chunks."""

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class RawClient:
    """One connection. Every wait is bounded by `patience` seconds."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float = 30.0
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.patience = patience

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> RawClient:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except OSError:
            made.close()
            raise
        limit = 2**16 if receive_buffer is None else receive_buffer
        return cls(*await asyncio.open_connection(sock=made, limit=limit))

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), self.patience)

    async def post(self, target: str = "/v1/messages", body: bytes = b"{}", *headers: bytes) -> None:
        lines = [b"POST %b HTTP/1.1" % target.encode(), b"host: gateway.test", *headers]
        lines.append(b"content-length: %d" % len(body))
        await self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), self.patience)

    async def head(self) -> RawResponse:
        first = await self.line()
        if not first:
            raise EOFError("the connection ended before a response")
        headers = []
        while line := (await self.line()).rstrip(b"\r\n"):
            name, _, value = line.partition(b":")
            headers.append((name, value.strip()))
        return RawResponse(int(first.split()[1]), headers)

    async def response(self, *, head_only: bool = False) -> RawResponse:
        """The whole response; `complete` is False where the connection ended within it."""
        response = await self.head()
        if head_only or response.status in (100, 204, 304):
            response.complete = True
            return response
        try:
            if response.header(b"transfer-encoding") == b"chunked":
                await self._chunks(response)
            elif (length := response.header(b"content-length")) is not None:
                response.body = await self._exactly(int(length), response)
            else:
                response.body = await self.rest()
            response.complete = True
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        return response

    async def rest(self) -> bytes:
        """Everything until the connection ends. Raises `ConnectionResetError` where it was reset."""
        return await asyncio.wait_for(self.reader.read(-1), self.patience)

    async def ended(self) -> bool:
        """Whether the server closes without another byte."""
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _exactly(self, size: int, response: RawResponse) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readexactly(size), self.patience)
        except asyncio.IncompleteReadError as error:
            response.body = error.partial
            raise

    async def _chunks(self, response: RawResponse) -> None:
        while True:
            line = await self.line()
            if not line.endswith(b"\r\n"):
                raise asyncio.IncompleteReadError(line, None)
            size = int(line, 16)
            data = await asyncio.wait_for(self.reader.readexactly(size + 2), self.patience)
            assert data.endswith(b"\r\n")
            if not size:
                return
            response.pieces.append(data[:-2])
            response.body += data[:-2]
