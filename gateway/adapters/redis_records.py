"""What the small stores in Redis have in common: keys, batches, adjustments, alerts. Their steps can be sent
twice to the same effect, so that each is tried once more where its answer was lost."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from gateway.adapters.redis_topology import client
from gateway.core.errors import StoreUnavailable

T = TypeVar("T")


def records_client(url: str, prefix: str, timeout_seconds: float) -> Redis:
    """A client that tries each step twice; the library's own default of ten would hold a caller long."""
    return client(
        url,
        prefix,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(ConstantBackoff(0.05), 1),
    )


async def reached(what: str, answer: Awaitable[T]) -> T:
    """The answer. Raises `StoreUnavailable`, which names `what` could not be reached."""
    try:
        return await answer
    except (RedisError, OSError) as error:
        # The message of a connection error names host and port, never the password.
        raise StoreUnavailable(f"{what} in Redis cannot be reached: {error}") from error
