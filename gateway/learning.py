"""The policy that learns, and what is around it: the other replicas, the recording, and the memory that
outlives a restart. What is learned, and what is decided by it, is in `core/learned.py`."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.adapters.give_way import give_way
from gateway.adapters.recording import Recording
from gateway.core.changes import Changes
from gateway.core.errors import StoreUnavailable
from gateway.core.learned import LearnedPolicy
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.news import Answered, Billed, Failed, News, Sent, decode, encode
from gateway.core.planner import PlannerOptions
from gateway.core.planner.listing import PrefixListing
from gateway.core.planner.snapshot import begin_bytes
from gateway.placing import Flights
from gateway.ports import Clock, Peers, Shelf
from gateway.tasks import TaskSet
from gateway.workers.periodic import every

log = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
"""How much of what was learned a crash may forget."""
AGE_SECONDS = 0.5
"""A burst grows older as fast as it came: the first call after a pause found 11 ms of it to do."""
CLAIMED_SECONDS = 55.0
"""For so long no other replica saves: all know the same."""
COMPRESSED_BYTES = 32_768
"""At a time: less than half a millisecond."""
_PAIR = b"\x92"
"""As msgpack begins an array of two."""


class Learning:
    """One replica's share in what all of them learn."""

    def __init__(
        self,
        options: PlannerOptions,
        *,
        secret: bytes,
        holdout_share: float,
        shared: bool,
        peers: Peers,
        shelf: Shelf | None,
        recording: Path | None,
        flights: Flights,
        clock: Clock,
        replica: str,
        estimates: LearnedEstimates,
    ) -> None:
        """`secret` keys the digests by which changes are found. `shared`: whether there may be other
        replicas. `shelf` and `recording` are None where nothing is to be kept, or recorded. `estimates` are
        kept with what the policy learned."""
        self.policy = LearnedPolicy(
            options,
            tell=self._tell,
            claims=shared,
            holdout_share=holdout_share,
            changes=Changes(secret),
        )
        self.listing = PrefixListing(self.policy.planner, lambda: self.policy.planner_time(clock.now()))
        """Which prefixes there are, for people."""
        self._options = options
        self._shared = shared
        self._peers = peers
        self._shelf = shelf
        self._record_to = recording
        self._recording: Recording | None = None
        self._flights = flights
        self._clock = clock
        self._replica = replica
        self._estimates = estimates
        self._saved_at = clock.now()

    async def start(self) -> None:
        """Take up what was saved. Starting from nothing costs money, not correctness, so only a recording
        that cannot be written raises: `ConfigError`."""
        restored = await self._restore()
        await self._age()
        if self._record_to is not None:
            self._recording = Recording(
                self._record_to, now=self._clock.now, options=self._options, began_empty=not restored
            )

    def run(self, loops: TaskSet) -> None:
        """Save now and then, and let what is watched grow older while nobody calls."""
        for seconds, work, name in (
            (SAVE_SECONDS, self.save, "saving what was learned"),
            (AGE_SECONDS, self._age, "aging what is watched"),
        ):
            loops.spawn(every(seconds, work, name=name, clock=self._clock), name)

    async def _age(self) -> None:
        self.policy.age(self._clock.now())

    async def save(self) -> None:
        """Keep what was learned, where replicas share it by one of them for all. Raises nothing."""
        if self._shelf is None:
            return
        if not (self._shared and await self._is_saved_elsewhere()):
            learned, estimates = self.policy.snapshot(), self._estimates.snapshot()
            try:
                await self._shelf.save(await asyncio.to_thread(_compressed, learned, estimates))
            except StoreUnavailable as error:
                log.warning("what was learned could not be saved: %s", error.message)
                return
        self._saved_at = self._clock.now()

    async def close(self) -> None:
        """Save, and let go of everything. A second time nothing happens."""
        await self.save()
        recording, self._recording = self._recording, None
        if recording is not None:
            await asyncio.to_thread(recording.close)
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            await shelf.close()

    def known_prefixes(self) -> float:
        """How many prefixes are remembered."""
        return self.policy.planner.table.used

    def trust(self) -> float:
        """Belief that a 1h entry behind a 5m one lives for an hour."""
        return self.policy.planner.trust

    def recorded(self) -> float:
        """News that the recording has taken in."""
        return self._recording.written if self._recording is not None else 0

    def not_recorded(self) -> float:
        """News that it could not."""
        return self._recording.dropped if self._recording is not None else 0

    def saved_seconds_ago(self) -> float:
        """Since what was learned was last saved, here or by another replica."""
        return self._clock.now() - self._saved_at

    def heard(self, replica: str, data: bytes) -> None:
        """Another replica's news: `Peers.listen` is given this."""
        try:
            news = decode(data)
        except msgspec.DecodeError:
            return  # of a version that says more than this one understands
        self.policy.hear(replica, news, self._clock.now())
        self.listing.tell(news)
        match news:  # after the policy, since who was waiting asks it at once
            case Sent():
                self._flights.began(news.call)
            case Answered() | Billed():
                self._flights.ended(news.call, good=True)
            case Failed():
                self._flights.ended(news.call, good=False)

    def gone(self, replica: str) -> None:
        """A replica has died: whoever waits for a call of its goes on."""
        for call_id in self.policy.gone(replica, self._clock.now()):
            self._flights.ended(call_id, good=False)

    async def _is_saved_elsewhere(self) -> bool:
        holder = f"save:{self._replica}"
        return await self._peers.claim([b"learned"], holder, CLAIMED_SECONDS) not in (None, holder)

    async def _restore(self) -> bool:
        if self._shelf is None or (data := await self._shelf.load()) is None:
            return False
        try:
            unpacked = await asyncio.to_thread(zlib.decompress, data)
            policy, estimates = msgspec.msgpack.decode(unpacked, type=tuple[bytes, bytes])
            restored = self.policy.restore(policy)
            self._estimates.restore(estimates)
        except (zlib.error, msgspec.DecodeError):
            restored = False
        if not restored:
            log.warning("what was learned before cannot be read by this version; learning starts anew")
        return restored

    def _tell(self, news: News) -> None:
        self.listing.tell(news)
        if self._shared:
            self._peers.tell(encode(news))
        if self._recording is not None:
            self._recording.tell(news)


def _compressed(learned: Iterable[bytes | memoryview], estimates: bytes) -> bytes:
    """Both as a pair in msgpack, compressed piece by piece: together they are some ten megabytes."""
    pieces = [*learned]
    begin = _PAIR + begin_bytes(sum(map(len, pieces)))
    packer, parts = zlib.compressobj(1), []
    for piece in (begin, *pieces, msgspec.msgpack.encode(estimates)):
        for start in range(0, len(piece), COMPRESSED_BYTES):
            parts.append(packer.compress(piece[start : start + COMPRESSED_BYTES]))
            give_way()
    return b"".join([*parts, packer.flush()])
