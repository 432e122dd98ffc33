"""The live calls of all replicas on one Redis: whoever is asked for them asks the others.

Each replica listens on a channel of its own, so that those that Redis has listeners for are those that there
are. A question is one message to each of them; the answer, a bounded list, comes back as one message. Nothing
is stored; while nobody looks, each replica asks now and then whether it would hear a question, and no more.
Without Redis there is nobody to ask. What is said of a call is `core/live.py`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import socket
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway.adapters.live_calls import LiveCalls
from gateway.adapters.redis_topology import client
from gateway.adapters.workers_live import WorkersLive
from gateway.core.live import Live, Told, bounded, merged
from gateway.core.worker import Worker
from gateway.ports import Clock
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

MOST_CALLS: Final = 200
"""That one replica tells another."""
ANSWER_SECONDS: Final = 1.5
"""For the whole question; a replica gives its own workers one second."""
FRESH_SECONDS: Final = 0.5
"""An answer serves everybody who asks within so long: what it costs does not grow with who looks."""
QUIET_SECONDS: Final = 10.0
"""After so long without a question it is looked whether one would be heard."""
AGAIN_SECONDS: Final = 1.0
"""Before listening is tried again."""


class _Answer(msgspec.Struct, frozen=True):
    replica: str
    told: Told


class ReplicasLive:
    """`own`, those of the other workers, and those of the other replicas. `start` it to let other workers
    ask, `run` it to let other replicas; `close` it at the end. Of several workers the first answers for all
    of them, and each may ask."""

    def __init__(
        self, own: LiveCalls, worker: Worker | None, *, clock: Clock, url: str | None, prefix: str
    ) -> None:
        """`url` is that of the Redis that replicas share."""
        self._own = WorkersLive(own, worker)
        self._name = own.replica
        self._answers = worker is None or worker.is_first
        self._clock = clock
        self._url = url
        self._prefix = prefix
        # In braces, as all names that a user of Redis may be restricted to.
        self._questions = f"{{{prefix}}}:live:"
        self._replies = f"{{{prefix}}}:live-replies:"
        self._last: tuple[float, bytes] = (float("-inf"), b"")

    async def start(self) -> None:
        """Raises OSError."""
        await self._own.start()

    def run(self, loops: TaskSet) -> None:
        """Answer the others."""
        if self._url is not None and self._answers:
            loops.spawn(self._listen(self._url), "telling replicas of live calls")

    async def close(self) -> None:
        await self._own.close()

    @property
    def last_used(self) -> Mapping[str, float]:
        """As `WorkersLive.last_used`: of this replica."""
        return self._own.last_used

    async def live(self) -> Live:
        """The calls of all replicas, within two seconds. Raises nothing: what is missing is said."""
        if self._url is None:
            return Live(told=await self._own.told(), replicas=[self._name])
        answers: dict[str, Told] = {}
        asking = asyncio.gather(self._own.told(), self._ask(self._url, answers))
        own, (asked, trouble) = await asking
        return Live(
            told=merged([own, *answers.values()]),
            replicas=[self._name, *sorted(answers)],
            silent=sorted(asked - answers.keys()),
            shared=True,
            trouble=trouble,
        )

    def _connected(self, url: str) -> Redis:
        """Anew for each question and answer: a message harms no replica of Redis, so that nobody would notice
        that a connection leads to what was the master before a failover, where it is heard by nobody."""
        return client(
            url,
            self._prefix,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
        )

    async def _ask(self, url: str, answers: dict[str, Told]) -> tuple[set[str], str]:
        """Fills `answers`; who was asked, and why nobody could be."""
        asked: set[str] = set()
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._connected(url) as redis,
                redis.pubsub() as hearing,
            ):
                reply_to = secrets.token_hex(8)
                await hearing.subscribe(self._replies + reply_to)
                await hearing.get_message(timeout=ANSWER_SECONDS)  # that it is: an answer may come at once
                for name in await self._others(redis):
                    if await redis.publish(self._questions + name, reply_to):
                        asked.add(name)
                while answers.keys() != asked:
                    answer = _read(await hearing.get_message(timeout=ANSWER_SECONDS))
                    if answer is not None and answer.replica in asked:
                        answers[answer.replica] = answer.told
        except TimeoutError:
            return asked, "" if asked else "Redis does not answer."
        except (RedisError, OSError) as error:
            return asked, f"Redis cannot be asked: {error}."
        return asked, ""

    async def _others(self, redis: Redis) -> list[str]:
        found: Any = await redis.pubsub_channels(f"{self._questions}*")
        names = (each.decode()[len(self._questions) :] for each in found)
        return [name for name in names if name != self._name]

    async def _listen(self, url: str) -> None:
        failing = False
        while True:
            try:
                async with self._connected(url) as redis, redis.pubsub() as hearing:
                    await hearing.subscribe(self._questions + self._name)
                    if await hearing.get_message(timeout=ANSWER_SECONDS) is None:
                        raise RedisConnectionError("it does not answer")
                    failing = False
                    await self._answer_all(url, hearing)
            except (RedisError, OSError) as error:
                if not failing:
                    log.warning("other replicas cannot ask for live calls: %s", error)
                failing = True
            await self._clock.sleep(AGAIN_SECONDS)

    async def _answer_all(self, url: str, hearing: Any) -> None:
        channel = self._questions + self._name
        while True:
            heard = await hearing.get_message(timeout=QUIET_SECONDS)
            async with self._connected(url) as redis:
                if heard is None:
                    ((_, listeners),) = await redis.pubsub_numsub(channel)
                    if not listeners:
                        raise RedisConnectionError("this replica listens where nobody asks any more")
                elif heard["type"] == "message":
                    reply_to = self._replies + heard["data"].decode("ascii", "replace")
                    await redis.publish(reply_to, await self._tell())

    async def _tell(self) -> bytes:
        at, answer = self._last
        now = self._clock.monotonic()
        if now - at >= FRESH_SECONDS:
            told = bounded(await self._own.told(), MOST_CALLS)
            answer = msgspec.msgpack.encode(_Answer(replica=self._name, told=told))
            self._last = now, answer
        return answer


def replica_name(unique: str, worker: Worker | None) -> str:
    """What people know a replica by: its host, and four digits of what tells this start of it from others."""
    start = worker.folder if worker is not None else unique
    return f"{socket.gethostname()}/{hashlib.sha256(start.encode()).hexdigest()[:4]}"


def _read(heard: dict[str, Any] | None) -> _Answer | None:
    """None: it is no answer that this version understands."""
    if heard is None or heard["type"] != "message":
        return None
    try:
        return msgspec.msgpack.decode(heard["data"], type=_Answer)
    except msgspec.DecodeError as error:
        log.info("a replica does not say which calls it has: %s", error)
        return None
