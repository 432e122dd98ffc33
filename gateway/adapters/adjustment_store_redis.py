"""The log of adjustments in Redis, for several replicas.

Lines stand in a hash by their number and are never written twice. Each change is one script: atomic, and safe
to run again when its reply was lost, since it answers what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable
from math import inf
from typing import TypeVar, cast

from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from gateway.adapters.adjustment_store_text import entry_of, text_of
from gateway.adapters.redis_topology import client
from gateway.core.adjustments import (
    EXPIRED_KEPT_SECONDS,
    MAX_IN_FORCE,
    Adjustment,
    LogEntry,
    TakenBack,
    ends_at,
)
from gateway.core.errors import StoreUnavailable, TooManyAdjustments

T = TypeVar("T")

# KEYS: log (number -> line), made (id -> number), taken back (id -> number), standing (id by its end).
_ADD = """
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then return {tonumber(known), redis.call('HGET', KEYS[1], known)} end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[4])
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[5]) then return {0, ''} end
local number = redis.call('HLEN', KEYS[1]) + 1
redis.call('HSET', KEYS[1], number, ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], number)
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return {number, ARGV[2]}
"""
_TAKE_BACK = """
local known = redis.call('HGET', KEYS[3], ARGV[1])
if known then return {tonumber(known), redis.call('HGET', KEYS[1], known)} end
local number = redis.call('HLEN', KEYS[1]) + 1
redis.call('HSET', KEYS[1], number, ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], number)
redis.call('ZREM', KEYS[4], ARGV[1])
return {number, ARGV[2]}
"""
_LOAD = """
local lines = {}
local ids = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
    local number = redis.call('HGET', KEYS[2], id)
    lines[#lines + 1] = {tonumber(number), redis.call('HGET', KEYS[1], number)}
end
return lines
"""


class RedisAdjustmentStore:
    """`ports.AdjustmentStore` under `{<prefix>}:adjustments`. Owns its connections."""

    def __init__(self, url: str, *, prefix: str = "cgw", timeout_seconds: float = 0.5) -> None:
        self._redis = client(
            url,
            prefix,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(ConstantBackoff(0.05), 1),
        )
        # The braces put all keys into one slot of a cluster.
        stem = f"{{{prefix}}}:adjustments"
        self._log, self._made, self._taken = f"{stem}:log", f"{stem}:made", f"{stem}:taken-back"
        self._keys = (self._log, self._made, self._taken, f"{stem}:standing")
        self._add, self._take_back, self._load = (
            self._redis.register_script(text) for text in (_ADD, _TAKE_BACK, _LOAD)
        )

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        lines = await _reached(self._load(keys=self._keys, args=[repr(at), MAX_IN_FORCE]))
        return tuple(entry_of(number, text).adjustment for number, text in sorted(lines))

    async def find(self, adjustment_id: str) -> LogEntry | None:
        return await self._line(self._taken, adjustment_id) or await self._line(self._made, adjustment_id)

    async def add(self, adjustment: Adjustment) -> LogEntry:
        ends = ends_at(adjustment)
        arguments: list[str | int] = [
            adjustment.id,
            text_of(adjustment),
            "+inf" if ends == inf else repr(ends),
            repr(adjustment.at - EXPIRED_KEPT_SECONDS),
            MAX_IN_FORCE,
        ]
        number, text = await _reached(self._add(keys=self._keys, args=arguments))
        if not number:
            raise TooManyAdjustments
        return entry_of(number, text)

    async def take_back(self, adjustment_id: str, taken_back: TakenBack) -> LogEntry | None:
        made = await self._line(self._made, adjustment_id)  # lines never change: it may be read beforehand
        if made is None:
            return None
        arguments = [adjustment_id, text_of(made.adjustment, taken_back)]
        number, text = await _reached(self._take_back(keys=self._keys, args=arguments))
        return entry_of(number, text)

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        newest = await _reached(self._redis.hlen(self._log))
        if before is not None:
            newest = min(newest, before - 1)
        numbers = range(newest, max(newest - at_most, 0), -1)
        if not numbers:
            return ()
        texts = await _reached(
            cast("Awaitable[list[bytes]]", self._redis.hmget(self._log, [str(number) for number in numbers]))
        )
        return tuple(entry_of(number, text) for number, text in zip(numbers, texts, strict=True))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _line(self, index: str, adjustment_id: str) -> LogEntry | None:
        number = await _reached(cast("Awaitable[bytes | None]", self._redis.hget(index, adjustment_id)))
        if number is None:
            return None
        text = await _reached(cast("Awaitable[bytes | None]", self._redis.hget(self._log, number.decode())))
        return entry_of(int(number), text or b"")


async def _reached(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except (RedisError, OSError) as error:
        # The message of a connection error names host and port, never the password.
        raise StoreUnavailable(f"the adjustments in Redis cannot be reached: {error}") from error
