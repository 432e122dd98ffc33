"""A simulator on a real loopback socket, a clock that tests move, and official clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import anthropic
import pytest

from gateway.sim import Simulator
from tests.support.clock import FakeClock

MODEL = "claude-opus-5-5"
KEY = "sk-test-sim-one"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def simulator(clock: FakeClock) -> AsyncIterator[Simulator]:
    simulator = Simulator(clock=clock)
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=simulator.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def raw(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
        yield session
