"""Where the workers of one machine meet that have no Redis to meet in: the other end of `local_peers.py`.

One process keeps the claims, the supervisor, and decides about one after the other. A connection is a
worker's life: with its end its claims are void, and the others hear that it is gone.
"""

from __future__ import annotations

import asyncio
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
    frame,
)
from gateway.ports import Clock

MAX_UNREAD_BYTES: Final = 32 << 20
"""Of news for a worker that does not take them; it misses what comes after."""
EXPIRED_EVERY: Final = 4_096
"""Claims; after so many those that ran out are forgotten."""

_decode = msgspec.msgpack.Decoder(ToHub).decode


class WorkersHub:
    """Listens at `path`, a socket that only its user can reach."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._members: set[_Member] = set()
        self._claims: dict[bytes, tuple[str, str, float]] = {}
        """By name: replica, holder, until when (monotonic)."""
        self._held: dict[tuple[str, str], list[bytes]] = {}
        """Names that a holder may have, by replica and holder."""
        self._since_expired = 0
        self._said: list[tuple[str, bytes]] = []
        """News that came together and go out together, by who told them."""

    async def start(self) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Member(self), self._path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for member in list(self._members):
            member.transport.close()

    # For members

    def join(self, member: _Member) -> None:
        self._members.add(member)

    def leave(self, member: _Member) -> None:
        """It has died, or closed."""
        self._members.discard(member)
        self.hand_out()
        replica = member.replica
        if any(other.replica == replica for other in self._members):
            return
        self._claims = {name: claim for name, claim in self._claims.items() if claim[0] != replica}
        self._held = {owner: names for owner, names in self._held.items() if owner[0] != replica}
        self._said.append((replica, frame(Gone(replica))))
        self.hand_out()

    def claim(self, replica: str, claim: Claim) -> str | None:
        """As `ports.Peers`."""
        now = self._clock.monotonic()
        for name in claim.names:
            owner, holder, until = self._claims.get(name, ("", "", 0.0))
            if until > now and (owner, holder) != (replica, claim.holder):
                return holder
        self._claims |= dict.fromkeys(claim.names, (replica, claim.holder, now + claim.seconds))
        self._held.setdefault((replica, claim.holder), []).extend(claim.names)
        self._since_expired += 1
        if self._since_expired > EXPIRED_EVERY:
            self._expire(now)
        return None

    def give_up(self, replica: str, holder: str) -> None:
        for name in self._held.pop((replica, holder), ()):
            if self._claims.get(name, ("", "", 0.0))[:2] == (replica, holder):
                del self._claims[name]

    def tell(self, replica: str, news: bytes) -> None:
        self._said.append((replica, frame(Heard(replica, news))))

    def hand_out(self) -> None:
        """What was said until now, to all others."""
        said, self._said = self._said, []
        if not said:
            return
        for member in self._members:
            if member.listening and (theirs := [data for teller, data in said if teller != member.replica]):
                member.say(b"".join(theirs))

    def _expire(self, now: float) -> None:
        self._since_expired = 0
        self._claims = {name: claim for name, claim in self._claims.items() if claim[2] > now}
        self._held = {}
        for name, (replica, holder, _) in self._claims.items():
            self._held.setdefault((replica, holder), []).append(name)


class _Member(asyncio.Protocol):
    """One worker's connection."""

    def __init__(self, hub: WorkersHub) -> None:
        self._hub = hub
        self._frames = Frames()
        self.replica = ""
        self.listening = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._hub.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hub.leave(self)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._take(_decode(body))
            self._hub.hand_out()
        except (ValueError, msgspec.DecodeError):
            self.transport.abort()

    def say(self, said: bytes) -> None:
        if self.transport.get_write_buffer_size() < MAX_UNREAD_BYTES:
            self.transport.write(said)

    def _take(self, message: ToHub) -> None:
        match message:
            case Hello(replica):
                self.replica = replica
            case Listen():
                self.listening = True
            case Claim():
                self._hub.hand_out()
                self.say(frame(Claimed(message.number, self._hub.claim(self.replica, message))))
            case GiveUp(holder):
                self._hub.give_up(self.replica, holder)
            case Tell(news):
                self._hub.tell(self.replica, news)
