"""The API as contestants meet it: the simulator's cache, driven by keys and tokens instead of bodies.

Which breakpoints are refused, what is read and written, and until when it lives is all the simulator's. Only
how long a first byte takes is assumed here, and which written tokens anybody read is counted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.replay.request import Marks, Request
from gateway.sim.cache import Outcome, Position, PromptCache, Ttl
from gateway.sim.catalogue import find_model
from gateway.sim.marks import set_marks
from gateway.sim.prompt import Block, Level

FIRST_BYTE_SECONDS = 0.6
UNCACHED_TOKENS_PER_SECOND = 15_000
CACHED_TOKENS_PER_SECOND = 150_000
"""When a response begins, and with it what it wrote can be read: a model of a large model's pace."""
_SWEEP_EVERY = 1024
_CONTROL = {False: {"type": "ephemeral"}, True: {"type": "ephemeral", "ttl": "1h"}}


@dataclass(slots=True)
class _Unread:
    tokens: int
    until: float
    lifetime: float


class Upstream:
    """One contestant's. `send`, then `publish` what it returned when the first byte comes."""

    def __init__(self) -> None:
        self._cache = PromptCache()
        self._unread: dict[int, dict[bytes, _Unread]] = {}
        """By scope and key, what was written and not read yet."""
        self._sent = 0
        self.wasted_tokens = 0
        """Written, and gone before any request read them."""

    def send(
        self, request: Request, marks: Marks, at: float, *, upto: int | None = None, warm_up: bool = False
    ) -> Outcome:
        """How the prompt, or what of it goes up to block `upto`, is billed with these breakpoints. Raises
        `ApiError` for those that the API would refuse."""
        plain = request.positions()
        positions = plain[: upto + 1] if upto is not None else plain.copy()
        for (index, _), ttl in zip(marks, _checked(request, marks, len(positions)), strict=True):
            there = plain[index]
            positions[index] = Position(key=there.key, end_tokens=there.end_tokens, mark=ttl)
        outcome = self._cache.open(
            request.cache_scope,
            positions,
            total_tokens=positions[-1].end_tokens,
            minimum_tokens=minimum_tokens(request),
            at=at,
        )
        self._count_waste(request, outcome, at, warm_up=warm_up)
        return outcome

    def publish(self, outcome: Outcome) -> None:
        self._cache.publish(outcome)

    def close(self, at: float) -> None:
        """The trace ends: what lives on is not judged."""
        self._expire(at)

    def _count_waste(self, request: Request, outcome: Outcome, at: float, *, warm_up: bool) -> None:
        self._sent += 1
        if self._sent % _SWEEP_EVERY == 0:
            self._expire(at)
        unread = self._unread.setdefault(request.scope, {})
        if outcome.read_tokens and unread:
            ends = request.ends_by_key()
            for key in unread.keys() & ends.keys():
                entry = unread[key]
                if ends[key] > outcome.read_tokens or entry.until < at:
                    continue
                if warm_up:
                    entry.until = at + entry.lifetime
                else:
                    del unread[key]
        written_to = outcome.read_tokens
        for write in outcome.writes:
            if write.key in unread:
                self.wasted_tokens += unread[write.key].tokens
            lifetime = write.ttl.seconds
            unread[write.key] = _Unread(write.end_tokens - written_to, at + lifetime, lifetime)
            written_to = write.end_tokens

    def _expire(self, at: float) -> None:
        for scope, unread in list(self._unread.items()):
            for key in [key for key, entry in unread.items() if entry.until < at]:
                self.wasted_tokens += unread.pop(key).tokens
            if not unread:
                del self._unread[scope]


def first_byte_after(outcome: Outcome) -> float:
    """Seconds from sending a request to the first byte of its response."""
    uncached = outcome.prompt_tokens - outcome.read_tokens
    return (
        FIRST_BYTE_SECONDS
        + uncached / UNCACHED_TOKENS_PER_SECOND
        + outcome.read_tokens / CACHED_TOKENS_PER_SECOND
    )


def minimum_tokens(request: Request) -> int:
    """The shortest prefix that the API caches: the simulator's own fact where it knows the model."""
    row = find_model(request.model)
    return request.prices.minimum_tokens if row is None else row.minimum_cacheable_tokens


def _checked(request: Request, marks: Marks, blocks: int) -> list[Ttl]:
    """Their TTLs, after the simulator's own checks of number and order."""
    marked = [
        Block(
            level=Level.MESSAGES,
            role="user",
            path=f"block {index}",
            value={"type": "text", "text": "-", "cache_control": _CONTROL[hour]},
        )
        for index, hour in marks
    ]
    set_marks(marked, None, ())
    indices = [index for index, _ in marks]
    if indices != sorted(set(indices)) or (indices and not 0 <= indices[0] <= indices[-1] < blocks):
        raise ValueError(f"request {request.number}: breakpoints on no block, or out of order: {indices}")
    if request.unmarkable.intersection(indices):
        raise ValueError(f"request {request.number}: a breakpoint on a block that takes none: {indices}")
    return [Ttl.ONE_HOUR if hour else Ttl.FIVE_MINUTES for _, hour in marks]
