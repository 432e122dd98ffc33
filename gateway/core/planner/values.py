"""What the planner is told and what it answers. Values only; no decision is made here.

Costs are input-token equivalents: 1 is one uncached input token at the model's own price. Instants are
seconds on whatever clock the caller uses throughout. A prefix is known by a 64-bit integer that is made from
its keyed digest (`compact_key`); indexes of boundaries count the blocks of the prompt from 0.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import msgspec

from gateway.core.misses import Miss

FIVE_MINUTES_SECONDS = 300.0
ONE_HOUR_SECONDS = 3600.0
LOOKBACK_BLOCKS = 20
"""Positions that a breakpoint searches, its own included (prompt caching docs, 2026-08-21)."""
MAX_BREAKPOINTS = 4
"""Prompt caching docs, 2026-08-21."""


class Kind(IntEnum):
    """What a block is, as far as planning needs to know."""

    TOOLS = 0
    SYSTEM = 1
    USER = 2
    ASSISTANT = 3


class Prices(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A model's caching facts. Factors of its price of one uncached input token."""

    read: float = 0.1
    write_5m: float = 1.25
    write_1h: float = 2.0
    minimum_tokens: int = 1024
    """The shortest prefix that is cached; a shorter one is ignored by the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerOptions:
    """What an operator may set. One set of values serves all workloads; none is tuned to one of them."""

    capacity: int = 1 << 18
    """Prefixes remembered; memory is taken at once, see `index.BYTES_PER_SLOT`."""
    regret_share: float = 0.005
    """What may be lost at most against no caching, as a share of a workspace's input cost."""
    opening_tokens: float = 65_536.0
    """What may be lost while that share has not yet grown to as much: at the price of the model that asks."""
    open_share: float = 0.02
    """Of the input cost, what may be in entries at one time that have not expired, were not read yet, and
    that what was seen of their kind says will be: not counted as lost until they expire. Five minutes of all
    premiums come to less once traffic has gone on for an hour, so this binds in the first hours only."""
    layered_trust: float = 0.9
    """Belief, before anything was measured, that a 1h entry written behind a 5m one is readable for an hour.
    Reported usage corrects it; 0 turns the use of it off."""
    hold_seconds: float = 8.0
    """No request is held longer than this for another's first byte."""
    hold_share_seconds: float = 0.06
    """Seconds that all requests together may be held, per request planned, over all replicas. What counts is
    what was really waited. All who wait for one request are let wait where the first of them was, so that one
    herd may overdraw by `hold_seconds` for each of its calls; until later requests have made up for that,
    nobody waits for another one. The bound at any time: `hold_opening_seconds`, plus this share, plus what
    the last herd overdrew."""
    hold_opening_seconds: float = 10.0
    """Seconds that may be spent on holding before that has grown to anything, once."""
    hold_tokens_per_second: float = 1500.0
    """What a second of a held request must save at least, in token equivalents."""
    warming: bool = True
    """Whether keep-alive warm-ups are asked for."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """One request as the planner sees it."""

    id: int
    scope: int
    """Compact key of the cache scope; what is learned hangs on it."""
    account: int
    """Compact key of the gateway workspace whose losses these are."""
    keys: Sequence[int]
    """For each block the compact key of the prefix up to and including it; never 0."""
    ends: Sequence[int]
    """The prompt's tokens up to and including each block."""
    kinds: bytes
    """For each block its `Kind`."""
    prices: Prices
    unmarkable: frozenset[int] = frozenset()
    """Blocks on which the API refuses a breakpoint."""
    fixed: tuple[tuple[int, bool], ...] | None = None
    """All breakpoints that are sent, as (block, whether 1h), where they are decided already, by the client or
    by another replica. Then nothing is decided and everything is learned."""
    decided: bool = True
    """False where the `fixed` ones are not a planner's decision: what they cost and save is not ours."""
    warmable: bool = True
    """Whether the API takes this request with `max_tokens: 0`, and the caller can send it again."""
    warm_up: bool = False
    """It has `max_tokens: 0` itself: it writes and prolongs entries at its `fixed` breakpoints, and says
    nothing of what will be asked next."""
    price: float = 1.0
    """Of one uncached input token, in any one unit of money: accounts are kept in it."""
    otherwise: tuple[tuple[int, bool], ...] | None = None
    """Where some of the `fixed` ones are this gateway's, by rule: the client's alone. They are sent instead
    where the account does not allow the others; the answer is `Why.LOSS_BOUND` then."""
    own: tuple[tuple[int, bool], ...] = ()
    """Those of the `fixed` breakpoints that are the client's, where others were added to them: what its
    prompt would have cost with these alone is what the others have to earn."""
    known_at: tuple[int, ...] = ()
    """With `fixed`: `Decision.known_at` of who planned it. Where the prompt is known as far here, no other
    blocks are looked at."""


class Why(StrEnum):
    """Why a breakpoint was set, or a boundary left alone."""

    READ = "read"
    REFRESH = "refresh"
    WRITE_TAIL = "write_tail"
    WRITE_SHARED = "write_shared"
    WRITE_LAYER = "write_layer"
    WRITE_FORK = "write_fork"
    CLIENT = "client"
    NOTHING_PAYS = "nothing_pays"
    TOO_SHORT = "too_short"
    LOSS_BOUND = "loss_bound"
    TWIN = "twin"
    WAITS = "waits"
    EMPTY = "empty"


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A breakpoint: the block, whether it asks for an hour, and why."""

    block: int
    hour: bool
    why: Why
    chance_5m: float = 0.0
    """Estimated chance of a read within five minutes."""
    chance_1h: float = 0.0
    """Estimated chance of a read within an hour."""
    tokens: int = 0
    """Tokens that this breakpoint writes, or reads."""
    keeps: int = 0
    """Tokens before it that the hour which it asks for keeps readable as well."""
    cut: bool = False
    """Whether an hour seemed to pay, and was more than may be lost on trying."""

    @property
    def ttl(self) -> str:
        return "1h" if self.hour else "5m"

    @property
    def reason(self) -> str:
        """A sentence a person understands: what it does, and the evidence for it. Only to be reckoned from
        this mark: what else was decided about the request is `Decision.reason`."""
        match self.why:
            case Why.READ:
                return f"reads the {self.tokens:,} tokens that are cached up to here"
            case Why.REFRESH:
                return f"prolongs the {self.tokens:,} tokens that are cached up to here, by reading them"
            case Why.WRITE_LAYER:
                later = said_chance(max(0.0, self.chance_1h - self.chance_5m))
                return (
                    f"writes {self._written} to keep {self.keeps:,} tokens before it readable for as long: "
                    f"{later} likely to be read next 5 min to 1 h from now, which is worth the price"
                )
            case Why.WRITE_SHARED:
                return f"writes {self._written} that other prompts may begin with: {self._odds}"
            case Why.WRITE_FORK:
                return "in a stretch that is written anyway, should a prompt go on differently from here"
            case Why.CLIENT:
                return "set by the client"
            case _:
                return f"writes {self._written} that the next turn would begin with: {self._odds}"

    @property
    def _written(self) -> str:
        return f"{self.tokens:,} tokens for {'1 h' if self.hour else '5 min'}"

    @property
    def _odds(self) -> str:
        odds = (
            f"{said_chance(self.chance_5m)} likely to be read within 5 min, "
            f"{said_chance(self.chance_1h)} within 1 h"
        )
        if self.cut:
            return f"{odds}; 1 h seemed to pay, and costs more than may be lost on trying"
        if self.keeps:
            return f"{odds}; and keeps {self.keeps:,} tokens before it readable for as long"
        return odds


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What to do with one request."""

    marks: tuple[Mark, ...]
    """In block order, at most four, every 1h before every 5m."""
    why: Why
    """Why there are no more, or none."""
    wait_for: int | None = None
    """Hold the request until this one's first byte, then ask again."""
    wait_tokens: int = 0
    """With `wait_for` or `claims`: what need not be written again by waiting, at least."""
    claims: tuple[int, ...] = ()
    """Keys of cold prefixes that it would write, and for whose first byte others had better wait. Not final:
    nothing was learned or counted yet."""
    read_tokens: int = 0
    """Expected, as the two below."""
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0
    miss: Miss | None = None
    """Why something known is not read."""
    read_at: int = -1
    """Deepest block that will be read, or -1."""
    known_to: int = -1
    """Deepest block whose prefix is known, cached or not; or -1."""
    known_goes_on: bool = False
    """Whether that prefix was seen to go on differently in another prompt."""
    known_at: tuple[int, ...] = ()
    """The known blocks that anything is learned at, the deepest last: what it reads, where others are
    expected, how far it is known."""
    keep_upto: int | None = None
    """The prompt up to this block may be asked for as a warm-up later."""

    def premium(self, prices: Prices) -> float:
        """What its writes cost beyond plain input, in token equivalents."""
        return self.write_5m_tokens * (prices.write_5m - 1.0) + self.write_1h_tokens * (prices.write_1h - 1.0)

    def share_of(self, question: Question) -> float:
        """What it is expected to cost, in multiples of what the prompt costs without caching."""
        prices, tokens = question.prices, question.ends[-1]
        cost = tokens - self.read_tokens * (1.0 - prices.read) + self.premium(prices)
        return cost / tokens if tokens else 1.0

    @property
    def reason(self) -> str:
        """A sentence a person understands, on the request as a whole; what each breakpoint is for is its
        own `Mark.reason`. Of chances nothing is said here: those are the marks'."""
        if self.why in _WRITES:
            written = self.write_5m_tokens + self.write_1h_tokens
            return f"in all {self.read_tokens:,} tokens are expected to be read and {written:,} to be written"
        if self.why is Why.LOSS_BOUND and any(mark.why in _WRITES for mark in self.marks):
            return "writing more may pay, but the share that may be lost on trying is used up"
        return _REASONS[self.why]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Send an earlier request's prompt up to `upto` with `max_tokens: 0`."""

    request: int
    upto: int
    marks: tuple[Mark, ...]
    tokens: int
    """Tokens that it is expected to read."""
    chance: float
    """Estimated chance that this lifetime is what a later request needs."""
    account: int
    key: int
    """Of the prefix that is kept alive."""
    cost: float
    """Expected, in token equivalents."""
    prices: Prices
    price: float = 1.0
    """Of one uncached token."""
    decided: bool = True
    """False where the entry was written by breakpoints that were not decided here."""

    @property
    def reason(self) -> str:
        """A sentence a person understands."""
        chance = said_chance(self.chance)
        return f"keeps {self.tokens:,} tokens cached: {chance} likely to be read before they expire"


class Reported(msgspec.Struct, frozen=True, gc=False):
    """Usage as upstream billed it."""

    uncached: int
    read: int
    write_5m: int
    write_1h: int

    @property
    def total(self) -> int:
        """The whole prompt."""
        return self.uncached + self.read + self.write_5m + self.write_1h

    def cost(self, prices: Prices) -> float:
        """In token equivalents."""
        return (
            self.uncached
            + self.read * prices.read
            + self.write_5m * prices.write_5m
            + self.write_1h * prices.write_1h
        )


def compact_key(digest: bytes) -> int:
    """The planner's name of a prefix, from its keyed digest. Two of a million prefixes share one with a
    chance of one in thirty-seven million, and that would cost money, not correctness."""
    return int.from_bytes(digest[:8], "little") or 1


def compact_keys(digests: Sequence[bytes]) -> Sequence[int]:
    """`compact_key` of each of them, all of one length that is a multiple of 8."""
    if not digests:
        return []
    joined = b"".join(digests)
    found = array("Q", joined)[:: len(digests[0]) // 8]
    if sys.byteorder == "big":
        found.byteswap()
    return [key or 1 for key in found] if bytes(8) in joined else found


def said_chance(chance: float) -> str:
    """In percent, and as no more certain than it is: never 0% for what may happen, or 100% for what may
    not."""
    if 0.0 < chance < 0.001:
        return "less than 0.1%"
    if 0.995 <= chance < 1.0:
        return "more than 99%"
    return f"{chance:.1%}" if 0.0 < chance < 0.01 else f"{chance:.0%}"


_WRITES = frozenset({Why.WRITE_TAIL, Why.WRITE_SHARED, Why.WRITE_LAYER, Why.WRITE_FORK})
_REASONS = {
    Why.READ: "reads what is cached; writing more would not pay",
    Why.REFRESH: "reads what is cached; writing more would not pay",
    Why.CLIENT: "the client set its own breakpoints",
    Why.NOTHING_PAYS: "no prefix is likely enough to be read again before it expires",
    Why.TOO_SHORT: "the prompt is shorter than the model's minimum",
    Why.LOSS_BOUND: "writing may pay, but the share that may be lost on trying is used up",
    Why.TWIN: "another request is writing the same prefix, which need not be written twice",
    Why.WAITS: "waits for another request that is writing the same prefix",
    Why.EMPTY: "the prompt has no blocks",
}
