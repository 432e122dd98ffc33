"""Message batches that are not booked yet, in Redis, for several replicas: a hash of batches, and a sorted
set of when each is due."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import cast

from gateway.adapters.batch_store import UNREADABLE_SECONDS, read_due, read_kept, written
from gateway.adapters.redis_records import reached, records_client
from gateway.core.batch import KeptBatch

# KEYS: batches, due. ARGV: id, the text that is to be there ("" for none), the new text, when it is due.
_PUT = """
local known = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if known ~= ARGV[2] then return known == ARGV[3] and 1 or 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
return 1
"""

_WHAT = "the batches"


class RedisBatchStore:
    """`ports.BatchStore` in Redis. Owns its connections. Every step may be sent twice to the same effect, as
    redis-py does where an answer is lost."""

    def __init__(self, url: str, *, prefix: str = "cgw", timeout_seconds: float = 0.5) -> None:
        self._redis = records_client(url, prefix, timeout_seconds)
        # The braces put both keys into one slot of a cluster.
        self._batches = f"{{{prefix}}}:batches"
        self._due = f"{{{prefix}}}:batches:due"

    async def keep(self, batch: KeptBatch) -> None:
        await self._put(batch, b"")

    async def due(self, now: float, at_most: int) -> tuple[KeptBatch, ...]:
        asked = self._redis.zrange(self._due, "-inf", now, byscore=True, offset=0, num=at_most)
        ids = cast("list[bytes]", await reached(_WHAT, asked))
        if not ids:
            return ()
        texts = await reached(
            _WHAT, cast("Awaitable[list[bytes | None]]", self._redis.hmget(self._batches, ids))
        )
        found, unreadable = read_due(
            (batch_id.decode(), text) for batch_id, text in zip(ids, texts, strict=True) if text is not None
        )
        if unreadable:
            later = dict.fromkeys(unreadable, now + UNREADABLE_SECONDS)
            await reached(_WHAT, self._redis.zadd(self._due, later, xx=True))
        return found

    async def find(self, batch_id: str) -> KeptBatch | None:
        text = await self._text(batch_id)
        return None if text is None else read_kept(text)

    async def change(self, batch: KeptBatch) -> KeptBatch | None:
        text = await self._text(batch.id)
        if text is None or read_kept(text).revision != batch.revision:
            return None
        changed = replace(batch, revision=batch.revision + 1)
        return changed if await self._put(changed, text) else None

    async def forget(self, batch_id: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._batches, batch_id)
            pipeline.zrem(self._due, batch_id)
            await reached(_WHAT, pipeline.execute())

    async def close(self) -> None:
        await self._redis.aclose()

    async def _text(self, batch_id: str) -> bytes | None:
        return await reached(
            _WHAT, cast("Awaitable[bytes | None]", self._redis.hget(self._batches, batch_id))
        )

    async def _put(self, batch: KeptBatch, before: bytes) -> bool:
        keys_and_values = (self._batches, self._due, batch.id, before, written(batch), repr(batch.next_at))
        done = self._redis.eval(_PUT, 2, *keys_and_values)
        return bool(await reached(_WHAT, cast("Awaitable[int]", done)))
