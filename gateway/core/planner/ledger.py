"""The bound on what planning may lose, kept by accounts and not by hope.

Accounts are in money, since one workspace's requests go to models of different prices: what comes in is in
token equivalents, with the price of one. A premium is what a write costs more than plain input. From the
moment a request is sent its premium counts as lost, until reads have earned it back. One thing is left out of
the loss for as long as it lasts: the part of a premium that, by what was seen so far, reads of that very
entry will earn back before it expires. It stops being left out when the entry expires, whatever happened, and
there is never more of it than a set share of the workspace's input cost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MAX_PROMISES = 4096


@dataclass(frozen=True, slots=True)
class Bounds:
    opening: float
    """What may be lost in any case, in token equivalents of the model that asks."""
    share: float
    """Of the input cost, what may be lost where that is more."""
    open_share: float
    """Of the input cost, what promises may be worth at one time."""


@dataclass(slots=True)
class Account:
    """One workspace's books, in money."""

    plain: float = 0.0
    """Cost of all input so far without caching."""
    saved: float = 0.0
    """`plain`, or what the client's own breakpoints alone would have come to, less what was billed, warm-ups
    included; negative while in loss."""
    at_stake: float = 0.0
    """Premiums of requests that were sent and not yet billed."""
    promised: float = 0.0
    _promises: deque[tuple[float, float]] = field(default_factory=deque)

    def may_stake(
        self, premium: float, promise: float, bounds: Bounds, now: float, *, price: float = 1.0
    ) -> bool:
        """Whether the bound would still hold if `premium` were lost, but for `promise`."""
        self._expire(now)
        premium, promise = premium * price, promise * price
        promised = min(self.promised + min(promise, premium), bounds.open_share * self.plain)
        loss = premium + self.at_stake - self.saved - promised
        return loss <= max(bounds.opening * price, bounds.share * self.plain)

    def stake(self, premium: float, promise: float, now: float, until: float, *, price: float = 1.0) -> None:
        """A request is sent that costs `premium`; reads until `until` are expected to earn `promise`."""
        self._expire(now)
        self.at_stake += premium * price
        promise = min(promise, premium) * price
        if promise > 0.0 and len(self._promises) < MAX_PROMISES:
            self.promised += promise
            self._promises.append((until, promise))

    def settle(
        self, premium: float, *, plain: float, cost: float, price: float = 1.0, alone: float = 1.0
    ) -> None:
        """A stake is closed: a prompt of `plain` was billed as `cost`. Both are 0 for a request that was not
        billed. `alone`: how many times `plain` it would have cost by the client's own breakpoints, whose
        saving is none of ours."""
        self.at_stake = max(0.0, self.at_stake - premium * price)
        self.plain += plain * price
        self.saved += (plain * alone - cost) * price

    def earn(self, plain: float, earned: float, *, price: float = 1.0) -> None:
        """A prompt of `plain` was billed that was not for this account to decide; of what it read, `earned`
        is owed to what this account paid for."""
        self.plain += plain * price
        self.saved += earned * price

    def _expire(self, now: float) -> None:
        while self._promises and self._promises[0][0] <= now:
            self.promised -= self._promises.popleft()[1]
