"""Bad input gets a clear error in the API's own shape with a request id; nothing is sent or charged."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import aiohttp
import pytest

from gateway.core.ledger import Dimension
from tests.support.stack import Stack

GOOD = {"model": "claude-opus-5-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}


async def post(
    stack: Stack, body: bytes, path: str = "/v1/messages", key: str = "demo", **headers: str
) -> tuple[int, dict[str, Any], Any]:
    lines = {
        "x-api-key": stack.keys[key],
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(stack.url + path, data=body, headers=lines) as response,
    ):
        return response.status, json.loads(await response.read()), response.headers


def dumped(**changed: Any) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


BODIES = {
    "empty": b"",
    "not json": b"{'model': 1}",
    "half": dumped()[:-1],
    "two values": dumped() + b"{}",
    "not an object": b"[1, 2]",
    "a string": b'"hello"',
    "no model": b'{"max_tokens": 1, "messages": []}',
    "model is no string": dumped(model=5),
    "invalid utf-8": dumped().replace(b"Hi", b"\xff\xfe"),
    "byte order mark": b"\xef\xbb\xbf" + dumped(),
    "two models": dumped().replace(b'"max_tokens"', b'"model": "claude-haiku-5-5", "max_tokens"'),
    "two models, one escaped": dumped().replace(b'"max_tokens"', b'"\\u006dodel": "x", "max_tokens"'),
    "two contents": dumped().replace(b'"role"', b'"content": "other", "role"'),
    "nan": dumped().replace(b"10", b"NaN"),
    "deep": b'{"model": "m", "messages": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_no_call_is_a_400(name: str, stack: Stack) -> None:
    status, answer, headers = await post(stack, BODIES[name])

    assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")
    assert answer["request_id"] == headers["request-id"]
    assert len(answer["error"]["message"]) > 20
    assert headers["x-gateway-error-source"] == "gateway"
    assert stack.simulator.requests == []
    assert [(t.requests, t.cost_nanousd) for t in await stack.books(Dimension.WORKSPACE)] == [(1, 0)]


ENCODED = {
    "unknown": (dumped(), "br", "unsupported_encoding"),
    "garbage": (b"no gzip at all", "gzip", "unsupported_encoding"),
    "cut": (gzip.compress(dumped() * 50)[:60], "gzip", "unsupported_encoding"),
    "two": (gzip.compress(zlib.compress(dumped())), "deflate, gzip", "unsupported_encoding"),
    "bomb": (gzip.compress(b" " * (40 << 20)), "gzip", "too_large"),
}


@pytest.mark.parametrize("name", ENCODED)
async def test_an_encoding_that_cannot_be_read_or_swells_is_refused(name: str, stack: Stack) -> None:
    body, encoding, code = ENCODED[name]
    status, _, headers = await post(stack, body, content_encoding=encoding)

    assert headers["x-gateway-error"] == code
    assert status == (413 if code == "too_large" else 400)
    assert stack.simulator.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_trap_45_an_encoded_body_is_read_and_sent_on_decoded(encoding: str, stack: Stack) -> None:
    encoded = gzip.compress(dumped()) if encoding == "gzip" else zlib.compress(dumped())
    status, _, _ = await post(stack, encoded, content_encoding=encoding)

    assert status == 200
    assert stack.simulator.requests[0].body == dumped()
    assert b"content-encoding" not in dict(stack.simulator.requests[0].headers)


async def test_a_body_over_the_limit_is_a_413_before_it_is_read(stack: Stack) -> None:
    """The client announces 33 MB and sends nothing of it: the answer comes all the same."""
    host, port = stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {stack.keys['demo']}\r\n"
        f"content-length: {33 << 20}\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"request_too_large"' in answer


async def test_a_chunked_body_over_the_limit_is_a_413(stack: Stack) -> None:
    async def pieces() -> Any:
        for _ in range(34):
            yield b" " * (1 << 20)

    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(
                stack.url + "/v1/messages", data=pieces(), headers={"x-api-key": stack.keys["demo"]}
            ) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            pass  # refused while the body was still being sent: as good
    assert stack.simulator.requests == []


RAW = {
    "two lengths": b"content-length: 3\r\ncontent-length: 4\r\n",
    "length and chunks": b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
    "folded line": b"x-a: 1\r\n 2\r\n",
    "space before the colon": b"x-a : 1\r\n",
    "no colon": b"nonsense\r\n",
    "a NUL": b"x-a: \x00\r\n",
}


@pytest.mark.parametrize("name", RAW)
async def test_malformed_headers_are_a_400_in_the_apis_shape(name: str, stack: Stack) -> None:
    host, port = stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n" + RAW[name] + b"\r\nabc")
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert b"request-id: gw_" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert stack.simulator.requests == []


@pytest.mark.parametrize("name", ["anthropic-version", "x-api-key", "content-type"])
async def test_a_header_that_would_be_ambiguous_twice_is_refused(name: str, stack: Stack) -> None:
    host, port = stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    line = f"{name}: {stack.keys['demo'] if name == 'x-api-key' else '2023-06-01'}\r\n"
    key = "" if name == "x-api-key" else f"x-api-key: {stack.keys['demo']}\r\n"
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nhost: x\r\n{key}{line}{line}connection: close\r\n"
        f"content-length: {len(dumped())}\r\n\r\n".encode()
        + dumped()
    )
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400")
    assert stack.simulator.requests == []


async def test_trap_16_what_is_unknown_passes_through_byte_for_byte(stack: Stack) -> None:
    """Odd spellings, unknown fields and block types: upstream decides about them, we do not."""
    body = (
        b'{ "model" : "claude-next-9", "max_tokens":1e1, "new":{"a":1.0,"a":2,"b":123456789012345678901},\n'
        b'  "messages":[{"role":"user","content":[{"type":"hologram","x":"\\ud800"},'
        b'{"type":"text","text":"Hi"}]}]}'
    )
    await post(stack, body, anthropic_beta="next-2027-01-01")

    assert stack.simulator.requests[0].body == body
    assert dict(stack.simulator.requests[0].headers)[b"anthropic-beta"] == b"next-2027-01-01"


async def test_trap_44_probes_are_answered_here_without_a_key(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        for method, path in (("HEAD", "/"), ("HEAD", "/api/hello"), ("OPTIONS", "/v1/messages")):
            async with session.request(method, stack.url + path) as response:
                assert response.status == 200

    assert stack.simulator.requests == []


async def test_the_admin_plane_is_not_on_the_data_plane(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/livez", "/readyz", "/startupz"):
            async with session.get(stack.url + path, headers={"x-api-key": stack.keys["demo"]}) as response:
                assert response.status == 404


async def test_no_credential_crosses_in_either_direction(stack: Stack) -> None:
    """Canaries: the gateway's key never goes up, the upstream's never comes down, also not in errors."""
    _, answer, headers = await post(stack, dumped())
    _, error, error_headers = await post(stack, dumped(max_tokens="x"))
    up = repr([(request.headers, request.body) for request in stack.simulator.requests])
    down = repr((answer, dict(headers), error, dict(error_headers)))

    assert stack.keys["demo"] not in up
    assert "sk-test-upstream-canary" in up
    assert "canary" not in down
