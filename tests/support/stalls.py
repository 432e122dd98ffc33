"""How long the gateway's own code keeps the event loop from everybody else, in CPU time.

Every callback of asyncio's loop is measured by the CPU time of the loop's own thread, so that a machine that
others load makes nothing slower. Whose it was is told by a thread that looks at the loop's stack every few
milliseconds: tests run a simulator and clients on the same loop, which are none of the gateway's business.
Other threads that hold the interpreter's lock are measured as well: the CPU time that they took between two
turns of a timer that was due every millisecond, which is what whoever else is on the loop waited for.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tests.support.process import ROOT

LOOK_SECONDS = 0.002
LEAST_SECONDS = 0.005
"""Shorter turns are nobody's stall."""
_OWN, _NOT_OWN = str(ROOT / "gateway"), str(ROOT / "gateway/sim")


@dataclass(frozen=True, slots=True)
class Stall:
    """One turn of the loop. `where`: the innermost place of the gateway's code that was seen in it."""

    seconds: float
    where: str


class Stalls:
    """Made by `watching_stalls`. `own` are turns spent in the gateway's code, longest first."""

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._turn = 0
        self._seen: dict[int, str] = {}
        self._ended = threading.Event()
        self._found: list[Stall] = []
        self.others_seconds = 0.0
        """The longest that other threads of this process kept the loop waiting, in their CPU time."""

    @property
    def own(self) -> list[Stall]:
        return sorted(self._found, key=lambda stall: -stall.seconds)

    @property
    def longest(self) -> float:
        """Seconds; 0.0 where no turn was a stall."""
        return max((stall.seconds for stall in self._found), default=0.0)

    def run(self, handle: Any, original: Any) -> None:
        self._turn += 1
        begun = time.thread_time()
        original(handle)
        spent = time.thread_time() - begun
        where = self._seen.pop(self._turn, None)
        if where is not None and spent >= LEAST_SECONDS:
            self._found.append(Stall(spent, where))

    def look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            turn = self._turn
            where = _own_place(sys._current_frames().get(self._thread_id))
            if where is not None:
                self._seen[turn] = where

    def end(self) -> None:
        self._ended.set()


@contextmanager
def watching_stalls() -> Iterator[Stalls]:
    """Inside a running asyncio loop, on its thread. Not for uvloop, whose callbacks cannot be seen."""
    # A full collection holds the lock while it looks at all that tests have made; the gateway freezes what
    # was there at its start, too (`adapters/garbage.py`).
    gc.collect()
    gc.freeze()
    stalls = Stalls()
    original = asyncio.events.Handle._run
    vars_of = asyncio.events.Handle
    vars_of._run = lambda handle: stalls.run(handle, original)  # type: ignore[method-assign,assignment]
    watch = threading.Thread(target=stalls.look, daemon=True)
    watch.start()
    ticking = _Ticks(stalls)
    try:
        yield stalls
    finally:
        ticking.stop()
        vars_of._run = original  # type: ignore[method-assign]
        stalls.end()
        watch.join()
        gc.unfreeze()


class _Ticks:
    """A timer that is always due, and what other threads used up before it came."""

    def __init__(self, stalls: Stalls) -> None:
        self._stalls = stalls
        self._loop = asyncio.get_running_loop()
        self._process, self._thread = time.process_time(), time.thread_time()
        self._timer = self._loop.call_later(0.001, self._tick)

    def _tick(self) -> None:
        process, thread = time.process_time(), time.thread_time()
        others = (process - self._process) - (thread - self._thread)
        self._stalls.others_seconds = max(self._stalls.others_seconds, others)
        self._process, self._thread = process, thread
        self._timer = self._loop.call_later(0.001, self._tick)

    def stop(self) -> None:
        self._timer.cancel()


def _own_place(frame: FrameType | None) -> str | None:
    """Where in the gateway's code a stack is; None where it is in none, or where the simulator calls
    it."""
    place = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_NOT_OWN):
            return None
        if place is None and name.startswith(_OWN):
            place = f"{name[len(_OWN) - len('gateway') :]}:{frame.f_lineno} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return place
