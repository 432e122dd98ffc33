"""A bounded queue that one thread drains in batches: how observers write without blocking the event loop.

Nothing here knows what is written. Which bound, and what becomes of items over it, is its owner's affair.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.05
MAX_RETRY_SECONDS = 5.0


def _nothing() -> None:
    return


class BatchWriter(Generic[T]):
    """Calls `write` with lists of items, in order, in a thread of its own.

    Where `write` raises, the same items are tried again after a growing pause, and `failures` counts it:
    `write` must either do all or be safe to repeat. The thread is a daemon, so that a disk that hangs
    cannot keep the process from ending.
    """

    def __init__(
        self,
        write: Callable[[list[T]], None],
        *,
        name: str,
        limit: int,
        batch: int = 1000,
        linger_seconds: float = 0.02,
        wrote: Callable[[], None] = _nothing,
    ) -> None:
        """`wrote` is called on the thread after each write that worked."""
        self.failures = 0
        self._write = write
        self._wrote = wrote
        self._limit = limit
        self._batch = batch
        self._linger_seconds = linger_seconds
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._in_hand: list[T] = []
        self._taken = self._done = 0
        self._oldest_at: float | None = None
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Take an item without waiting; False where the queue is full or closed, and it was not taken."""
        if self._queue.qsize() >= self._limit or self._closing.is_set():
            return False
        self._taken += 1
        self._queue.put(item)
        return True

    @property
    def taken(self) -> int:
        """Items taken since the start."""
        return self._taken

    @property
    def done(self) -> int:
        """Items written since the start, in the order in which they were taken."""
        return self._done

    @property
    def ended(self) -> bool:
        """Whether the thread is done, so that what it wrote to can be closed."""
        return not self._thread.is_alive()

    @property
    def backlog(self) -> int:
        """Items not yet written, also those that the thread has just taken up."""
        return self._taken - self._done

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest item that the thread has taken up waits; 0 when there is none."""
        oldest = self._oldest_at
        return 0.0 if oldest is None else time.monotonic() - oldest

    def close(self, timeout_seconds: float) -> list[T]:
        """Write what there is, for at most so long; what could not be written is returned. Blocks."""
        self._deadline = time.monotonic() + timeout_seconds
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout_seconds + 1)
        left = list(self._in_hand)
        while not self._queue.empty():
            if (item := self._queue.get_nowait()) is not None:
                left.append(item)
        return left

    def _run(self) -> None:
        ended = False
        while not ended:
            item = self._queue.get()
            if item is None:
                return
            self._oldest_at = time.monotonic()
            # One commit for all that arrives within the linger: fewer syncs, fewer wake-ups of this thread.
            self._closing.wait(self._linger_seconds)
            batch = [item]
            while len(batch) < self._batch and not self._queue.empty():
                if (item := self._queue.get_nowait()) is None:
                    ended = True
                    break
                batch.append(item)
            self._in_hand = batch
            if not self._attempt(batch):
                return
            self._in_hand = []
            self._done += len(batch)
            self._oldest_at = None
            self._wrote()

    def _attempt(self, batch: list[T]) -> bool:
        """Write until it works; False where the deadline of `close` passed before."""
        pause, attempts = FIRST_RETRY_SECONDS, 0
        while True:
            try:
                self._write(batch)
            except Exception as error:
                self.failures += 1
                attempts += 1
                if attempts == 1:  # once a batch: trouble with a disk should not fill another one
                    log.warning("%s could not write, and tries again: %s", self._thread.name, error)
            else:
                if attempts:
                    log.warning("%s writes again, after %d failed attempts", self._thread.name, attempts)
                return True
            if time.monotonic() >= self._deadline:
                return False
            if self._closing.is_set():
                time.sleep(FIRST_RETRY_SECONDS)
            else:
                self._closing.wait(pause)
                pause = min(pause * 2, MAX_RETRY_SECONDS)
