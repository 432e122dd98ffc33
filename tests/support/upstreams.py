"""Builders for tests of the `Upstream` port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.headers import Headers
from gateway.core.rules import Route
from gateway.ports import Answer, BodyStream, UpstreamRequest
from tests.support.mock_upstream import chunked

EVENTS = [b"event: ping\ndata: {}\n\n" * n for n in (1, 7, 2, 40)]
BODY = b"".join(EVENTS)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
ANSWERS = {
    "chunked": OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(*EVENTS),
    "length": OK + b"content-length: %d\r\n\r\n" % len(BODY) + BODY,
    "close": OK + b"\r\n" + BODY,
}
"""The same body in each framing that HTTP/1.1 has."""


def a_request(
    base_url: str,
    *,
    method: str = "POST",
    target: str = "/v1/messages",
    body: Sequence[bytes] = (b'{"model":', b'"m"}'),
    headers: Headers = ((b"content-type", b"application/json"),),
    stream: BodyStream | None = None,
    proxy: str | None = None,
) -> UpstreamRequest:
    route = Route(name="test", base_url=base_url, credential=lambda: (), proxy=proxy)
    return UpstreamRequest(
        method=method,
        target=target,
        headers=headers,
        route=route,
        body=() if stream else tuple(body),
        body_stream=stream,
    )


@dataclass
class Collected:
    """A reader that is congested after each `congested_every` pieces."""

    congested_every: int = 0
    pieces: list[bytes] = field(default_factory=list)

    def feed(self, data: bytes) -> bool:
        self.pieces.append(data)
        return bool(self.congested_every) and len(self.pieces) % self.congested_every == 0

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


async def read_all(answer: Answer, collected: Collected | None = None) -> bytes:
    collected = collected or Collected()
    while not await answer.pump(collected.feed):
        pass
    return collected.body


class StreamOf:
    """A `BodyStream` of given pieces; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception, length: int | None = None) -> None:
        self._pieces = list(pieces)
        self.length = length
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece
