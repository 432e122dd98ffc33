"""A loop around one piece of work. What fails is logged and tried again at the next turn; nothing that a
store or a file does can end the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock

log = logging.getLogger(__name__)


async def every(
    seconds: float,
    work: Callable[[], Awaitable[object]],
    *,
    name: str,
    clock: Clock,
    wake: asyncio.Event | None = None,
) -> None:
    """Do `work` again and again, `seconds` after it last ended, or as soon as `wake` is set. Runs until it
    is cancelled."""
    while True:
        if wake is None:
            await clock.sleep(seconds)
        else:
            await _sleep_or_wake(seconds, wake)
        try:
            await work()
        except StoreUnavailable as error:  # what happens to all loops at once, and mends itself
            log.warning("%s failed: %s (tried again in %g s)", name, error.message, seconds)
        except Exception:
            log.exception("%s failed; it is tried again in %g s", name, seconds)


async def _sleep_or_wake(seconds: float, wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
    wake.clear()
