"""One call over a real socket, with headers and body as a test spells them, and its answer to the byte."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.mock_upstream import MockUpstream, Script
from tests.support.stack import LIMITS, Stack, a_stack

MODEL = "claude-opus-5-5"
LONG = "You are brief and kind. " * 400
ASK: Mapping[str, Any] = {
    "model": MODEL,
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "Say 20 words."}],
}
VERSION = ("anthropic-version", "2023-06-01")

_WRAPPED = re.compile(rb'\[\{"type":"text","text":("(?:[^"\\]|\\.)*"),"cache_control":\{[^}]*\}\}\]')
_MARK = re.compile(rb',"cache_control":\{[^}]*\}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    stack: Stack,
    body: Any = None,
    *,
    path: str = "/v1/messages",
    method: str = "POST",
    key: str = "demo",
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """Objects go out with spaces after separators, so that what the gateway inserts, without, is found."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    lines = [("x-api-key", stack.keys[key]), VERSION, ("content-type", "application/json"), *headers]
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(
            method,
            stack.url + path,
            data=None if data is None else io.BytesIO(data),
            headers=lines,
            allow_redirects=False,
        ) as response,
    ):
        return Answer(status=response.status, headers=response.headers, body=await response.read())


def received(stack: Stack) -> list[bytes]:
    """The bodies that upstream got, oldest first."""
    return [request.body for request in stack.simulator.requests]


def without_insertions(body: bytes) -> bytes:
    """What the client had sent, where the gateway inserted breakpoints and did nothing else."""
    return _MARK.sub(b"", _WRAPPED.sub(rb"\1", body))


@asynccontextmanager
async def in_front_of(
    script: Script, folder: Path, *, limits: str = LIMITS
) -> AsyncIterator[tuple[Stack, MockUpstream]]:
    """A stack whose default upstream is not the simulator, but says what `script` says."""
    async with MockUpstream(script) as upstream:
        route = {"GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": upstream.base_url}
        async with a_stack(folder, environ=route, limits=limits) as stack:
            yield stack, upstream


async def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Until it holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.01)
