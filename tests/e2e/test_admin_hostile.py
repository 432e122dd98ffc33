"""What strangers send to the admin plane, over raw sockets: it is refused in time, stops nobody else, and is
not repeated in the log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web

from gateway.web import admin_body, admin_server
from gateway.web.admin import admin_app
from gateway.web.admin_api import Operation
from gateway.web.admin_server import AdminServer
from gateway.web.admission import Admission
from gateway.web.front import Behind, Front, open_session
from gateway.web.health import Conditions
from gateway.web.merged_metrics import WorkersMetrics
from gateway.web.openapi import Description
from tests.support.raw_client import RawClient, RawResponse
from tests.support.stack import Stack, a_stack

TOKEN = "sk-test-admin-token"
WITH_TOKEN = {"GATEWAY_LISTEN__ADMIN_TOKEN": "{env: ADMIN_TOKEN}", "ADMIN_TOKEN": TOKEN}
IN_MEMORY = "store: {kind: memory}\n"
FORM = b"content-type: application/x-www-form-urlencoded"
FREEZE = b'{"scope": "workspace", "subject": "demo", "reason": "a loop", "by": "Ada"}'
CANARY = b"CANARY-of-a-stranger"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Without an admin token: for callers of this machine."""
    async with a_stack(tmp_path, settings=IN_MEMORY) as running:
        yield running


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Stack]:
    async with a_stack(tmp_path / "guarded", environ=WITH_TOKEN, settings=IN_MEMORY) as running:
        yield running


def port_of(stack: Stack) -> int:
    return int(stack.service.admin_url.rpartition(":")[2])


def head(port: int, line: bytes, *headers: bytes) -> bytes:
    """With a host that is this one, unless they name another."""
    hosts = [b"host: 127.0.0.1:%d" % port] if not any(each.startswith(b"host:") for each in headers) else []
    return b"\r\n".join([line, *hosts, *headers, b"", b""])


async def post(port: int, path: bytes, body: bytes, *headers: bytes) -> RawResponse:
    length = b"content-length: %d" % len(body)
    async with await RawClient.connect(port) as client:
        await client.send(head(port, b"POST %b HTTP/1.1" % path, length, *headers) + body)
        return await client.response()


async def send_form(port: int, body: bytes, kind: bytes = FORM, path: bytes = b"/page/sign-in") -> int:
    """The status of what a form of the page itself is answered."""
    return (await post(port, path, body, kind, b"origin: http://127.0.0.1:%d" % port)).status


async def answers(port: int) -> bool:
    async with await RawClient.connect(port) as client:
        await client.send(head(port, b"GET /livez HTTP/1.1"))
        return (await client.response()).status == 200


# Bodies


@pytest.mark.parametrize("charset", [b"punycode", b"idna", b"utf-7", b"utf-16", b"no-such"])
async def test_no_form_is_decoded_by_a_codec_that_its_sender_names(guarded: Stack, charset: bytes) -> None:
    """Some take minutes for a megabyte, on the loop that serves every call."""
    assert await send_form(port_of(guarded), b"a-" + b"a" * 8_000, FORM + b"; charset=" + charset) == 415


@pytest.mark.parametrize("charset", [b"", b"; charset=UTF-8", b'; charset="utf-8"'])
async def test_a_form_in_utf_8_is_read(guarded: Stack, charset: bytes) -> None:
    port = port_of(guarded)

    assert await send_form(port, b"name=J%C3%BCrgen&token=" + TOKEN.encode(), FORM + charset) == 303
    assert await send_form(port, b"name=%ff", FORM + charset) == 400
    assert await send_form(port, b"name=\xff", FORM + charset) == 400


async def test_bodies_are_bounded_and_the_document_says_so(guarded: Stack, stack: Stack) -> None:
    assert await send_form(port_of(guarded), b"name=" + b"a" * admin_body.MAX_FORM_BYTES) == 413

    refused = await post(port_of(stack), b"/v1/freezes", FREEZE + b" " * admin_body.MAX_JSON_BYTES)
    assert refused.status == 413
    assert json.loads(refused.body)["error"]["status"] == 413
    async with await RawClient.connect(port_of(stack)) as client:
        await client.send(head(port_of(stack), b"GET /v1/openapi.json HTTP/1.1"))
        paths = json.loads((await client.response()).body)["paths"]
    changes = ("/v1/freezes", "/v1/grants", "/v1/overrides", "/v1/prewarm")
    for path in changes:
        assert {"400", "408", "413"} <= paths[path]["post"]["responses"].keys()


async def test_a_body_is_waited_for_as_long_as_it_may_take_and_no_longer(
    guarded: Stack, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_body, "BODY_SECONDS", 0.2)
    here = b"origin: http://127.0.0.1:%d" % port_of(guarded)
    for port, path, headers in (
        (port_of(guarded), b"/page/sign-in", (FORM, here)),
        (port_of(stack), b"/v1/freezes", ()),
    ):
        async with await RawClient.connect(port) as client:
            line = b"POST %b HTTP/1.1" % path
            await client.send(head(port, line, b"content-length: 1000", *headers) + b"name=")
            assert (await client.response()).status == 408


async def test_nothing_is_read_of_whom_the_page_does_not_know(guarded: Stack) -> None:
    """The answer comes before the body does."""
    port = port_of(guarded)
    here = b"origin: http://127.0.0.1:%d" % port
    async with await RawClient.connect(port) as client:
        line = b"POST /page/changes/freeze HTTP/1.1"
        await client.send(head(port, line, b"content-length: 1000", FORM, here))
        answer = await client.response()

    assert answer.status == 303
    assert answer.header(b"location") == b"/page/sign-in"


BROKEN = {
    "empty members": (b"gzip", gzip.compress(b"", mtime=0) * 10_000),
    "garbage": (b"gzip", b"no gzip at all"),
}


@pytest.mark.parametrize("path", [b"/v1/freezes", b"/v1/prewarm?workspace=demo"])
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_body_that_cannot_be_unpacked_is_a_400(stack: Stack, path: bytes, broken: str) -> None:
    encoding, body = BROKEN[broken]
    answer = await post(port_of(stack), path, body, b"content-encoding: " + encoding)

    assert answer.status == 400
    assert json.loads(answer.body)["error"]["status"] == 400


async def test_a_packed_change_is_unpacked_once_in_front_of_workers_too(stack: Stack) -> None:
    packed = gzip.compress(FREEZE)
    port = port_of(stack)
    assert (await post(port, b"/v1/freezes", packed, b"content-encoding: gzip")).status == 200

    async with a_front(an_app()) as port:
        answer = await post(port, b"/length", packed, b"content-encoding: gzip")
    assert answer.body == b"%d" % len(FREEZE)


# Whence a request comes


@pytest.mark.parametrize("host", [b"host: [", b"host: [::1", b"host: \xe2\x84\x80"])
async def test_a_host_that_is_none_is_not_this_one(stack: Stack, host: bytes) -> None:
    port = port_of(stack)
    for path in (b"/v1/budgets", b"/page/keys"):
        async with await RawClient.connect(port) as client:
            await client.send(head(port, b"GET %b HTTP/1.1" % path, host))
            assert (await client.response()).status == 403, path


@pytest.mark.parametrize("origin", [b"origin: http://[", b"origin: http://\xe2\x84\x80"])
async def test_an_origin_that_is_none_is_not_this_one(guarded: Stack, stack: Stack, origin: bytes) -> None:
    for port in (port_of(stack), port_of(guarded)):
        assert (await post(port, b"/page/sign-in", b"", FORM, origin)).status == 403


async def test_what_a_proxy_passes_on_by_http_1_0_is_not_from_this_machine_behind_workers_either() -> None:
    async with a_front(an_app()) as port:
        for version, status in ((b"HTTP/1.0", 403), (b"HTTP/1.1", 200)):
            async with await RawClient.connect(port) as client:
                await client.send(head(port, b"GET /length " + version))
                assert (await client.response()).status == status
            async with await RawClient.connect(port) as client:
                await client.send(head(port, b"GET /metrics " + version))
                assert (await client.response()).status == 200, "is for scrapers of other machines"


# The log

MALFORMED: dict[str, Sequence[bytes]] = {
    "a token that ends in CR": (
        b"GET /v1/budgets HTTP/1.1\r\nauthorization: Bearer %b\rx: y\r\n\r\n" % CANARY,
    ),
    "a control character in a cookie": (
        b"GET /page HTTP/1.1\r\ncookie: cgw_session=%b\x01\r\n\r\n" % CANARY,
    ),
    "a long header": (b"GET /page HTTP/1.1\r\ncookie: %b\r\n\r\n" % (CANARY * 1_000),),
    "no request line": (CANARY + b" " + CANARY + b"\r\n\r\n",),
    "no request line, later": (b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", CANARY + b" HTTP\r\n\r\n"),
    "no URL": (b"GET http://[%b HTTP/1.1\r\nhost: x\r\n\r\n" % CANARY,),
    "a broken chunk": (
        b"POST /page/sign-in HTTP/1.1\r\nhost: HERE\r\norigin: http://HERE\r\n" + FORM + b"\r\n"
        b"transfer-encoding: chunked\r\n\r\n5\r\nname=\r\n%b\r\n" % CANARY,
    ),
    "a body that is no gzip": (
        b"POST /page/sign-in HTTP/1.1\r\nhost: HERE\r\norigin: http://HERE\r\n" + FORM + b"\r\n"
        b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(CANARY), CANARY),
    ),
    "a body that ends early": (
        b"POST /page/sign-in HTTP/1.1\r\nhost: HERE\r\norigin: http://HERE\r\n" + FORM + b"\r\n"
        b"content-length: 1000\r\n\r\n",
        CANARY,
    ),
}


@pytest.mark.parametrize("front", [False, True], ids=["alone", "in front of workers"])
@pytest.mark.parametrize("malformed", MALFORMED)
async def test_nothing_of_a_request_that_cannot_be_read_is_logged(
    guarded: Stack, caplog: pytest.LogCaptureFixture, malformed: str, front: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as running:
        port = port_of(guarded)
        if front:
            port = await running.enter_async_context(a_front(an_app()))
        here = b"127.0.0.1:%d" % port
        client = await running.enter_async_context(await RawClient.connect(port))
        for part in MALFORMED[malformed]:
            await client.send(part.replace(b"HERE", here))
            await asyncio.sleep(0.05)  # so that it is read by itself
        if "ends early" in malformed:
            client.reset()
        else:
            while b" 400 " not in (line := await client.line()):
                assert line, "the connection ended before it was refused"
        assert await answers(port)

    said = caplog.text + "".join(repr((record.msg, record.args)) for record in caplog.records)
    assert CANARY.decode() not in said
    assert "Traceback" not in caplog.text


# Connections


async def test_connections_that_ask_for_nothing_make_room(stack: Stack) -> None:
    """As many as there may be, and more: calls keep the files that they need, and probes get in."""
    port = port_of(stack)
    async with AsyncExitStack() as open_:
        silent = [
            await open_.enter_async_context(await RawClient.connect(port))
            for _ in range(admin_server.MAX_CONNECTIONS + 20)
        ]
        for client in silent[:20]:
            assert await client.ended()
        assert await answers(port)
        assert not silent[-1].reader.at_eof()


async def test_a_head_that_does_not_come_ends_the_connection_to_the_admin_plane(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_server, "HEAD_SECONDS", 0.3)
    port = port_of(stack)
    for sent in (b"", b"GET /livez HTTP/1.1\r\nhost: x\r\n"):
        async with await RawClient.connect(port) as client:
            await client.send(sent)
            assert await client.ended()
    async with await RawClient.connect(port) as client:
        await client.send(head(port, b"GET /livez HTTP/1.1"))
        assert (await client.response()).status == 200
        assert await client.ended(), "between requests, too"


class Held:
    """Answers what it is asked once it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_get("/", self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.release()
        await self.go.wait()
        return web.Response(text="done")


async def test_who_is_being_answered_is_not_cut_for_who_comes() -> None:
    held = Held()
    async with a_server(held.app, most_connections=2) as port, AsyncExitStack() as open_:

        async def connect(*, asks: bool) -> RawClient:
            client = await open_.enter_async_context(await RawClient.connect(port))
            if asks:
                await client.send(head(port, b"GET / HTTP/1.1"))
                await asyncio.wait_for(held.asked.acquire(), 30)
            return client

        first = await connect(asks=True)
        silent = await connect(asks=False)
        second = await connect(asks=True)
        assert await silent.ended()
        assert await (await connect(asks=False)).ended(), "nobody makes room"
        held.go.set()
        assert [(await each.response()).body for each in (first, second)] == [b"done"] * 2


async def test_who_takes_nothing_of_an_answer_is_left_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_server, "SLOW_CLIENT_SECONDS", 0.3)
    size = 64 << 20

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    app = web.Application()
    app.router.add_get("/", large)
    async with a_server(app) as port, await RawClient.connect(port, receive_buffer=4_096) as client:
        await client.send(head(port, b"GET / HTTP/1.1"))
        await asyncio.sleep(1.0)
        with suppress(ConnectionError):
            assert len(await client.rest()) < size


@asynccontextmanager
async def a_server(app: web.Application, **options: Any) -> AsyncIterator[int]:
    server = AdminServer(app, **options)
    try:
        yield await server.start("127.0.0.1", 0)
    finally:
        await server.close()


@asynccontextmanager
async def a_front(app: web.Application) -> AsyncIterator[int]:
    """What several workers have in front of them, with one that serves this."""
    with TemporaryDirectory() as folder:
        worker = AdminServer(app, most_connections=None)
        await worker.start_unix(f"{folder}/socket")
        session = open_session(f"{folder}/socket")
        behind = Behind(number=0, process=1, session=session)
        metrics = WorkersMetrics()
        metrics.began(0, 1)
        front = Front(lambda: [behind], metrics, draining=lambda: False)
        async with a_server(front.app, unpacks=False) as port:
            yield port
        await session.close()
        await worker.close()


def an_app() -> web.Application:
    """The admin plane of a worker without a token, with one thing to ask for: how long a body is."""

    async def length(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await admin_body.body_of(request, most_bytes=1_000))))

    async def serves() -> None:
        return

    description = Description(id="length", summary="Of a body.")
    return admin_app(
        conditions=Conditions(started=lambda: True, draining=bool, store_needed=bool, ping_store=serves),
        render=lambda accept: ("text/plain", b""),
        admission=Admission(None, lambda: 0.0),
        operations=[
            Operation(method=method, path=path, respond=length, description=description)
            for method, path in (("GET", "/length"), ("POST", "/length"), ("POST", "/page/sign-in"))
        ],
        loopback=True,
    )
