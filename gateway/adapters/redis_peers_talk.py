"""What this replica says to the others: claims, what it lets go of, and news; in one script at a time.

Since everything goes out in the order in which it was said, a claim that is given up is free before anybody
hears of it, and no claim overtakes a letting go. While one script is on its way the next one gathers: a herd
asks together, and under load many pieces of news make one entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from gateway.adapters.redis_peers_wire import (
    ENTRY_BYTES,
    FORGOTTEN_MS,
    GATHER_SECONDS,
    SILENT_MS,
    STREAM_ENTRIES,
    STREAM_LIFE_MS,
    TALK,
    Entry,
    PeerKeys,
    encode_entry,
)
from gateway.adapters.redis_scripts import RedisScripts
from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 0.2
"""A claim is answered within it, one way or the other."""
AWAY_SECONDS: Final = 0.5
"""Between two tries while Redis is away; claims are answered at once then."""
CLOSE_SECONDS: Final = 0.5
MAX_WAITING_BYTES: Final = 4 << 20
"""Of news that could not be told yet. Beyond it the oldest are dropped."""
STALE_SECONDS: Final = 10.0
"""News that waited for longer are dropped: who hears of them takes them for new, and lifetimes count from
then (`core/hearing.py`)."""
MAX_HOLDERS: Final = 128
"""That one script serves."""
MAX_HELD: Final = 1 << 14
"""Calls whose claims are remembered, and again as many that let go; claims run out by themselves too."""


Answer = tuple[str | None, bytes]
"""Who holds what was asked for, None where the asker does; and the last entry of the stream before that, b""
where that is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ask:
    """A claim that is waiting for its answer."""

    holder: str
    names: tuple[bytes, ...]
    milliseconds: int
    answer: asyncio.Future[Answer]


class Talk:
    """The speaking half of `RedisPeers`."""

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
        self._tasks = TaskSet()
        self._speaker: asyncio.Task[None] | None = None
        self._said = asyncio.Event()
        self._urgent = asyncio.Event()
        self._away = self._closed = False
        self._held: OrderedDict[str, tuple[float, tuple[bytes, ...]]] = OrderedDict()
        """By holder: until when, and what."""
        self._asks: deque[_Ask] = deque()
        self._letting_go: deque[tuple[str, tuple[bytes, ...]]] = deque(maxlen=MAX_HELD)
        self._news: deque[tuple[float, bytes]] = deque()
        """By the clock's monotonic time when they were told."""
        self._news_bytes = 0
        self._entry: bytes | None = None
        """Being told, perhaps for the second time: unchanged then, so that it is heard once."""
        self._entry_told: Sequence[float] = ()
        """When the news in it were told."""
        self._number = 0

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> Answer:
        """As `ports.Peers`; and how far the news go that had been told by then."""
        assert seconds * 1000 <= FORGOTTEN_MS, seconds
        if self._closed or not names:
            return None, b""
        if self._away:
            self._failed("claim")
            return None, b""
        # Written down before anybody is asked: giving up then is safe, whatever became of the asking.
        self._remember(holder, names, seconds)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asks.append(_Ask(holder, tuple(names), max(1, round(seconds * 1000)), answer))
        self._say(urgent=True)
        try:
            # In two parts: where this process was busy meanwhile, the answer may be there and not yet read.
            for _ in range(2):
                await asyncio.wait((answer,), timeout=ANSWER_SECONDS / 2)
                if answer.done():
                    return answer.result()
        finally:
            answer.cancel()
        self._failed("claim")
        return None, b""

    def give_up(self, holder: str) -> None:
        """As `ports.Peers`."""
        held = self._held.pop(holder, None)
        if held is not None and not self._closed:
            self._letting_go.append((holder, held[1]))
            self._say(urgent=True)  # with the news that it was answered: who waits for it goes on

    def tell(self, news: bytes) -> None:
        """As `ports.Peers`."""
        if self._closed:
            return
        if len(news) > ENTRY_BYTES:
            self._failed("tell")
            return
        self._news.append((self._clock.monotonic(), news))
        self._news_bytes += len(news)
        while self._news_bytes > MAX_WAITING_BYTES:
            self._drop_oldest()
        self._say()

    async def close(self) -> None:
        """Say what is still to be said, and good-bye; in half a second, or not at all."""
        if self._closed:
            return
        self._closed = True
        await self._tasks.drain(0.0)
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._waiting():
                    await self._flush()
                self._entry = self._next_entry([])
                await self._flush(leaving=True)

    # What follows is the speaker's.

    def _say(self, *, urgent: bool = False) -> None:
        self._said.set()
        if urgent:
            self._urgent.set()
        if self._speaker is None or self._speaker.done():
            self._speaker = self._tasks.spawn(self._speak(), "talking to other replicas")

    async def _speak(self) -> None:
        while True:
            if not (self._waiting() or self._away):  # while away, also without a word: to find out
                self._said.clear()
                await self._said.wait()
            try:
                await self._flush()
            except StoreUnavailable as error:
                self._lost(error)
                await self._clock.sleep(AWAY_SECONDS)
                continue
            if self._away:
                self._away = False
                log.info("the other replicas can be reached again")
            if not (self._asks or self._letting_go) and self._news_bytes < ENTRY_BYTES:
                self._urgent.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._urgent.wait()

    def _waiting(self) -> bool:
        return bool(self._asks or self._letting_go or self._news or self._entry)

    def _lost(self, error: StoreUnavailable) -> None:
        """Go on alone: who asks gets an answer now, what was to be told stays."""
        if not self._away:
            self._away = True
            log.warning("the other replicas cannot be reached, each goes on alone: %s", error.message)
        self._decline(self._asks)
        self._asks.clear()

    def _decline(self, asks: Sequence[_Ask]) -> None:
        for ask in asks:
            if not ask.answer.done():
                self._failed("claim")
                ask.answer.set_result((None, b""))

    async def _flush(self, *, leaving: bool = False) -> None:
        """Say as much as one script takes. Raises `StoreUnavailable`: then only its claims have an answer."""
        letting_go = list(islice(self._letting_go, MAX_HOLDERS))
        asks = self._next_asks()
        self._drop_stale()
        if self._entry is None and self._news:
            told = self._next_news()
            self._entry = self._next_entry([news for _, news in told])
            self._entry_told = [at for at, _ in told]
        keys = [self._keys.stream, self._keys.beats]
        args: list[str | int | bytes] = [
            *(self._replica, self._entry or b""),
            *(STREAM_ENTRIES, STREAM_LIFE_MS, SILENT_MS, int(leaving)),
        ]
        for holder, names in letting_go:
            keys += map(self._keys.claim, names)
            args += (holder, len(names), 0)
        for ask in asks:
            keys += map(self._keys.claim, ask.names)
            args += (ask.holder, len(ask.names), ask.milliseconds)
        try:
            answers: list[bytes] = await self._scripts.run(TALK, keys, args)
        except BaseException:
            self._decline(asks)
            raise
        self._entry, self._entry_told = None, ()
        for one in letting_go:
            if self._letting_go and self._letting_go[0] is one:  # else it was pushed out meanwhile
                self._letting_go.popleft()
        for ask, owner in zip(asks, answers[:-1], strict=True):
            if not ask.answer.done():
                ask.answer.set_result((owner.decode() or None, answers[-1]))

    def _next_asks(self) -> list[_Ask]:
        """Those whose callers have not left."""
        asks: list[_Ask] = []
        while self._asks and len(asks) < MAX_HOLDERS:
            ask = self._asks.popleft()
            if not ask.answer.done():
                asks.append(ask)
        return asks

    def _drop_stale(self) -> None:
        oldest = self._clock.monotonic() - STALE_SECONDS
        while self._news and self._news[0][0] < oldest:
            self._drop_oldest()
        if self._entry is not None and self._entry_told and self._entry_told[0] < oldest:
            for _ in self._entry_told:
                self._failed("tell")
            self._entry, self._entry_told = None, ()

    def _drop_oldest(self) -> None:
        self._news_bytes -= len(self._news.popleft()[1])
        self._failed("tell")

    def _next_news(self) -> list[tuple[float, bytes]]:
        news: list[tuple[float, bytes]] = []
        size = 0
        while self._news and size + len(self._news[0][1]) <= ENTRY_BYTES:
            size += len(self._news[0][1])
            news.append(self._news.popleft())
        self._news_bytes -= size
        return news

    def _next_entry(self, news: list[bytes]) -> bytes:
        self._number += 1
        return encode_entry(Entry(self._replica, self._number, news))

    def _remember(self, holder: str, names: Sequence[bytes], seconds: float) -> None:
        """A holder may claim more than once."""
        now = self._clock.monotonic()
        while self._held and (len(self._held) >= MAX_HELD or next(iter(self._held.values()))[0] <= now):
            self._held.popitem(last=False)
        before = self._held.pop(holder, (now, ()))[1]
        self._held[holder] = (now + seconds, tuple(dict.fromkeys((*before, *names))))
