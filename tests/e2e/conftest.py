"""Which event loops the socket tests run on: the transport has to hold on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from gateway.adapters.claude import ClaudeUpstream

_ON_BOTH = ("test_listener", "test_upstream")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith(_ON_BOTH):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def upstream() -> AsyncIterator[ClaudeUpstream]:
    upstream = ClaudeUpstream(
        connect_timeout_seconds=20,
        head_timeout_seconds=1.0,
        idle_timeout_seconds=1.0,
        send_timeout_seconds=1.0,
    )
    yield upstream
    await upstream.close()


@pytest.fixture
async def patient() -> AsyncIterator[ClaudeUpstream]:
    upstream = ClaudeUpstream()
    yield upstream
    await upstream.close()
