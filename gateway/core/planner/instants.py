"""The planner's time: it never goes back and never leaps, whatever the clock does that it is read from.

The planner's instants are those of the wall clock plus a correction, which changes only where that clock was
set. Nothing here reads a clock.
"""

from __future__ import annotations

LATE_SECONDS = 60.0
"""An instant that lies behind the last one by no more is only told late."""
LEAP_SECONDS = 86_400.0
"""A longer silence counts as one so long: after it nothing that is known is alive, however long it was."""


class Instants:
    """A clock set back goes on from where it was; one set ahead runs ahead by a day at most. Either costs
    what was cached at the time, and nothing after it."""

    def __init__(self) -> None:
        self._now: float | None = None
        self._behind = 0.0
        """What is added to the wall clock."""
        self._resumed = False

    @property
    def now(self) -> float:
        """The last instant; 0 before the first."""
        return self._now or 0.0

    def at(self, instant: float) -> float:
        """The planner's instant, where the wall clock shows `instant`. Never before the last one."""
        if self._now is None:
            self._now = instant
            return instant
        now = instant + self._behind
        if now < self._now and (self._resumed or self._now - now > LATE_SECONDS):
            self._behind = self._now - instant
        elif now > self._now + LEAP_SECONDS:
            self._now += LEAP_SECONDS
            self._behind = self._now - instant
        else:
            self._now = max(self._now, now)
        self._resumed = False
        return self._now

    def peek(self, instant: float) -> float:
        """The planner's instant for who only looks: nothing is changed by it."""
        return max(self.now, instant + self._behind)

    def resume(self, now: float) -> None:
        """Go on from the planner's instant `now`, of an earlier process: no date that it kept is in the
        future then, even where the wall clock is behind what it was."""
        self._now, self._behind, self._resumed = now, 0.0, True

    def shown(self, now: float) -> float:
        """What the wall clock shows at the planner's instant `now`."""
        return now - self._behind
