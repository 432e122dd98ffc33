"""Budgets in one SQLite file: for one machine, one process or several, surviving restarts.

The life of a reservation is in `core/reservations.py`; here are its tables, and two threads per process. The
writer takes all operations that wait and performs them in one transaction (group commit), so that a hundred
concurrent requests cost one commit. Operations run in the order of their asking: a reserve whose caller was
cancelled is performed before the release that follows it. The other thread carries the write-ahead log over
into the file, for which it waits on the disk in the writer's place.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Generic, Literal, TypeVar

from gateway.adapters.sqlite_cache import SqliteCache
from gateway.adapters.sqlite_tables import (
    begin,
    changes_seen,
    checkpoint,
    open_database,
    open_for_checkpoints,
)
from gateway.core import reservations
from gateway.core.bucket import Amounts, Decision, Presumed, Reservation, Verdict
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit
from gateway.ports import Clock

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 2.0
"""How long a caller waits; a disk that hangs is a store that is down. Four times what a store on the network
gets: a disk that others load heavily answers a sync after many hundred milliseconds, yet it answers, and
there is nothing to reconnect to that would be quicker."""

DECIDE_SECONDS: Final = 0.5
"""For a reservation, behind which a call waits: then each limit's `on_store_failure` decides. The reservation
may still be made, and is given back by whoever gave up on it."""

CHECKPOINT_SECONDS: Final = 1.0
"""How often the log is carried over, where anything was written."""

CHECKPOINT_JOBS: Final = 100
"""After so many it is done at once. Where all share one core the loop has none meanwhile: for 3 ms after a
busy second, which one call in a hundred waited for, and for some 0.3 ms after so many operations."""

CHECKPOINT_SHARE: Final = 0.1
"""Of the time goes into it at most: a slow disk has the ledger to sync too."""

BATCH: Final = 256
"""How many operations share a transaction at most."""

LINGER_SECONDS: Final = 0.005
"""How long a settlement, for which no caller waits, may wait for others to share its transaction with."""

BUSY_OPEN: Final = 4
"""From so many reservations of this process that are open on, company can be expected."""

T = TypeVar("T")


class SqliteBudgets:
    """`ports.BudgetStore` in a file.

    `synchronous="full"` waits for the disk at each commit: nothing that was answered is lost when the machine
    loses power. `"normal"` may lose the last moments then, but never tears the file; a crash of the process
    alone loses nothing in either. Time is this machine's clock.

    `await open()` first: it raises ConfigError for a file that is damaged, foreign or of another version.
    """

    def __init__(
        self, path: str | Path, clock: Clock, synchronous: Literal["normal", "full"] = "normal"
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._synchronous = synchronous
        self._inbox = _Inbox()
        self._open = 0
        """Reservations made and not settled here, more or less."""
        self._thread: threading.Thread | None = None
        self._checkpoints: threading.Thread | None = None
        self._grown, self._closing = threading.Event(), threading.Event()
        self._patiences: dict[float, _Patience] = {}

    async def open(self) -> SqliteBudgets:
        """Create or check the file and start the writer. Raises ConfigError."""
        assert self._thread is None, "opened twice"
        connection = await asyncio.to_thread(open_database, self._path, self._synchronous)
        writer = partial(_write, connection, self._inbox, self._grown)
        self._thread = threading.Thread(target=writer, name="sqlite-budgets", daemon=True)
        self._thread.start()
        second = await asyncio.to_thread(open_for_checkpoints, self._path, self._synchronous)
        keep_short = partial(_keep_log_short, second, self._path, self._grown, self._closing)
        self._checkpoints = threading.Thread(target=keep_short, name="sqlite-checkpoints", daemon=True)
        self._checkpoints.start()
        return self

    async def reserve(self, reservation: Reservation) -> Decision:
        decision = await self._perform(
            lambda tables: reservations.reserve(tables, reservation, self._now_ms()), DECIDE_SECONDS
        )
        self._open += decision.allowed
        return decision

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        self._open = max(self._open - 1, 0)
        await self._perform(
            lambda tables: reservations.close(tables, reservation_id, actual, self._now_ms()),
            may_linger=self._open >= BUSY_OPEN,
        )

    async def release(self, reservation_id: ReservationId) -> None:
        await self.settle(reservation_id, Amounts())

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        await self._perform(
            lambda tables: reservations.renew(tables, reservation_id, lease_seconds, self._now_ms())
        )

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        return await self._perform(lambda tables: reservations.sweep(tables, ledger, self._now_ms()))

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        await self._perform(lambda tables: reservations.booked(tables, ledger, entry_ids))

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        return await self._perform(lambda tables: reservations.peek(tables, limits, self._now_ms()))

    async def ping(self) -> None:
        await self._perform(SqliteCache.touch)

    async def close(self) -> None:
        """Performs what waits, then closes the file. Later calls raise StoreUnavailable."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.close()
            await asyncio.to_thread(thread.join)
        if self._checkpoints is not None:
            self._closing.set()
            self._grown.set()
            await asyncio.to_thread(self._checkpoints.join)

    async def _perform(
        self, work: Callable[[SqliteCache], T], seconds: float = ANSWER_SECONDS, *, may_linger: bool = False
    ) -> T:
        if self._thread is None:
            raise StoreUnavailable("The budget file is not open.")
        job = _Job(work)
        # Before the first await: a cancelled caller's work keeps its place.
        self._inbox.put(job, may_linger=may_linger)
        self._patience(seconds, job.loop).wait(job)
        return await job.answer

    def _patience(self, seconds: float, loop: asyncio.AbstractEventLoop) -> _Patience:
        known = self._patiences.get(seconds)
        if known is None or known.loop is not loop:
            known = self._patiences[seconds] = _Patience(self._path, seconds, loop)
        return known

    def _now_ms(self) -> int:
        return round(self._clock.now() * 1000)


class _Job(Generic[T]):
    """One operation on its way to the writer and back."""

    __slots__ = ("answer", "error", "loop", "result", "work")

    def __init__(self, work: Callable[[SqliteCache], T]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[T] = self.loop.create_future()
        self.result: T | None = None
        self.error: Exception | None = None

    def resolve(self) -> None:
        """On the loop's own thread."""
        if self.answer.done():  # its caller has left
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)  # type: ignore[arg-type]


class _Patience:
    """Gives up on jobs that were not answered within so many seconds: one timer for all of them, since hardly
    one is ever waited for so long."""

    def __init__(self, path: Path, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._path = path
        self._seconds = seconds
        self._waiting: deque[tuple[float, _Job[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, job: _Job[Any]) -> None:
        waiting = self._waiting
        while waiting and waiting[0][1].answer.done():
            waiting.popleft()
        until = self.loop.time() + self._seconds
        waiting.append((until, job))
        if self._timer is None:
            self._timer = self.loop.call_at(until, self._look)

    def _look(self) -> None:
        # After answers that came while the loop was held up by others.
        self.loop.call_soon(self._give_up)

    def _give_up(self) -> None:
        now = self.loop.time()
        while self._waiting and (self._waiting[0][1].answer.done() or self._waiting[0][0] <= now):
            _, job = self._waiting.popleft()
            if not job.answer.done():
                slow = f"{self._path}: no answer in {self._seconds} s; is the disk overloaded?"
                job.answer.set_exception(StoreUnavailable(slow, outcome_known=False))
        self._timer = self.loop.call_at(self._waiting[0][0], self._look) if self._waiting else None


class _Inbox:
    """Jobs in the order of their asking. The loop's thread puts them, the writer takes all that there are."""

    def __init__(self) -> None:
        self._jobs: deque[_Job[Any]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False

    def put(self, job: _Job[Any], *, may_linger: bool) -> None:
        self._jobs.append(job)
        if not may_linger:
            self._bell.put(None)
        elif self._timer is None:
            self._timer = job.loop.call_later(LINGER_SECONDS, self._ring)

    def close(self) -> None:
        """No job is put from now on."""
        self.closed = True
        self._bell.put(None)

    def take(self) -> list[_Job[Any]]:
        """Blocks until somebody does not want to wait, or all is closed; then nothing is left."""
        if not self.closed:
            self._bell.get()
            while not self._bell.empty():  # each rang for a job that is there already
                self._bell.get()
        jobs: list[_Job[Any]] = []
        while self._jobs and len(jobs) < BATCH:
            jobs.append(self._jobs.popleft())
        if self._jobs:  # some rings were for these
            self._bell.put(None)
        return jobs

    def _ring(self) -> None:
        self._timer = None
        self._bell.put(None)


def _write(connection: sqlite3.Connection, inbox: _Inbox, grown: threading.Event) -> None:
    """The writer thread: until all is closed, and all that was put before that is done."""
    tables = SqliteCache(connection)
    jobs = 0
    while (batch := inbox.take()) or not inbox.closed:
        _perform_together(connection, tables, batch)
        _answer(batch)
        jobs += len(batch)
        if jobs >= CHECKPOINT_JOBS:
            jobs = 0
            grown.set()
    connection.close()


def _keep_log_short(
    connection: sqlite3.Connection, path: Path, grown: threading.Event, closing: threading.Event
) -> None:
    """The other thread. The last connection to close leaves no log behind; SQLite sees to that."""
    failed = False
    seen = -1
    while not closing.is_set():
        grown.wait(CHECKPOINT_SECONDS)
        grown.clear()
        began = time.monotonic()
        try:
            found = changes_seen(connection)
            if found != seen:
                checkpoint(connection)
                seen = found
            failed = False
        except sqlite3.Error as error:
            if not failed:  # said once, not every second; the writer meets the same disk
                log.warning("%s: the log of the budget file cannot be carried over: %s", path, error)
            failed = True
        closing.wait((time.monotonic() - began) / CHECKPOINT_SHARE)
    connection.close()


def _perform_together(
    connection: sqlite3.Connection, tables: SqliteCache, batch: Sequence[_Job[Any]]
) -> None:
    if not batch:
        return
    try:
        begin(connection)
        tables.begin()
        for job in batch:
            job.result = job.work(tables)
        tables.flush()
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # Busy beyond its timeout, full disk, I/O error: rolled back, so nothing of the batch was done.
        _roll_back(connection)
        tables.forget_all()
        unavailable = StoreUnavailable(f"The budget file cannot be written: {error}.")
        for job in batch:
            job.error = unavailable
    except Exception as error:
        # A broken invariant in one operation must not fail its neighbours.
        _roll_back(connection)
        tables.forget_all()
        if len(batch) == 1:
            batch[0].error = error
            return
        for job in batch:
            _perform_together(connection, tables, [job])


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:  # SQLite has rolled back by itself
        return


def _answer(batch: Iterable[_Job[Any]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job[Any]]] = {}
    for job in batch:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve_all, jobs)
        except RuntimeError:  # the loop is closed, and nobody waits on it any more
            continue


def _resolve_all(jobs: Iterable[_Job[Any]]) -> None:
    for job in jobs:
        job.resolve()
