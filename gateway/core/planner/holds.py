"""Whether a request should wait for another that is writing what it could read.

A wait counts as long as it is expected to be from when it begins, and as long as it was from when it is over.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.core.planner.values import PlannerOptions

FIRST_BYTE_SECONDS = 0.6
UNCACHED_TOKENS_PER_SECOND = 15_000.0
CACHED_TOKENS_PER_SECOND = 150_000.0
"""A first guess of upstream's pace; what is seen of it corrects the whole by one factor."""
LEARNING = 0.05
LEAST_SECONDS = 0.05
"""No wait is reckoned shorter."""
LATE = 2.0
"""A request whose first byte takes so many times what was expected is waited for like any other by each that
comes, and no more as one herd."""
MAX_LEADERS = 1024
MAX_WAITING = 1 << 16


class Holds:
    """Keeps what was spent on holding within a share of all requests."""

    def __init__(self, options: PlannerOptions) -> None:
        self._options = options
        self._requests = 0
        self._spent_seconds = 0.0
        self._pace = 1.0
        self._leaders: dict[int, None] = {}
        self._vacant = 0
        """Leaders that failed and have no successor yet."""
        self._waiting: OrderedDict[int, tuple[float, float]] = OrderedDict()
        """By request that was not let go: since when, and what has been reckoned for it."""

    def sent(self) -> None:
        """A request was sent."""
        self._requests += 1

    def first_byte_after(self, uncached: float, cached: float) -> float:
        """Expected seconds from sending to the first byte."""
        plain = FIRST_BYTE_SECONDS + uncached / UNCACHED_TOKENS_PER_SECOND + cached / CACHED_TOKENS_PER_SECOND
        return plain * self._pace

    def seen(self, expected: float, taken: float) -> None:
        """A first byte that was expected after so long came after so long."""
        if expected > 0.0 and taken > 0.0:
            right = self._pace * min(4.0, max(0.25, taken / expected))
            self._pace += LEARNING * (right - self._pace)

    def pays(self, saving: float, wait: float) -> bool:
        """Whether one more leader could be waited for so many seconds, to save so many token equivalents."""
        options, wait = self._options, max(LEAST_SECONDS, wait)
        if not self._saves_enough(saving, wait):
            return False
        budget = options.hold_opening_seconds + options.hold_share_seconds * self._requests
        return self._vacant > 0 or self._spent_seconds + wait <= budget

    def worth(self, leader: int, saving: float, wait: float, *, late: bool = False) -> bool:
        """Whether to wait so many seconds for `leader`, to save so many token equivalents; if so, they count
        as spent: tell `waits` who does. A herd behind one leader is let wait as one, and may overdraw what
        others could spend; until that is made up for, nobody waits for another leader, or for one that is
        `late`."""
        wait = max(LEAST_SECONDS, wait)
        if late or leader not in self._leaders:
            if not self.pays(saving, wait):
                return False
            self._vacant = max(0, self._vacant - 1)
            if len(self._leaders) >= MAX_LEADERS:
                del self._leaders[next(iter(self._leaders))]
            self._leaders[leader] = None
        elif not self._saves_enough(saving, wait):
            return False
        self._spent_seconds += wait
        return True

    def waits(self, request: int, now: float, wait: float | None = None) -> None:
        """`request` is held from `now` on, or still: for a leader, with the seconds that `worth` was asked
        about, or for whoever has its claims."""
        since, reckoned = self._waiting.pop(request, (now, 0.0))
        if wait is not None:
            reckoned += max(LEAST_SECONDS, wait)
        self._waiting[request] = since, reckoned
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)

    def let_go(self, request: int, now: float) -> None:
        """Its waiting is over, if it waited: what counts is how long it was."""
        if self._waiting and request in self._waiting:
            since, reckoned = self._waiting.pop(request)
            self._spent_seconds += now - since - reckoned

    def left(self, request: int) -> None:
        """It ended before it was sent: what was reckoned for it stays."""
        self._waiting.pop(request, None)

    def failed(self, leader: int) -> None:
        """One that was waited for failed. Those who waited may wait once more, for one of them, though they
        have spent what there was: otherwise each of a large herd would write what one was to write."""
        if leader in self._leaders:
            del self._leaders[leader]
            self._vacant += 1

    def spent(self, seconds: float) -> None:
        """A request of another replica was held for so long."""
        self._spent_seconds += seconds

    def _saves_enough(self, saving: float, wait: float) -> bool:
        options = self._options
        return wait <= options.hold_seconds and saving >= wait * options.hold_tokens_per_second
