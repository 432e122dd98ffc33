"""The alert log in Redis, for several replicas: what each does is in `alert_log.py`.

Every change is one script. Saving is safe to run again when its reply was lost, but for its answer; taking
again gives what is due next, and what was taken is due once more when its lease ends.
"""

from __future__ import annotations

from gateway.adapters.alert_log import read_entries
from gateway.adapters.redis_records import reached, records_client
from gateway.core.alerts import KEPT_SECONDS, MOST_OPEN, AlertEntry, Begun, entry_text

_WHAT = "the alert log"

# KEYS: texts (id -> text), revisions (id -> number), due (id by when), begun (id by when).
# Forgetting is bounded: Redis serves calls meanwhile.
_BEGIN = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'known' end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[5], 'LIMIT', 0, 100)) do
    redis.call('HDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZREM', KEYS[4], id)
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then return 'full' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], 0)
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return 'new'
"""
_TAKE = """
local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
    redis.call('ZADD', KEYS[3], ARGV[2], id)
    local revision = redis.call('HINCRBY', KEYS[2], id, 1)
    taken[#taken + 1] = {redis.call('HGET', KEYS[1], id), revision}
end
return taken
"""
_SAVE = """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
if ARGV[4] == '' then
    redis.call('ZREM', KEYS[3], ARGV[1])
else
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
end
return 1
"""
_HISTORY = """
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[4], 0, ARGV[1] - 1)) do
    local revision, due = redis.call('HGET', KEYS[2], id), redis.call('ZSCORE', KEYS[3], id)
    found[#found + 1] = {redis.call('HGET', KEYS[1], id), revision, due or ''}
end
return found
"""


class RedisAlertLog:
    """`ports.AlertLog` under `{<prefix>}:alerts`. Owns its connections."""

    def __init__(self, url: str, *, prefix: str = "cgw", timeout_seconds: float = 0.5) -> None:
        self._redis = records_client(url, prefix, timeout_seconds)
        # The braces put all keys into one slot of a cluster.
        self._keys = tuple(f"{{{prefix}}}:alerts:{name}" for name in ("texts", "revisions", "due", "begun"))
        self._begin, self._take, self._save, self._history = (
            self._redis.register_script(text) for text in (_BEGIN, _TAKE, _SAVE, _HISTORY)
        )

    async def begin(self, entry: AlertEntry) -> Begun:
        alert = entry.alert
        assert entry.due_at is not None, "somebody has to be told"
        arguments: list[str | int] = [
            alert.id,
            entry_text(entry),
            repr(alert.at),
            repr(entry.due_at),
            repr(alert.at - KEPT_SECONDS),
            MOST_OPEN,
        ]
        begun: bytes = await reached(_WHAT, self._begin(keys=self._keys, args=arguments))
        return Begun(begun.decode())

    async def take(self, at: float, lease_seconds: float, at_most: int) -> tuple[AlertEntry, ...]:
        until = at + lease_seconds
        taken = await reached(_WHAT, self._take(keys=self._keys, args=[repr(at), repr(until), at_most]))
        return read_entries((text, int(revision), until) for text, revision in taken)

    async def save(self, entry: AlertEntry) -> bool:
        arguments = [
            entry.alert.id,
            entry_text(entry),
            str(entry.revision),
            "" if entry.due_at is None else repr(entry.due_at),
        ]
        return bool(await reached(_WHAT, self._save(keys=self._keys, args=arguments)))

    async def history(self, at_most: int) -> tuple[AlertEntry, ...]:
        found = await reached(_WHAT, self._history(keys=self._keys, args=[at_most]))
        return read_entries(
            (text, int(revision), float(due) if due else None) for text, revision, due in found
        )

    async def waiting(self) -> int:
        return int(await reached(_WHAT, self._redis.zcard(self._keys[2])))

    async def close(self) -> None:
        await self._redis.aclose()
