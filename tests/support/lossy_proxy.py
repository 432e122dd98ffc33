"""A TCP proxy between a client and a server that can lose replies, or answer nothing at all."""

from __future__ import annotations

import asyncio


class LossyProxy:
    """`lose_replies = n`: the next n pieces that the server sends are thrown away and their connections cut,
    after the server has acted. `silent`: nothing that the server sends gets through."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.lose_replies = 0
        self.lost = 0
        self.silent = False

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> LossyProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:  # the server is down: so is this end
            to_client.close()
            return
        self._writers += (to_client, to_server)
        await asyncio.gather(
            self._pass_requests(from_client, to_server),
            self._pass_replies(from_server, to_client),
            return_exceptions=True,  # either end may break off: that is what this is for
        )
        to_client.close()
        to_server.close()

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def _pass_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self.silent:
                continue
            if self.lose_replies:
                self.lose_replies -= 1
                self.lost += 1
                writer.transport.abort()
                return
            writer.write(piece)
            await writer.drain()
        writer.close()
