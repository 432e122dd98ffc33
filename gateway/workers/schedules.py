"""Fires schedules: waits for their times, lets one replica take each, reads the prompts, has them warmed, and
says in one line what came of it.

Which times those are and when a schedule is not worth firing is decided in `core/schedule.py`. Nothing that a
file, a clock, a store or upstream does ends the waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.core.prompt_lines import (
    MAX_PROMPTS_BYTES,
    PromptLine,
    WarmedPrompt,
    find_unwarmable,
    read_prompt_lines,
)
from gateway.core.schedule import UNREAD_FIRINGS, Firing, FiringState, Readership, Schedule, ScheduleStatus
from gateway.core.warmup import WarmCause
from gateway.ports import Clock, Peers
from gateway.workers.prompt_warmer import PromptWarmer

log = logging.getLogger(__name__)

SLICE_SECONDS = 30.0
"""The clock is looked at this often, since it may be set while one waits."""
JITTER_SECONDS = 10.0
"""A firing begins up to so much late, so that not everything that is due at one minute starts at once."""
LATE_SECONDS = 300.0
"""Later than this it does not begin at all."""
CLAIM_SECONDS = 60.0
"""Longer than a firing is put off and the clocks of two replicas are apart. A replica that comes later still
only reads what the first one wrote."""


class PromptsUnusable(Exception):
    """The file of prompts cannot be used; the message says why and names no content."""


class Schedules:
    """The schedules of one replica. `reads` says how often what was warmed under a name has been read since
    the start; `fired` is told of every firing, whatever became of it."""

    def __init__(
        self,
        schedules: Sequence[Schedule],
        warmer: PromptWarmer,
        *,
        clock: Clock,
        peers: Peers,
        replica: str,
        random: Callable[[], float],
        reads: Callable[[str], int],
        fired: Callable[[Firing], None] = lambda firing: None,
    ) -> None:
        """`random` gives numbers in [0, 1)."""
        self._waiting = [
            _Waiting(schedule, warmer, clock, peers, replica, random, reads, fired) for schedule in schedules
        ]

    async def run(self) -> None:
        """Check all files once, then fire until cancelled."""
        async with asyncio.TaskGroup() as group:
            for waiting in self._waiting:
                group.create_task(waiting.run(), name=f"schedule {waiting.schedule.name}")

    def report(self) -> tuple[ScheduleStatus, ...]:
        """How they stand, by name."""
        return tuple(waiting.status() for waiting in self._waiting)


class _Waiting:
    """One schedule, and what is known of its firings."""

    def __init__(
        self,
        schedule: Schedule,
        warmer: PromptWarmer,
        clock: Clock,
        peers: Peers,
        replica: str,
        random: Callable[[], float],
        reads: Callable[[str], int],
        fired: Callable[[Firing], None],
    ) -> None:
        self.schedule = schedule
        self._warmer = warmer
        self._clock = clock
        self._peers = peers
        self._replica = replica
        self._random = random
        self._reads = reads
        self._fired = fired
        self._last: Firing | None = None
        self._due_at: float | None = None
        """Of the newest firing: the same instant is not taken twice, though the clock be set back."""
        self._readership = Readership()
        self._digest = b""

    def status(self) -> ScheduleStatus:
        return ScheduleStatus(
            schedule=self.schedule, next_at=self.schedule.next_after(self._clock.now()), last=self._last
        )

    async def run(self) -> None:
        try:
            await self._check_file()
        except Exception:  # it is looked at again when it is needed
            log.exception("schedule %s: its file could not be checked", self.schedule.name)
        looked_at = self._clock.now()
        while True:
            due_at = self.schedule.next_after(looked_at)
            until = SLICE_SECONDS if due_at is None else min(SLICE_SECONDS, due_at - self._clock.now())
            await self._clock.sleep(max(0.0, until))
            now = self._clock.now()
            if due_at is None or now < due_at:
                looked_at = min(looked_at, now)  # the clock may have been set back: look again from there
                continue
            looked_at = now
            if due_at != self._due_at:
                self._due_at = due_at
                await self._fire(due_at, now)

    async def _check_file(self) -> None:
        try:
            prompts, _ = await asyncio.to_thread(_read, self.schedule.prompts)
        except PromptsUnusable as error:
            log.error("schedule %s: %s", self.schedule.name, error)
            return
        for problem in await asyncio.to_thread(find_unwarmable, prompts):
            log.warning("schedule %s: %s: %s", self.schedule.name, self.schedule.prompts, problem)

    async def _fire(self, due_at: float, now: float) -> None:
        try:
            firing = await self._firing(due_at, now)
        except Exception:
            log.exception("schedule %s failed; its next firing is tried all the same", self.schedule.name)
            firing = self._ended(due_at, FiringState.PARTLY, "The gateway failed; its log says why.")
        self._last = firing
        self._fired(firing)
        level = logging.INFO if firing.state in _QUIET else logging.WARNING
        log.log(level, "schedule %s: %s", self.schedule.name, firing.reason)

    async def _firing(self, due_at: float, now: float) -> Firing:
        if now - due_at > LATE_SECONDS:
            reason = f"Its time was {now - due_at:,.0f} s ago, which is too late; it waits for the next."
            return self._ended(due_at, FiringState.MISSED, reason)
        await self._clock.sleep(JITTER_SECONDS * self._random())
        name = f"schedule:{self.schedule.name}:{due_at:.0f}"
        holder = f"{self._replica}:{name}"
        other = await self._peers.claim([name.encode()], holder, CLAIM_SECONDS)
        if other is not None and other != holder:
            return self._ended(due_at, FiringState.ELSEWHERE, "Another replica fires this time.")
        try:
            prompts, digest = await asyncio.to_thread(_read, self.schedule.prompts)
        except PromptsUnusable as error:
            return self._ended(due_at, FiringState.BROKEN, str(error))
        if digest != self._digest:
            self._digest, self._readership = digest, Readership(self._reads(self.schedule.name))
        self._readership = self._readership.before_firing(self._reads(self.schedule.name))
        if not self._readership.is_worth_firing:
            return self._ended(due_at, FiringState.UNREAD, self._why_unread())
        firing = await self._warm(due_at, prompts)
        self._readership = self._readership.after_firing(firing.warm)
        return firing

    async def _warm(self, due_at: float, prompts: Sequence[PromptLine]) -> Firing:
        name = self.schedule.name
        outcomes = self._warmer.warm(self.schedule.workspace, name, prompts, cause=WarmCause.SCHEDULE)
        done: list[WarmedPrompt] = [outcome async for outcome in outcomes]
        warm = sum(outcome.is_warm for outcome in done)
        cold = [outcome for outcome in done if not outcome.is_warm]
        said = "".join(f" Line {each.prompt.number}: {each.outcome.reason}" for each in cold[:3])
        return Firing(
            schedule=name,
            due_at=due_at,
            state=FiringState.PARTLY if cold else FiringState.DONE,
            reason=f"{warm} of {len(done)} prompts are warm.{said}",
            prompts=len(done),
            warm=warm,
            read_tokens=sum(each.outcome.read_tokens for each in done),
            written_tokens=sum(each.outcome.written_tokens for each in done),
            cost_nanousd=sum(each.outcome.cost_nanousd for each in done),
        )

    def _ended(self, due_at: float, state: FiringState, reason: str) -> Firing:
        return Firing(schedule=self.schedule.name, due_at=due_at, state=state, reason=reason)

    def _why_unread(self) -> str:
        return (
            f"Nobody read what {UNREAD_FIRINGS} firings in a row had warmed, so it is skipped. Make "
            f"{self.schedule.prompts} agree with what apps send (model, tools, system, thinking, beta "
            "headers), or take the schedule out of gateway.yaml. It fires again once the file has changed."
        )


_QUIET = frozenset({FiringState.DONE, FiringState.ELSEWHERE})


def _read(path: str) -> tuple[tuple[PromptLine, ...], bytes]:
    """The prompts of a file and its digest. Runs in a thread. Raises `PromptsUnusable`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_PROMPTS_BYTES + 1)
    except OSError as error:
        raise PromptsUnusable(f"{path} cannot be read: {error.strerror}") from None
    prompts, problems = read_prompt_lines(data)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PromptsUnusable(f"{path}: {problems[0]}{more}; nothing of it is warmed")
    return prompts, hashlib.sha256(data).digest()
