"""What this replica hears from the others: their news in their order, and which of them has died.

Reads the stream over a connection of its own, from its end on: what was said before is in a snapshot. Who has
died is found by counting beats, not by comparing clocks: while Redis is away nobody beats and nobody dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.adapters.redis_peers_wire import (
    BEAT,
    BEAT_SECONDS,
    FORGOTTEN_MS,
    GATHER_SECONDS,
    GONE_AFTER_BEATS,
    PeerKeys,
    decode_entry,
)
from gateway.adapters.redis_scripts import RedisScripts, ask
from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock

log = logging.getLogger(__name__)

BLOCK_SECONDS: Final = 1.0
"""How long Redis lets one question for news stand open."""
REPLY_SECONDS: Final = 1.0
"""For anything else, and on top of what it may block."""
READ_ENTRIES: Final = 64
"""In one reply: four megabytes at most, some 200 kB where twenty replicas are busy."""
TAKEN_AT_ONCE: Final = 24
"""News; after them, a millisecond or so, everybody else has a turn."""
RECONNECT_SECONDS: Final = (0.1, 0.2, 0.5, 1.0)
"""Before each try in a row; the last for all that follow."""


@dataclass(slots=True)
class _Peer:
    """Another replica that was heard of."""

    number: int
    """Of its last entry."""
    beat: bytes | None = None
    missed: int = 0
    """Beats of ours in a row that found no new one of its."""


class Hearing:
    """The listening half of `RedisPeers`."""

    def __init__(
        self,
        scripts: RedisScripts,
        keys: PeerKeys,
        *,
        replica: str,
        clock: Clock,
        failed: Callable[[str], None],
    ) -> None:
        self._scripts = scripts
        self._keys = keys
        self._replica = replica
        self._clock = clock
        self._failed = failed
        self._read_to: bytes | None = None
        """The last entry that was taken in; None while nothing is read."""
        self._read = asyncio.Event()
        """Set and cleared at once whenever the one before may have changed."""
        self._hurry = asyncio.Event()

    async def heard_up_to(self, entry: bytes) -> None:
        """Return once that entry of the stream was taken in, or as soon as nothing is read. Who asks bounds
        it in time."""
        upto = _number(entry)
        while self._read_to is not None and _number(self._read_to) < upto:
            self._hurry.set()
            await self._read.wait()

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        """As `ports.Peers`. Who does not listen does not beat: the others take it for dead."""
        peers = _Peers(heard, gone, self._failed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_news(peers))
            group.create_task(self._beat(peers))

    async def _read_news(self, peers: _Peers) -> None:
        last: bytes | None = None
        failures = 0
        while True:
            connection = self._scripts.new_connection()
            try:
                async with asyncio.timeout(REPLY_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
                if last is None:
                    last = await self._end(connection)
                while True:
                    self._have_read(last)
                    entries, taken = await self._entries_after(connection, last), 0
                    failures = 0
                    for last, fields in entries:  # noqa: B007 - where to go on
                        taken += self._take(fields, peers)
                        if taken >= TAKEN_AT_ONCE:
                            taken = 0
                            await asyncio.sleep(0)
                    self._have_read(last)
                    if len(entries) < READ_ENTRIES:
                        await self._gather()
            except (RedisError, OSError) as error:
                self._failed("listen")
                if not failures:
                    log.warning("news of the other replicas cannot be read: %s", error)
            finally:
                self._have_read(None)
                await connection.disconnect(nowait=True)
            await self._clock.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    def _have_read(self, entry: bytes | None) -> None:
        self._read_to = entry
        self._read.set()
        self._read.clear()

    async def _gather(self) -> None:
        """Let more news come, unless somebody waits for them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._hurry.wait()
        self._hurry.clear()

    async def _end(self, connection: AbstractConnection) -> bytes:
        """The last entry there is. Asked for once: `$` would mean another entry with each question."""
        reply = await _ask(connection, REPLY_SECONDS, "XREVRANGE", self._keys.stream, "+", "-", "COUNT", 1)
        end: bytes = reply[0][0] if reply else b"0-0"
        return end

    async def _entries_after(
        self, connection: AbstractConnection, last: bytes
    ) -> list[tuple[bytes, list[bytes]]]:
        waited = round(BLOCK_SECONDS * 1000)
        reply = await _ask(
            connection,
            BLOCK_SECONDS + REPLY_SECONDS,
            *("XREAD", "COUNT", READ_ENTRIES, "BLOCK", waited, "STREAMS", self._keys.stream, last),
        )
        entries: list[tuple[bytes, list[bytes]]] = reply[0][1] if reply else []
        return entries

    def _take(self, fields: list[bytes], peers: _Peers) -> int:
        """How many news were in it that are not this replica's own."""
        try:
            entry = decode_entry(fields[1])
        except (ValueError, IndexError, TypeError):
            self._failed("entry")
            return 0
        if entry.replica == self._replica:
            return 0
        peers.said(entry.replica, entry.number, entry.news)
        return len(entry.news)

    async def _beat(self, peers: _Peers) -> None:
        while True:
            try:
                reply: list[bytes] = await self._scripts.run(
                    BEAT, [self._keys.beats], [self._replica, FORGOTTEN_MS]
                )
            except StoreUnavailable:
                self._failed("beat")
                peers.nobody_beats()
            else:
                peers.beats(dict(zip(reply[::2], reply[1::2], strict=True)))
            await self._clock.sleep(BEAT_SECONDS)


class _Peers:
    """Which replicas were heard of, and what is passed on of what they say."""

    def __init__(
        self,
        heard: Callable[[str, bytes], None],
        gone: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._heard = heard
        self._gone = gone
        self._failed = failed
        self._peers: dict[str, _Peer] = {}

    def said(self, replica: str, number: int, news: list[bytes]) -> None:
        peer = self._peers.get(replica)
        if peer is not None and number <= peer.number:
            return  # written twice, since Redis did not say that it had it
        if peer is None:
            peer = self._peers[replica] = _Peer(number)
        elif number > peer.number + 1:
            self._failed("missed")
        peer.number, peer.missed = number, 0
        if not news:
            self._bury(replica)
        for item in news:
            try:
                self._heard(replica, item)
            except Exception:
                self._failed("entry")
                log.exception("news of another replica could not be taken in")

    def beats(self, beats: dict[bytes, bytes]) -> None:
        for replica, peer in list(self._peers.items()):
            beat = beats.get(replica.encode())
            peer.missed = peer.missed + 1 if beat is None or beat == peer.beat else 0
            peer.beat = beat
            if peer.missed >= GONE_AFTER_BEATS:
                self._bury(replica)

    def nobody_beats(self) -> None:
        """Redis is away; when it is back not all find it at once, so they have twice the time."""
        for peer in self._peers.values():
            peer.missed = -GONE_AFTER_BEATS

    def _bury(self, replica: str) -> None:
        del self._peers[replica]
        try:
            self._gone(replica)
        except Exception:
            self._failed("entry")
            log.exception("the end of another replica could not be taken in")


def _number(entry: bytes) -> tuple[int, int]:
    """By which the entries of a stream are ordered."""
    milliseconds, _, count = entry.partition(b"-")
    return int(milliseconds), int(count)


async def _ask(connection: AbstractConnection, seconds: float, *command: str | int | bytes) -> Any:
    async with asyncio.timeout(seconds):
        return await ask(connection, *command)
