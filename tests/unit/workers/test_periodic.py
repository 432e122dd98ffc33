"""What a loop says of work that fails, and that it goes on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.tasks import TaskSet
from gateway.workers.periodic import every
from tests.support.clock import FakeClock


async def test_a_store_that_is_away_is_a_line_and_a_bug_is_shown_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults: list[Exception] = [StoreUnavailable("Redis is away."), ValueError("a bug")]
    done = asyncio.Event()

    async def work() -> None:
        if faults:
            raise faults.pop(0)
        done.set()

    clock = FakeClock()
    with caplog.at_level(logging.WARNING):
        loops = TaskSet()
        loops.spawn(every(5.0, work, name="counting", clock=clock), "counting")
        async with asyncio.timeout(10):
            while not done.is_set():
                clock.advance(5.0)
                await asyncio.sleep(0)
        await loops.drain(0.0)

    away, bug = caplog.records
    assert away.getMessage() == "counting failed: Redis is away. (tried again in 5 s)"
    assert away.exc_info is None
    assert bug.exc_info is not None
