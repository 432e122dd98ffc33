"""Requests on the wire, to the real listener over a real socket. What it takes for a request must be one by
RFC 9112 read strictly, in which every reader agrees on where head and body end; all else is refused and the
connection closed. aiohttp's other parser, in Python, reads the same bytes as a second witness."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy

from gateway.core.endpoints import route
from gateway.core.errors import Unauthenticated
from gateway.core.headers import HOP_BY_HOP, Header, repeated, request_headers, response_headers, value_of
from gateway.core.principal import find_credential
from gateway.web.listener import ClientReply, InboundRequest, Listener, read_body
from tests.fuzz.target import Check, Target

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE = re.compile(rb"([^ ]+) +([\x21-\x7e\x80-\xff]+) +HTTP/1\.([01])")
"""More than one space is taken for one, as RFC 9112 allows: what goes upstream is written anew."""
_VALUE = re.compile(rb"[\t \x21-\x7e\x80-\xff]*")
_HEX = re.compile(rb"[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody took for a request."""

    method: str
    target: bytes
    headers: tuple[Header, ...]
    body: bytes


def origin(target: bytes) -> bytes:
    """Path and query, where `target` names the server as well."""
    scheme, found, rest = target.partition(b"://")
    if scheme.lower() not in (b"http", b"https") or not found:
        return target
    end = next((at for at, each in enumerate(rest) if each in b"/?#"), len(rest))
    if re.fullmatch(rb"[A-Za-z0-9._~%:\[\]-]+", rest[:end]) is None:
        return target
    return rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]


class NotOne(Exception):
    """The bytes begin with no request that all readers would read alike, or with a part of one."""


def read_strictly(data: bytes) -> tuple[Asked, bytes]:
    """The first request of `data`, and what follows it. Empty lines before it are skipped."""
    data = data.lstrip(b"\r\n")
    head, found, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if not found or line is None or _METHOD.fullmatch(line[1]) is None:
        raise NotOne
    headers = []
    for each in lines:
        name, colon, value = each.partition(b":")
        if not colon or _METHOD.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise NotOne
        headers.append((name.lower(), value.strip(b" \t")))
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or any(not each.isdigit() for each in lengths):
        raise NotOne
    if codings:
        if codings[0].lower() != b"chunked" or line[3] == b"0":
            raise NotOne
        body, rest = _chunks(rest)
    else:
        size = int(lengths[0]) if lengths else 0
        if len(rest) < size:
            raise NotOne
        body, rest = rest[:size], rest[size:]
    return Asked(line[1].decode(), origin(line[2]), tuple(headers), body), rest


def _chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, found, rest = rest.partition(b"\r\n")
        size, _, extension = line.partition(b";")
        if (
            not found
            or _HEX.fullmatch(size.rstrip(b" \t")) is None
            or b"\n" in extension
            or b"\r" in extension
        ):
            raise NotOne
        count = int(size, 16)
        if count == 0:
            break
        if rest[count : count + 2] != b"\r\n":
            raise NotOne
        body, rest = body + rest[:count], rest[count + 2 :]
    while True:  # trailers
        line, found, rest = rest.partition(b"\r\n")
        if not found or b"\n" in line:
            raise NotOne
        if not line:
            return body, rest


class _Silent(BaseProtocol):
    def pause_reading(self, *arguments: object) -> None: ...

    def resume_reading(self, *arguments: object) -> None: ...


def second_witness(data: bytes) -> Asked | None:
    """What aiohttp's parser in Python takes for the first request; None where it refuses."""
    loop = asyncio.get_running_loop()
    parser = HttpRequestParserPy(
        _Silent(loop), loop, 1 << 20, max_line_size=16_384, max_field_size=32_768, max_headers=256
    )
    try:
        messages, _, _ = parser.feed_data(data)
    except (HttpProcessingError, ValueError):
        return None
    if not messages:
        return None
    message, payload = messages[0]
    if not payload.is_eof() or payload.exception() is not None:
        return None
    headers = tuple((name.lower(), value) for name, value in message.raw_headers)
    target = origin(message.path.encode("utf-8", "surrogateescape"))
    return Asked(message.method, target, headers, payload.read_nowait())


def check_crossing(asked: Asked) -> None:
    """What would go upstream of it has one meaning, too; and whatever the names, nobody falls over them."""
    route(asked.method, asked.target.decode("utf-8", "surrogateescape"))
    repeated(asked.headers)
    with suppress(Unauthenticated):
        find_credential(asked.headers)
    for decoded in (False, True):
        sent = request_headers(asked.headers, decoded=decoded, identity=decoded, drop=("x-team",))
        names = {name for name, _ in sent}
        assert not names & (HOP_BY_HOP | {b"content-length", b"host", b"x-api-key", b"authorization"})
        assert not any(name.startswith(b"x-gateway-") for name in names)
        assert all(_METHOD.fullmatch(name) and _VALUE.fullmatch(value) for name, value in sent)
    back = response_headers(asked.headers)
    assert not {name for name, _ in back} & (HOP_BY_HOP | {b"set-cookie", b"location"})
    assert value_of(asked.headers, b"content-length") == value_of(back, b"content-length")


@asynccontextmanager
async def _listening(folder: Path) -> AsyncIterator[Check]:
    seen: list[Asked] = []

    async def handle(request: InboundRequest, reply: ClientReply) -> None:
        headers, body = request.headers, b""
        if request.has_body or not request.payload.is_eof():
            # Only the bytes of it: what an encoding would make of them is `read_body`'s own tests'.
            request.headers = [line for line in headers if line[0] != b"content-encoding"]
            body = (await read_body(request, limit_bytes=1 << 20, timeout_seconds=5)).data
        target = request.target.encode("utf-8", "surrogateescape")
        seen.append(Asked(request.method, target, tuple(headers), body))
        reply.start(200, [(b"content-length", b"0")])
        reply.finish()

    listener = Listener(handle, new_id=lambda: "req_fuzz")
    port = await listener.start("127.0.0.1", 0)

    async def check(data: bytes) -> None:
        seen.clear()
        answer = await _ask(port, data)
        statuses = re.findall(rb"HTTP/1\.1 (\d\d\d)", answer)
        assert set(statuses) <= {b"200", b"400", b"100", b"413", b"408"}, answer[:200]
        rest = data
        for asked in seen:
            strictly, rest = read_strictly(rest)
            assert asked == strictly
            check_crossing(asked)
        if seen:
            other = second_witness(data)
            assert other is None or other == seen[0]

    try:
        yield check
    finally:
        await listener.close(1)


async def _ask(port: int, data: bytes) -> bytes:
    """Everything that is answered to these bytes and their end."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        answer = b""
        try:
            await loop.sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(10):
                while piece := await loop.sock_recv(sock, 1 << 16):
                    answer += piece
        except ConnectionError:
            pass
        return answer


_HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: gateway.test\r\nx-api-key: sk-test-key-of-fuzz\r\n"


def requests() -> Sequence[bytes]:
    body = b'{"model":"m"}'
    whole = _HEAD + b"content-type: application/json\r\ncontent-length: 13\r\n\r\n" + body
    return [
        whole,
        whole + whole,
        _HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\n{  }\r\n3;a=b\r\n   \r\n0\r\n\r\n",
        _HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx-trailer: a\r\n\r\n" + whole,
        b"GET /v1/models?limit=5 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-test-key\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        b"GET http://gateway.test:80/v1/models?limit=5 HTTP/1.1\r\nhost: a\r\n\r\n",
        _HEAD + b"connection: x-a, keep-alive\r\nx-a: 1\r\nanthropic-beta: a\r\nanthropic-beta: b\r\n\r\n",
        b"POST //v1/./Messages/%2e%2e/x;a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n"
        b"content-length: 0\r\n\r\n",
    ]


_WORDS = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x0b", b"\0", b":", b"\r\n ", b"\r\n\t", b" :",
    b"content-length: 4\r\n", b"Content-Length: 0\r\n", b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n",
    b"host: b\r\n", b"connection: close\r\n", b"connection: content-length\r\n", b"upgrade: h2c\r\n",
    b"expect: 100-continue\r\n", b"HTTP/1.1", b"HTTP/1.0", b"+4", b"-4", b"0x4", b"4,4",
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"x-gateway-cache: off\r\n",
    b"anthropic-workspace-id: w\r\n", b"content-encoding: gzip\r\n",
    b"http://a", b"HTTPS://[::1]:1/", b"://", b"@", b"\\",
)  # fmt: skip

TARGETS = (Target(name="request", open=_listening, seeds=requests, words=_WORDS, rounds=800),)
