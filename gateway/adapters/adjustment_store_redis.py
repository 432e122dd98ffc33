"""The log of adjustments in Redis, for several replicas.

Lines stand in a hash by their number and are never written twice. Each change is one script: atomic, and safe
to run again when its reply was lost, since it answers what is there. What Redis forgets is written
back from each replica's mirror: see `adjustment_store_mirrored.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, cast

from gateway.adapters.adjustment_store_text import entry_of, text_of
from gateway.adapters.redis_records import reached, records_client
from gateway.core.adjustments import (
    EXPIRED_KEPT_SECONDS,
    MAX_IN_FORCE,
    Adjustment,
    LogEntry,
    TakenBack,
    ends_at,
)
from gateway.core.errors import TooManyAdjustments

_WHAT = "the adjustments"

# KEYS: log (number -> line), made (id -> number), taken back (id -> number), standing (id by its end),
# chain (number -> digest of all lines up to it). The empty member of standing tells that the key is there.
_APPEND = """
local function append(line)
    local number = redis.call('HLEN', KEYS[1]) + 1
    local before = redis.call('HGET', KEYS[5], number - 1) or ''
    redis.call('HSET', KEYS[1], number, line)
    redis.call('HSET', KEYS[5], number, redis.sha1hex(before .. line))
    redis.call('ZADD', KEYS[4], '+inf', '')
    return number
end
"""
_ADD = f"""{_APPEND}
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then return {{tonumber(known), redis.call('HGET', KEYS[1], known)}} end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[4])
if redis.call('ZCARD', KEYS[4]) > tonumber(ARGV[5]) then return {{0, ''}} end
local number = append(ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], number)
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return {{number, ARGV[2]}}
"""
_TAKE_BACK = f"""{_APPEND}
local known = redis.call('HGET', KEYS[3], ARGV[1])
if known then return {{tonumber(known), redis.call('HGET', KEYS[1], known)}} end
local number = append(ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], number)
redis.call('ZREM', KEYS[4], ARGV[1])
return {{number, ARGV[2]}}
"""
# Lines of another copy of the log, each once; whichever of an adjustment's two comes first.
_KEEP = f"""{_APPEND}
for i = 1, #ARGV, 4 do
    local id, line, ends, made = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '0'
    local index = made and KEYS[2] or KEYS[3]
    if redis.call('HEXISTS', index, id) == 0 then
        redis.call('HSET', index, id, append(line))
        if not made then
            redis.call('ZREM', KEYS[4], id)
        elseif redis.call('HEXISTS', KEYS[3], id) == 0 then
            redis.call('ZADD', KEYS[4], ends, id)
        end
    end
end
"""
# What stands, the digest up to a number, and whether all keys tell of the same lines.
_LOOK = """
local lines = {}
local ids = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2] + 1)
for _, id in ipairs(ids) do
    local number = id ~= '' and redis.call('HGET', KEYS[2], id)
    if number then lines[#lines + 1] = {tonumber(number), redis.call('HGET', KEYS[1], number) or ''} end
end
local length = redis.call('HLEN', KEYS[1])
local whole = length == redis.call('HLEN', KEYS[2]) + redis.call('HLEN', KEYS[3])
    and length == redis.call('HLEN', KEYS[5]) and (length == 0 or redis.call('ZSCORE', KEYS[4], ''))
return {length, redis.call('HGET', KEYS[5], ARGV[3]) or '', whole and 1 or 0, lines}
"""
# The lines behind a number, if the digest up to it is the one that is given.
_FOLLOW = """
local after, length = tonumber(ARGV[1]), redis.call('HLEN', KEYS[1])
if (redis.call('HGET', KEYS[5], after) or '') ~= ARGV[2] or length < after then return false end
local last, lines = math.min(after + tonumber(ARGV[3]), length), {}
for number = after + 1, last do lines[#lines + 1] = redis.call('HGET', KEYS[1], number) or '' end
return {redis.call('HGET', KEYS[5], last) or '', lines}
"""
# The other keys, made anew from the lines; nothing where there are not so many lines any more.
_MEND = """
if redis.call('HLEN', KEYS[1]) ~= #ARGV / 3 then return end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
local digest = ''
for i = 1, #ARGV, 3 do
    local number, id, ends, made = (i + 2) / 3, ARGV[i], ARGV[i + 1], ARGV[i + 2] == '0'
    redis.call('HSET', made and KEYS[2] or KEYS[3], id, number)
    if made then redis.call('ZADD', KEYS[4], ends, id) end
    digest = redis.sha1hex(digest .. redis.call('HGET', KEYS[1], number))
    redis.call('HSET', KEYS[5], number, digest)
end
for _, id in ipairs(redis.call('HKEYS', KEYS[3])) do redis.call('ZREM', KEYS[4], id) end
redis.call('ZADD', KEYS[4], '+inf', '')
"""

Known = tuple[int, str]
"""The log up to some line: how many, and their digest."""
EMPTY: Final[Known] = (0, "")


@dataclass(frozen=True, slots=True)
class Look:
    """The log at one instant."""

    length: int
    digest: str
    """Up to the line that was asked for; empty where there is none."""
    whole: bool
    """False where one of the keys was lost that tell of the lines: see `mend`."""
    standing: tuple[Adjustment, ...]


class RedisAdjustmentStore:
    """`ports.AdjustmentStore` under `{<prefix>}:adjustments`. Owns its connections."""

    def __init__(self, url: str, *, prefix: str = "cgw", timeout_seconds: float = 0.5) -> None:
        self._redis = records_client(url, prefix, timeout_seconds)
        # The braces put all keys into one slot of a cluster.
        stem = f"{{{prefix}}}:adjustments"
        self._log, self._made, self._taken = f"{stem}:log", f"{stem}:made", f"{stem}:taken-back"
        self._keys = (self._log, self._made, self._taken, f"{stem}:standing", f"{stem}:chain")
        self._add, self._take_back, self._keep, self._look, self._follow, self._mend = map(
            self._redis.register_script, (_ADD, _TAKE_BACK, _KEEP, _LOOK, _FOLLOW, _MEND)
        )

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        return (await self.look(at, 0)).standing

    async def look(self, at: float, number: int) -> Look:
        """What `load` gives, how long the log is, and its digest up to line `number`, of one instant. Raises
        `StoreUnavailable`."""
        arguments: list[str | int] = [repr(at), MAX_IN_FORCE, number]
        length, digest, whole, lines = await reached(_WHAT, self._look(keys=self._keys, args=arguments))
        return Look(
            length,
            digest.decode(),
            bool(whole),
            tuple(entry_of(at_number, line).adjustment for at_number, line in sorted(lines)),
        )

    async def follow(self, known: Known, at_most: int) -> tuple[tuple[LogEntry, ...], Known] | None:
        """The next lines behind what is known, and what is known with them; None where the log does not begin
        like that any more. Raises `StoreUnavailable`."""
        arguments: list[str | int] = [*known, at_most]
        found = await reached(_WHAT, self._follow(keys=self._keys, args=arguments))
        if found is None:
            return None
        digest, texts = found
        entries = tuple(entry_of(number, text) for number, text in enumerate(texts, known[0] + 1))
        return entries, (known[0] + len(texts), digest.decode())

    async def mend(self) -> None:
        """Make all keys anew from the lines. Raises `StoreUnavailable`, also where a line itself is lost."""
        length = await reached(_WHAT, self._redis.hlen(self._log))
        numbers = range(1, length + 1)
        texts = await reached(
            _WHAT,
            cast("Awaitable[list[bytes | None]]", self._redis.hmget(self._log, [str(n) for n in numbers])),
        )
        arguments: list[str | int] = []
        for entry in (entry_of(number, text or b"") for number, text in zip(numbers, texts, strict=True)):
            arguments += (entry.adjustment.id, _end_of(entry), int(entry.taken_back is not None))
        await reached(_WHAT, self._mend(keys=self._keys, args=arguments))

    async def keep(self, entries: Sequence[LogEntry]) -> None:
        """Have these lines of another copy of the log, each once, by new numbers where they are missing; all
        or none of them. Some hundreds at once: Redis serves calls meanwhile. Raises `StoreUnavailable`."""
        arguments: list[str | int] = []
        for entry in entries:
            arguments += (entry.adjustment.id, text_of(entry.adjustment, entry.taken_back))
            arguments += (_end_of(entry), int(entry.taken_back is not None))
        await reached(_WHAT, self._keep(keys=self._keys, args=arguments))

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
        number, text = await reached(_WHAT, self._add(keys=self._keys, args=arguments))
        if not number:
            raise TooManyAdjustments
        return entry_of(number, text)

    async def take_back(self, adjustment_id: str, taken_back: TakenBack) -> LogEntry | None:
        made = await self._line(self._made, adjustment_id)  # lines never change: it may be read beforehand
        if made is None:
            return None
        arguments = [adjustment_id, text_of(made.adjustment, taken_back)]
        number, text = await reached(_WHAT, self._take_back(keys=self._keys, args=arguments))
        return entry_of(number, text)

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        newest = await reached(_WHAT, self._redis.hlen(self._log))
        if before is not None:
            newest = min(newest, before - 1)
        numbers = range(newest, max(newest - at_most, 0), -1)
        if not numbers:
            return ()
        texts = await reached(
            _WHAT,
            cast("Awaitable[list[bytes]]", self._redis.hmget(self._log, [str(number) for number in numbers])),
        )
        return tuple(entry_of(number, text) for number, text in zip(numbers, texts, strict=True))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _line(self, index: str, adjustment_id: str) -> LogEntry | None:
        number = await reached(_WHAT, cast("Awaitable[bytes | None]", self._redis.hget(index, adjustment_id)))
        if number is None:
            return None
        text = await reached(
            _WHAT, cast("Awaitable[bytes | None]", self._redis.hget(self._log, number.decode()))
        )
        return entry_of(int(number), text or b"")


def _end_of(entry: LogEntry) -> str:
    ends = ends_at(entry.adjustment)
    return "+inf" if ends == inf else repr(ends)
