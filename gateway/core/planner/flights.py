"""Requests that were sent and have not been billed, and what is expected of them. Bounded in number.

Only what closing one needs is kept: no keys of a prompt but those that it writes and reads.
"""

from __future__ import annotations

import msgspec

from gateway.core.planner.values import Decision, Prices, Question, Reported

MAX_FLIGHTS = 1 << 16


class Flight(msgspec.Struct, gc=False):
    """One request, from its sending to its bill."""

    account: int
    decided: bool
    prices: Prices
    tokens: int
    """Of the whole prompt, as estimated."""
    read_tokens: int
    """Expected, as the two below."""
    write_5m_tokens: int
    write_1h_tokens: int
    sent_at: float
    first_byte_after: float
    written: list[int]
    """Keys of the prefixes that it writes; empty once it is answered."""
    read_key: int
    """Key of the prefix that it reads, or 0."""
    marks_read: bool
    """Whether a breakpoint stands on that prefix: if it is gone, then this request writes it again."""
    layered: bool
    """Whether it reads a layered entry at an age at which no other can be alive."""
    warm_up: bool
    price: float
    alone: float = 1.0
    """What it would have cost by the client's own breakpoints alone, in multiples of what it costs without
    caching; 1 where there are none."""
    bridged: float = 0.0
    """What its read saves, in token equivalents, only because a warm-up kept the entry alive."""

    @property
    def premium(self) -> float:
        """What its writes cost beyond plain input."""
        prices = self.prices
        return self.write_5m_tokens * (prices.write_5m - 1.0) + self.write_1h_tokens * (prices.write_1h - 1.0)

    def as_expected(self) -> Reported:
        """The bill that its decision expects."""
        uncached = self.tokens - self.read_tokens - self.write_5m_tokens - self.write_1h_tokens
        return Reported(uncached, self.read_tokens, self.write_5m_tokens, self.write_1h_tokens)


def flight_of(
    question: Question,
    decision: Decision,
    now: float,
    *,
    first_byte_after: float,
    written: list[int],
    layered: bool,
) -> Flight:
    read_at = decision.read_at
    return Flight(
        account=question.account,
        decided=question.decided,
        prices=question.prices,
        tokens=question.ends[-1] if question.ends else 0,
        read_tokens=decision.read_tokens,
        write_5m_tokens=decision.write_5m_tokens,
        write_1h_tokens=decision.write_1h_tokens,
        sent_at=now,
        first_byte_after=first_byte_after,
        written=written,
        read_key=question.keys[read_at] if read_at >= 0 else 0,
        marks_read=any(mark.block == read_at for mark in decision.marks),
        layered=layered,
        warm_up=question.warm_up,
        price=question.price,
    )
