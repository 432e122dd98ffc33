"""One browser for all tests of the page, one gateway for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import a_browser
from tests.support.stack import Stack, a_stack

TOKEN = "sk-test-admin-token-of-the-page"
WITH_TOKEN = {"GATEWAY_LISTEN__ADMIN_TOKEN": "{env: ADMIN_TOKEN}", "ADMIN_TOKEN": TOKEN}
IN_MEMORY = "store: {kind: memory}\n"
"""What is looked at here is the page: no test waits for a disk."""
CANARY = "CANARY-of-a-prompt"
MODEL = "claude-opus-5-5"


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Without an admin token: the page is for who sits at the machine."""
    async with a_stack(tmp_path, settings=IN_MEMORY) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def guarded(tmp_path: Path) -> AsyncIterator[Stack]:
    """With an admin token."""
    async with a_stack(tmp_path / "guarded", environ=WITH_TOKEN, settings=IN_MEMORY) as running:
        yield running


async def ask(stack: Stack, key: str, *, stream: bool = False) -> int:
    """One Messages call with a prompt that must not be seen again; its status."""
    body: Mapping[str, Any] = {
        "model": MODEL,
        "max_tokens": 40,
        "stream": stream,
        "system": f"{CANARY} {'You are brief and kind. ' * 400}",
        "messages": [{"role": "user", "content": CANARY}],
    }
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/messages", json=body, headers=headers) as answer,
    ):
        await answer.read()
        return answer.status
