"""When a schedule fires, and whether it goes on. Instants come in and go out as epoch seconds; no clock is
read and nothing is sent here: `workers/schedules.py` waits and fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from gateway.core.warming_book import UNREAD_RUNS

UNREAD_FIRINGS = UNREAD_RUNS
"""After so many firings in a row whose prompts nobody read before the next one, a schedule is skipped."""


class FiringState(StrEnum):
    """What became of a schedule when it was due."""

    DONE = "done"
    """All of its prompts are warm."""
    PARTLY = "partly"
    """Some or all of its prompts are not."""
    BROKEN = "broken"
    """The file of prompts cannot be used."""
    UNREAD = "unread"
    """Skipped: nobody reads what it warms."""
    ELSEWHERE = "elsewhere"
    """Another replica fires this time."""
    MISSED = "missed"
    """The replica was stopped or busy when it was due, or the clock was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Prompts to be warm at certain times: whose they are, where they are found."""

    name: str
    cron: str
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str
    """IANA name."""
    workspace: str
    prompts: str
    """Path of the file that holds them."""

    def next_after(self, at: float) -> float | None:
        """The first instant after `at` at which it fires; None where there is none in the next fifty years.

        A time of day that the clocks leave out in spring fires once, right after the gap; one that they go
        through twice in autumn fires once, the first time. An expression that begins with a star in its
        minutes or hours counts real hours, as in cron.
        """
        zone = _zone(self.timezone)
        times = CronSim(self.cron, datetime.fromtimestamp(at, UTC).astimezone(zone))
        for local in times:
            # In the hour that comes twice, what is next by the clock on the wall may be over already.
            if (instant := local.timestamp()) > at:
                return instant
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What became of a schedule at one of its times."""

    schedule: str
    due_at: float
    state: FiringState
    reason: str
    """In a sentence."""
    prompts: int = 0
    warm: int = 0
    read_tokens: int = 0
    written_tokens: int = 0
    cost_nanousd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatus:
    """How a schedule stands on this replica."""

    schedule: Schedule
    next_at: float | None
    last: Firing | None
    """What this replica did last; another one may have fired since."""


@dataclass(frozen=True, slots=True)
class Readership:
    """Whether anybody reads what a schedule warms: `reads` so far, and firings in a row without one more."""

    reads: int = 0
    unread: int = 0
    waiting: bool = False
    """Whether the last firing warmed anything, so that reads of it can be expected."""

    @property
    def is_worth_firing(self) -> bool:
        return self.unread < UNREAD_FIRINGS

    def before_firing(self, reads: int) -> Readership:
        """What became of the last firing, given all reads of the schedule's prompts by now."""
        if reads > self.reads:
            return Readership(reads)
        return Readership(reads, self.unread + self.waiting)

    def after_firing(self, warm: int) -> Readership:
        """A firing after which so many prompts are warm."""
        return Readership(self.reads, self.unread, warm > 0)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
