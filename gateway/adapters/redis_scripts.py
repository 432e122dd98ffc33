"""Runs Lua scripts in Redis within a deadline: connections, the one retry, the breaker, errors by kind.

Nothing here knows what the scripts do, except that each is idempotent: a reply that was lost makes the script
run again. The client library's own retries are off, for the same reason and for their length.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.adapters.patience import Patience
from gateway.adapters.redis_topology import connection_pool
from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock
from gateway.tasks import TaskSet

ATTEMPT_SECONDS: Final = 0.25
"""For one try at an operation, connecting included; there are two at most."""

AT_ONCE: Final = 64
"""How many operations are under way at once; the others queue, within their own deadline."""


@dataclass(frozen=True, slots=True)
class Script:
    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # The name under which Redis keeps a script; no secret is made with it.
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


class Breaker:
    """After `FAILURES` failures in a row refuses everything for `REST_SECONDS`, then lets one attempt through
    to try. A dead Redis so costs one request a second its deadline, not every request."""

    FAILURES: Final = 3
    REST_SECONDS: Final = 1.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._rests_until = 0.0

    def refuses(self) -> bool:
        """Whether to not even try; where it lets one try, the others wait for what becomes of it."""
        if self._failures < self.FAILURES:
            return False
        now = self._clock.monotonic()
        if now < self._rests_until:
            return True
        self._rests_until = now + self.REST_SECONDS
        return False

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._rests_until = self._clock.monotonic() + self.REST_SECONDS


class RedisScripts:
    """Connections to one Redis. Every failure is raised as `StoreUnavailable`, after two tries at most.

    Scripts that are asked for in one turn of the loop go out together and are answered together, so that a
    crowd of calls pays for few round trips. Only what costs time opens the breaker: no connection, or no
    answer. A quick refusal by a server that is there (out of memory, read-only, loading) does not, so that it
    is noticed at once when it is over.
    """

    def __init__(self, url: str, clock: Clock, prefix: str) -> None:
        """`prefix` is the hash tag of all keys that the scripts are given."""
        self._pool = connection_pool(
            url,
            prefix,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # one timer around each attempt does it all
            socket_connect_timeout=None,
        )
        self._idle: list[AbstractConnection] = []
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._breaker = Breaker(clock)
        self._asked: list[_Question] = []
        """In this turn of the loop."""
        self._carrying = TaskSet()
        self._closed = False
        self._server: tuple[object, object] = (None, None)
        """The one that was connected to last."""
        self.connects = 0
        """How often a connection was made: at each another server may have answered, or other data."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
        """The script's reply, undecoded. Raises StoreUnavailable; its `outcome_known` is False where the
        script may have run all the same."""
        if self._closed:
            raise StoreUnavailable("The connection to Redis is closed.")
        if self._breaker.refuses():
            raise StoreUnavailable("Redis did not answer just now; it is tried again every second.")
        loop = asyncio.get_running_loop()
        started = loop.time()
        question = _Question(script, (len(keys), *keys, *args), loop.create_future())
        try:
            await self._ask(question, loop)
            if question.error is not None:
                raise question.error
        except (*_SILENCE, RedisError) as error:
            raise self._unavailable(error, question) from error
        except asyncio.CancelledError:
            # Whoever asked had less time than this has: to wait so long for nothing is a failure too.
            if loop.time() - started >= ATTEMPT_SECONDS:
                self._breaker.failed()
            raise
        self._breaker.succeeded()
        return question.reply

    async def close(self) -> None:
        """What is under way may end within `ATTEMPT_SECONDS`."""
        self._closed = True
        await self._carrying.drain(ATTEMPT_SECONDS)
        await self._drop_idle()

    async def _ask(self, question: _Question, loop: asyncio.AbstractEventLoop) -> None:
        """Until it is over with the question. One whose caller leaves is answered all the same, to nobody."""
        if self._slots.locked():
            async with Patience(ATTEMPT_SECONDS):
                await self._slots.acquire()
        else:
            await self._slots.acquire()
        try:
            if not self._asked:
                loop.call_soon(self._send)
            self._asked.append(question)
            await question.over
        finally:
            self._slots.release()

    def _send(self) -> None:
        questions, self._asked = [each for each in self._asked if not each.over.done()], []
        self._carrying.spawn(self._carry(questions), "asking Redis")

    async def _carry(self, questions: list[_Question]) -> None:
        """Have each answered, or failed."""
        error: Exception = RedisConnectionError("the connection was closed")
        try:
            try:
                await self._attempt(questions)
            except _SILENCE as silence:
                # An idle connection that turns out dead is seldom the only one.
                await self._drop_idle()
                questions = [question for question in questions if not question.over.done()]
                if isinstance(silence, _ANSWERS) or not all(question.sent for question in questions):
                    raise
                # They may have run, or not. Being idempotent they may run again, on a fresh connection.
                for question in questions:
                    question.tried_again = True
                await self._attempt(questions)
        except Exception as failure:
            error = failure
        finally:
            for question in questions:
                question.end(error=error)

    async def _attempt(self, questions: Sequence[_Question]) -> None:
        """Raises what concerns all that have no answer yet."""
        async with Patience(ATTEMPT_SECONDS):
            connection = self._idle.pop() if self._idle else self.new_connection()
            try:
                if not connection.is_connected:
                    await connection.connect()  # type: ignore[no-untyped-call]
                    self.connects += 1
                    self._server = _server(connection)
                for question in questions:
                    question.sent = True
                refused = await _evaluate(connection, questions)
            except BaseException:
                # Also a cancellation: an answer that is still to come must not be taken for another's.
                await connection.disconnect(nowait=True)
                raise
            if refused:  # a failover: this leads to what was the master
                await connection.disconnect(nowait=True)
                await self._drop_idle()
            await self._keep(connection)

    async def _keep(self, connection: AbstractConnection) -> None:
        # After a failover those that lead to what was the master are not used again.
        if self._closed or _server(connection) != self._server:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)

    def new_connection(self) -> AbstractConnection:
        """One that is not connected yet, for whoever reads for long; its owner disconnects it."""
        # The library's pool only knows how to make one; lending is a list here, which a cancellation cannot
        # leave half done.
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    def _unavailable(self, error: Exception, question: _Question) -> StoreUnavailable:
        if isinstance(error, (ResponseError, *_ANSWERS)):
            # The server said no, and scripts act whole or not at all. An earlier try may have acted still.
            self._breaker.succeeded()
            what = str(error).partition(" script: ")[0].rstrip(".")
            return StoreUnavailable(f"Redis refuses: {what}.", outcome_known=not question.tried_again)
        self._breaker.failed()
        what = str(error).rstrip(".") or f"no answer in {ATTEMPT_SECONDS} s"
        return StoreUnavailable(f"Redis cannot be used: {what}.", outcome_known=not question.sent)


_SILENCE: Final = (RedisTimeoutError, RedisConnectionError, TimeoutError, OSError)
"""No connection or no answer; `RedisConnectionError` also has a few subclasses that are answers."""

_ANSWERS: Final = (BusyLoadingError, AuthenticationError, AuthorizationError)


def _server(connection: AbstractConnection) -> tuple[object, object]:
    """Where it leads: one that asks Sentinels or a Cluster finds that when it connects."""
    return getattr(connection, "host", None), getattr(connection, "port", None)


class _Question:
    """One script on its way to the server and back, and what is known of it over its tries."""

    __slots__ = ("args", "command", "error", "over", "reply", "script", "sent", "tried_again")

    def __init__(
        self, script: Script, args: tuple[str | int | bytes, ...], over: asyncio.Future[None]
    ) -> None:
        self.script = script
        self.args = args
        self.command = _packed("EVALSHA", script.digest, *args)
        self.over = over
        self.reply: Any = None
        self.error: Exception | None = None
        self.sent = False
        """It may have reached the server."""
        self.tried_again = False

    def end(self, reply: Any = None, error: Exception | None = None) -> None:
        """Once; whoever asked may have left."""
        if not self.over.done():
            self.reply, self.error = reply, error
            self.over.set_result(None)


async def _evaluate(connection: AbstractConnection, questions: Sequence[_Question]) -> bool:
    """Ask all and end those that are answered, with a refusal too; whether one was that this server only
    reads. Raises where the connection breaks: then the others have no answer."""
    await connection.send_packed_command([each.command for each in questions], check_health=False)
    unknown: list[_Question] = []
    only_reads = False
    for question in questions:
        try:
            question.end(await connection.read_response(disable_decoding=True))
        except NoScriptError:
            unknown.append(question)
        except ResponseError as error:
            only_reads = only_reads or isinstance(error, ReadOnlyError)
            question.end(error=error)
    for question in unknown:  # restarted, failed over or flushed: nothing has run; this also loads it
        try:
            question.end(await ask(connection, "EVAL", question.script.source, *question.args))
        except ResponseError as error:
            only_reads = only_reads or isinstance(error, ReadOnlyError)
            question.end(error=error)
    return only_reads


async def ask(connection: AbstractConnection, *command: str | int | bytes) -> Any:
    """One command and its answer, undecoded. Packed in C: the library takes six times as long for fifty
    arguments."""
    await connection.send_packed_command(_packed(*command), check_health=False)
    return await connection.read_response(disable_decoding=True)


def _packed(*command: str | int | bytes) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]
    return packed
