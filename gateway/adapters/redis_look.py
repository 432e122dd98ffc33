"""A look at a Redis from outside: its version, its settings that matter here, its clock, how long it takes to
answer. Read-only; what the gateway does with it is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.adapters.redis_topology import client
from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock

PATIENCE_SECONDS = 2.0
_PINGS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLook:
    server: str
    """`redis` or `valkey`."""
    version: tuple[int, ...]
    eviction: str
    """Its `maxmemory-policy`."""
    bounded: bool
    """Whether it has a `maxmemory`, without which nothing is evicted."""
    append_only: bool
    latency_seconds: float
    """The median of a few round trips."""
    ahead_seconds: float
    """How far its clock is ahead of ours, to half a round trip."""


async def look_at_redis(url: str, prefix: str, clock: Clock) -> RedisLook:
    """Ask whoever serves the keys tagged `{prefix}`. Raises `StoreUnavailable`, within a few times
    `PATIENCE_SECONDS`, or ValueError for a URL that cannot be read."""
    redis: Any = client(
        url,
        prefix,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=PATIENCE_SECONDS,
        socket_connect_timeout=PATIENCE_SECONDS,
        decode_responses=True,
    )
    try:
        await redis.ping()
        trips = []
        for _ in range(_PINGS):
            begun = clock.monotonic()
            await redis.ping()
            trips.append(clock.monotonic() - begun)
        before = clock.now()
        seconds, microseconds = await redis.time()
        middle = (before + clock.now()) / 2
        info = await redis.info()
    except (RedisError, OSError) as error:
        raise StoreUnavailable(str(error) or type(error).__name__) from error
    finally:
        await redis.aclose()
    server = "valkey" if "valkey_version" in info else "redis"
    return RedisLook(
        server=server,
        version=tuple(int(part) for part in str(info[f"{server}_version"]).split(".") if part.isdigit()),
        eviction=str(info.get("maxmemory_policy", "")),
        bounded=bool(info.get("maxmemory", 0)),
        append_only=bool(info.get("aof_enabled", 0)),
        latency_seconds=median(trips),
        ahead_seconds=seconds + microseconds / 1e6 - middle,
    )
