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

ATTEMPT_SECONDS: Final = 0.25
"""For one try at an operation, connecting included; there are two at most."""

CONNECTIONS: Final = 64
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

    Only what costs time opens the breaker: no connection, or no answer. A quick refusal by a server that is
    there (out of memory, read-only, loading) does not, so that it is noticed at once when it is over.
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
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._breaker = Breaker(clock)
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
        started = asyncio.get_running_loop().time()
        outcome = _Outcome()
        try:
            try:
                reply = await self._attempt(script, keys, args, outcome)
            except _SILENCE as error:
                # An idle connection that turns out dead is seldom the only one.
                await self._drop_idle()
                if not outcome.sent or isinstance(error, _ANSWERS):
                    raise
                # It may have run, or not. Being idempotent it may run again, on a fresh connection.
                outcome.tried_again = True
                reply = await self._attempt(script, keys, args, outcome)
        except (*_SILENCE, RedisError) as error:
            raise self._unavailable(error, outcome) from error
        except asyncio.CancelledError:
            # Whoever asked had less time than this has: to wait so long for nothing is a failure too.
            if asyncio.get_running_loop().time() - started >= ATTEMPT_SECONDS:
                self._breaker.failed()
            raise
        self._breaker.succeeded()
        return reply

    async def close(self) -> None:
        self._closed = True
        await self._drop_idle()

    async def _attempt(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | int | bytes],
        outcome: _Outcome,
    ) -> Any:
        async with Patience(ATTEMPT_SECONDS), self._slots:
            connection = self._idle.pop() if self._idle else self.new_connection()
            try:
                if not connection.is_connected:
                    await connection.connect()  # type: ignore[no-untyped-call]
                    self.connects += 1
                    self._server = _server(connection)
                outcome.sent = True
                reply = await _evaluate(connection, script, keys, args)
            except ResponseError as error:
                if isinstance(error, ReadOnlyError):  # a failover: this leads to what was the master
                    await connection.disconnect(nowait=True)
                    await self._drop_idle()
                await self._keep(connection)
                raise
            except BaseException:
                # Also a cancellation: an answer that is still to come must not be taken for another's.
                await connection.disconnect(nowait=True)
                raise
            await self._keep(connection)
            return reply

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

    def _unavailable(self, error: Exception, outcome: _Outcome) -> StoreUnavailable:
        if isinstance(error, (ResponseError, *_ANSWERS)):
            # The server said no, and scripts act whole or not at all. An earlier try may have acted still.
            self._breaker.succeeded()
            what = str(error).partition(" script: ")[0].rstrip(".")
            return StoreUnavailable(f"Redis refuses: {what}.", outcome_known=not outcome.tried_again)
        self._breaker.failed()
        what = str(error).rstrip(".") or f"no answer in {ATTEMPT_SECONDS} s"
        return StoreUnavailable(f"Redis cannot be used: {what}.", outcome_known=not outcome.sent)


_SILENCE: Final = (RedisTimeoutError, RedisConnectionError, TimeoutError, OSError)
"""No connection or no answer; `RedisConnectionError` also has a few subclasses that are answers."""

_ANSWERS: Final = (BusyLoadingError, AuthenticationError, AuthorizationError)


def _server(connection: AbstractConnection) -> tuple[object, object]:
    """Where it leads: one that asks Sentinels or a Cluster finds that when it connects."""
    return getattr(connection, "host", None), getattr(connection, "port", None)


@dataclass(slots=True)
class _Outcome:
    """What is known of an operation over its tries."""

    sent: bool = False
    """The script may have reached the server."""
    tried_again: bool = False


async def _evaluate(
    connection: AbstractConnection, script: Script, keys: Sequence[str], args: Sequence[str | int | bytes]
) -> Any:
    try:
        return await ask(connection, "EVALSHA", script.digest, len(keys), *keys, *args)
    except NoScriptError:  # restarted, failed over or flushed: nothing has run; this also loads it
        return await ask(connection, "EVAL", script.source, len(keys), *keys, *args)


async def ask(connection: AbstractConnection, *command: str | int | bytes) -> Any:
    """One command and its answer, undecoded. Packed in C: the library takes six times as long for fifty
    arguments."""
    await connection.send_packed_command(pack_command(command), check_health=False)  # type: ignore[arg-type]
    return await connection.read_response(disable_decoding=True)
