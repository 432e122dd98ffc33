"""`ports.Peers` over a socket of the same machine: workers that meet at the supervisor's `workers_hub.py`.

All that is said goes through one connection, in its order. Where the hub is not there a worker goes on alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Final, cast

import msgspec

from gateway.adapters.workers_wire import (
    Claim,
    Claimed,
    Frames,
    GiveUp,
    Gone,
    Heard,
    Hello,
    Listen,
    Tell,
    ToHub,
    ToWorker,
    frame,
)
from gateway.tasks import TaskSet

CLAIM_SECONDS: Final = 0.2
CLOSE_SECONDS: Final = 0.5
AGAIN_SECONDS: Final = 1.0
"""Between attempts to reach a hub that is gone."""
TOGETHER_SECONDS: Final = 0.05
"""News that are told within so long go out together, unless a claim, or giving one up, takes them along."""
MAX_HOLDERS: Final = 1 << 14
"""Calls that may have claims; claims run out by themselves too."""
MAX_UNSENT_BYTES: Final = 32 << 20

_decode = msgspec.msgpack.Decoder(ToWorker).decode


class LocalPeers:
    """The other workers, by way of the hub at `path`. `replica` is unique to this start of the process;
    `failed` is told `claim` or `tell` for what could not be said."""

    def __init__(self, path: str, *, replica: str, failed: Callable[[str], None]) -> None:
        self._path = path
        self._replica = replica
        self._failed = failed
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._holders: dict[str, None] = {}
        """Who asked for claims: nobody else has any to give up."""
        self._known: set[str] = set()
        self._heard: Callable[[str, bytes], None] | None = None
        self._gone: Callable[[str], None] | None = None
        self._link: _Link | None = None
        self._unsent: list[bytes] = []
        """Until the connection is made, or until more comes."""
        self._flushing: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tasks = TaskSet()
        self._closed = False

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        """As `ports.Peers`."""
        if self._closed:
            return None
        number = next(self._numbers)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._holders[holder] = None
        if len(self._holders) > MAX_HOLDERS:
            del self._holders[next(iter(self._holders))]
        try:
            self._say(Claim(number, list(names), holder, seconds))
            async with asyncio.timeout(CLAIM_SECONDS):
                return await answer
        except TimeoutError:
            self._failed("claim")
            return None
        finally:
            del self._asked[number]

    def give_up(self, holder: str) -> None:
        """As `ports.Peers`."""
        if holder in self._holders:
            del self._holders[holder]
            self._say(GiveUp(holder))

    def tell(self, news: bytes) -> None:
        """As `ports.Peers`."""
        if self._closed:
            return
        if self._link is not None and self._link.is_full():
            self._failed("tell")
            return
        self._unsent.append(frame(Tell(news)))
        if self._link is None:
            self._connect()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._flush)

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        """As `ports.Peers`: of workers that were heard of, from the start of listening on."""
        self._heard, self._gone = heard, gone
        self._say(Listen())
        try:
            while True:
                self._connect()
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            self._heard = self._gone = None

    async def close(self) -> None:
        """Say what is left, as far as that takes half a second."""
        self._closed = True
        if self._connecting is not None:
            await asyncio.wait((self._connecting,), timeout=CLOSE_SECONDS)
        self._flush()
        if self._link is not None:
            await self._link.close(CLOSE_SECONDS)
        await self._tasks.drain(0.0)

    # For the connection

    def take(self, message: ToWorker) -> None:
        """What the hub says."""
        match message:
            case Claimed(number, owner):
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(owner)
            case Heard(replica, news):
                if self._heard is not None:
                    self._known.add(replica)
                    self._heard(replica, news)
            case Gone(replica):
                if replica in self._known and self._gone is not None:
                    self._known.discard(replica)
                    self._gone(replica)

    def lost(self, link: _Link) -> None:
        """The hub has gone."""
        if self._link is link:
            self._link = None

    def _say(self, message: ToHub) -> None:
        """At once, after all that was to be told."""
        if self._closed:
            return
        self._unsent.append(frame(message))
        self._connect()
        self._flush()

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._link is not None and self._unsent:
            self._link.transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _connect(self) -> None:
        if self._link is None and self._connecting is None and not self._closed:
            self._connecting = self._tasks.spawn(self._open(), "reaching the other workers")

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                _, link = await loop.create_unix_connection(lambda: _Link(self), self._path)
            link.transport.write(frame(Hello(self._replica)))
            if self._heard is not None:
                link.transport.write(frame(Listen()))
            self._link = link
            self._flush()
        except (OSError, TimeoutError):
            self._unsent.clear()  # what was to be said is old when the hub is back
        finally:
            self._connecting = None


class _Link(asyncio.Protocol):
    """The connection."""

    def __init__(self, peers: LocalPeers) -> None:
        self._peers = peers
        self._frames = Frames()
        self._ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.lost(self)
        if not self._ended.done():
            self._ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._peers.take(_decode(body))
        except (ValueError, msgspec.DecodeError):
            self.transport.abort()

    def is_full(self) -> bool:
        """Whether the hub does not take what it is told."""
        return self.transport.is_closing() or self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    async def close(self, seconds: float) -> None:
        """What was written goes out first."""
        self.transport.close()
        await asyncio.wait((self._ended,), timeout=seconds)
