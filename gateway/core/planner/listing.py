"""Which prefixes there are, for people: how long, whose, how long warm, how often read, how likely again.

The planner knows keys and instants only. What more can be said of a prefix is in the news of the calls that
had a breakpoint at its end: this is told them, own and heard, and keeps a bounded number. It decides nothing,
and no decision waits for it; what it says of warmth and chances it asks the planner at that moment.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from gateway.core.news import Billed, Failed, News, Sent, unpack_keys
from gateway.core.planner.features import SHARED_PRIOR
from gateway.core.planner.planner import Planner
from gateway.core.planner.reuse import AGES_SECONDS
from gateway.core.planner.values import FIVE_MINUTES_SECONDS, ONE_HOUR_SECONDS

MAX_LISTED = 4_096
"""Beyond it the prefix that no call touched for longest is forgotten: about 0.4 kB each."""
MAX_CALLS = 4_096
SEARCHED_BLOCKS = 40
"""How far back from where a read ended a known prefix is looked for."""
SHORT_READ = 0.98
"""Tokens of a prefix are estimates, scaled to what was billed."""
_KEY = struct.Struct("<Q")


class Order(StrEnum):
    """What the first of a list has most of."""

    TOKENS = "tokens"
    VALUE = "value"
    READS = "reads"
    RECENT = "recent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrefix:
    """One prefix at one moment. Seconds are from that moment; counts are since the start of the process."""

    digest: str
    """The first half of its keyed digest, in hex, as `gateway explain` begins it; the only trace of it."""
    key: int
    workspace: str
    model: str
    tokens: int
    hour: bool
    """Whether its entry was written for an hour."""
    warm_seconds: float
    """For how long upstream is believed to have it still; below nothing: since when not."""
    reads: int
    """Calls that read it, and nothing longer that is listed."""
    writes: int
    last_used_seconds: float
    """How long ago the last call that wrote or read it was billed."""
    chance: float | None
    """Of a read before it expires, as was learned of such prefixes; None where nothing is expected of it."""
    value_nanousd: int
    """What that read is expected to save over writing it again: the chance times the difference."""


class _Known(msgspec.Struct, gc=False):
    workspace: str
    model: str
    tokens: int
    hour: bool
    saves_nanousd: float
    """By one read, against a write of 5 minutes."""
    reads: int = 0
    writes: int = 0
    used_at: float = 0.0


class PrefixListing:
    """Not safe for threads. `now` is the planner's own instant, which is asked for when it is needed."""

    def __init__(self, planner: Planner, now: Callable[[], float]) -> None:
        self._planner = planner
        self._now = now
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._calls: OrderedDict[str, Sent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def tell(self, news: News) -> None:
        """Something became of a call, here or elsewhere. Takes some microseconds."""
        if isinstance(news, Sent):
            if news.ends:
                self._calls[news.call] = news
                if len(self._calls) > MAX_CALLS:
                    self._calls.popitem(last=False)
        elif isinstance(news, Billed):
            sent = self._calls.pop(news.call, None)
            if sent is not None:
                self._billed(sent, news)
        elif isinstance(news, Failed):
            self._calls.pop(news.call, None)

    def top(self, count: int, order: Order = Order.TOKENS) -> tuple[ListedPrefix, ...]:
        """So many prefixes, those first that have most of what is asked for. Looks at all that are listed:
        some milliseconds."""
        now = self._now()
        listed = [self._listed(key, known, now) for key, known in self._known.items()]
        listed.sort(key=_ORDERS[order], reverse=True)
        return tuple(listed[:count])

    def _billed(self, sent: Sent, news: Billed) -> None:
        billed = news.uncached + news.read + news.write_5m + news.write_1h
        scale = billed / sent.ends[-1] if billed and sent.ends[-1] else 1.0
        now = self._now()
        if news.read:
            self._read(sent, news.read, scale, now)
        if news.write_5m or news.write_1h:
            for block, hour in sent.marks:
                tokens = round(sent.ends[block] * scale)
                if tokens > news.read and tokens >= sent.prices[3]:
                    self._written(sent, block, tokens, hour=hour, now=now)

    def _read(self, sent: Sent, read: int, scale: float, now: float) -> None:
        """The deepest listed prefix within what was read."""
        ends, last = sent.ends, len(sent.ends) - 1
        while last >= 0 and ends[last] * scale * SHORT_READ > read:
            last -= 1
        first = max(0, last + 1 - SEARCHED_BLOCKS)
        for key in reversed(unpack_keys(sent.keys[8 * first : 8 * (last + 1)])):
            if (known := self._known.get(key)) is not None:
                known.reads += 1
                known.used_at = now
                self._known.move_to_end(key)
                return

    def _written(self, sent: Sent, block: int, tokens: int, *, hour: bool, now: float) -> None:
        key = _key_at(sent, block)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(sent.workspace, sent.model, tokens, hour, 0.0)
            if len(self._known) > MAX_LISTED:
                self._known.popitem(last=False)
        read, write_5m, _, _ = sent.prices
        known.tokens, known.hour, known.used_at = tokens, hour, now
        known.saves_nanousd = tokens * sent.price * (write_5m - read)
        known.writes += 1
        self._known.move_to_end(key)

    def _listed(self, key: int, known: _Known, now: float) -> ListedPrefix:
        table = self._planner.table
        slot = table.find(key)
        expires = table.expires[slot] if slot >= 0 else 0.0
        if not expires:  # forgotten by the planner, or gone: by what was sent alone
            expires = known.used_at + (ONE_HOUR_SECONDS if known.hour else FIVE_MINUTES_SECONDS)
            expires = min(expires, now) if slot >= 0 else expires
        chance = self._chance(key, now, expires)
        return ListedPrefix(
            digest=_KEY.pack(key).hex(),
            key=key,
            workspace=known.workspace,
            model=known.model,
            tokens=known.tokens,
            hour=known.hour,
            warm_seconds=expires - now,
            reads=known.reads,
            writes=known.writes,
            last_used_seconds=now - known.used_at,
            chance=chance,
            value_nanousd=round((chance or 0.0) * known.saves_nanousd),
        )

    def _chance(self, key: int, now: float, expires: float) -> float | None:
        """Of an access from now until then, given that none came since the last."""
        watched = self._planner.reuse.watched(key)
        if watched is None or expires <= now:
            return None
        began, contexts = watched
        hazards = self._planner.reuse.hazards(contexts, SHARED_PRIOR)
        alive, lower = 1.0, 0.0
        for upper, hazard in zip(AGES_SECONDS, hazards, strict=True):
            within = min(upper, expires - began) - max(lower, now - began)
            if within > 0.0:
                alive *= (1.0 - min(hazard, 1.0)) ** (within / (upper - lower))
            lower = upper
        return 1.0 - alive


_ORDERS: dict[Order, Callable[[ListedPrefix], float]] = {
    Order.TOKENS: lambda listed: listed.tokens,
    Order.VALUE: lambda listed: listed.value_nanousd,
    Order.READS: lambda listed: listed.reads,
    Order.RECENT: lambda listed: -listed.last_used_seconds,
}


def _key_at(sent: Sent, block: int) -> int:
    return int(_KEY.unpack_from(sent.keys, 8 * block)[0])
