"""Requests that several test files send."""

from __future__ import annotations

from typing import Any

import aiohttp

from gateway.sim.wire import JsonObject
from tests.sim.conftest import MODEL

LONG = [{"type": "text", "text": "word " * 2_000, "cache_control": {"type": "ephemeral"}}]


def call(**changes: Any) -> JsonObject:
    body = {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": "Hello."}]}
    return {name: value for name, value in (body | changes).items() if value is not None}


async def post(
    raw: aiohttp.ClientSession, body: JsonObject, *, path: str = "/v1/messages", **headers: str
) -> tuple[int, JsonObject]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with raw.post(path, json=body, headers=named) as response:
        return response.status, await response.json()


async def error(raw: aiohttp.ClientSession, body: JsonObject, **more: str) -> tuple[int, str, str]:
    status, answer = await post(raw, body, **more)
    return status, answer["error"]["type"], answer["error"]["message"]
