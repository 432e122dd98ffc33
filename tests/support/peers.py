"""Replicas in one process that know of each other: `ports.Peers` without Redis, for tests of what uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.ports import Clock


@dataclass
class Hub:
    """What the replicas share. `away`: nobody can be reached; nothing that is told then is heard."""

    clock: Clock
    away: bool = False
    claims: dict[bytes, tuple[str, str, float]] = field(default_factory=dict)
    """By name: replica, holder, until when (monotonic)."""
    members: dict[str, MemoryPeers] = field(default_factory=dict)

    def join(self, replica: str) -> MemoryPeers:
        self.members[replica] = peers = MemoryPeers(self, replica)
        return peers

    def leave(self, replica: str) -> None:
        """It has died, or closed: the others hear of it, and its claims are void."""
        if self.members.pop(replica, None) is None:
            return
        self.claims = {name: claim for name, claim in self.claims.items() if claim[0] != replica}
        for peers in self.members.values():
            peers.inbox.put_nowait((replica, None))


class MemoryPeers:
    """One replica's view of a `Hub`."""

    def __init__(self, hub: Hub, replica: str) -> None:
        self._hub = hub
        self._replica = replica
        self._known: set[str] = set()
        self.inbox: asyncio.Queue[tuple[str, bytes | None]] = asyncio.Queue()
        self.listening = False

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        await asyncio.sleep(0)
        if self._hub.away:
            return None
        now = self._hub.clock.monotonic()
        for name in names:
            replica, owner, until = self._hub.claims.get(name, ("", "", 0.0))
            if until > now and (replica, owner) != (self._replica, holder):
                return owner
        self._hub.claims |= dict.fromkeys(names, (self._replica, holder, now + seconds))
        return None

    def give_up(self, holder: str) -> None:
        mine = (self._replica, holder)
        self._hub.claims = {name: claim for name, claim in self._hub.claims.items() if claim[:2] != mine}

    def tell(self, news: bytes) -> None:
        if self._hub.away or self._replica not in self._hub.members:
            return
        for replica, peers in self._hub.members.items():
            if replica != self._replica and peers.listening:
                peers.inbox.put_nowait((self._replica, news))

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        self.listening = True
        while True:
            replica, news = await self.inbox.get()
            if news is not None:
                self._known.add(replica)
                heard(replica, news)
            elif replica in self._known:
                self._known.discard(replica)
                gone(replica)

    async def close(self) -> None:
        self._hub.leave(self._replica)
