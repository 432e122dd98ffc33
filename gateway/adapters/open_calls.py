"""The calls that a process has admitted and not closed, in a file that outlives it: should it be killed, the
next one knows what they may have cost, also where the store has forgotten what was set aside for them.

A call has a slot of the file from before it is sent until it is closed: one write(2) at either end, of some
microseconds each. Nothing is synced: what was written survives the process, not the machine. A slot that is
free is the next one to be taken, so that the file is as long as the most calls that were open at a time.
What becomes of calls that are found is `workers/sweeping.py`'s.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.bucket import Amounts, Payer, Reservation
from gateway.core.endpoints import Endpoint
from gateway.core.ids import ReservationId
from gateway.core.presumed import Unsettled
from gateway.core.reservations import SWEPT_KEPT_MS

log = logging.getLogger(__name__)

SLOT_BYTES: Final = 2_048
"""Two to a page, so that none is ever half written. A line is some 400 bytes; one that is too long for its
slot goes without the caller's tags."""

OLDEST_MS: Final = SWEPT_KEPT_MS // 2
"""Calls that came in longer ago are not looked at: their leases are long over, and stores may have forgotten
that they booked them."""

_FREE: Final = b"-"
_Line = tuple[str, bool, Amounts, Payer]
"""Id, whether it was admitted without the store, what was set aside, for whom."""
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Line).decode


class OpenCalls:
    """`found` first, `forget` once all of that is settled; `add` and `drop` on the event loop. A disk that is
    full or cannot be written fails no call: it is said in the log, and such a call is not found later."""

    def __init__(self, path: Path, now: Callable[[], float], left: Sequence[Path] = ()) -> None:
        """`left`: files of processes that have no successor. `now` gives epoch seconds."""
        self._path = path
        self._now = now
        self._left = left
        self._file = -1
        self._slots: dict[ReservationId, int] = {}
        self._free: list[int] = []
        self._length = 0
        """Slots that the file has."""
        self._found: list[int] = []
        self._left_files: list[int] = []
        self._is_failing = False

    def found(self) -> tuple[Unsettled, ...]:
        """What earlier processes had open when they died; it ended now, for all that is known. Blocks."""
        calls: list[Unsettled] = []
        for path in (self._path, *self._left):
            try:
                file = _locked(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.error("calls that were open are not looked for in %s: %s", path, error.strerror)
                continue
            lines = list(_lines(file))
            calls += [found for _, line in lines if (found := self._call(line)) is not None]
            if path == self._path:
                self._file, self._length = file, -(-os.fstat(file).st_size // SLOT_BYTES)
                self._found = [slot for slot, _ in lines]
                self._free = sorted(set(range(self._length)) - set(self._found), reverse=True)
            else:
                self._left_files.append(file)
        return tuple(calls)

    def forget(self) -> None:
        """All that was found is booked and settled, or cannot be. Nothing happens where nothing was found."""
        for slot in self._found:
            self._write(_FREE, slot)
        self._free += reversed(self._found)
        self._found = []
        while self._left_files:
            with suppress(OSError):
                os.ftruncate(self._left_files[-1], 0)
            os.close(self._left_files.pop())

    def add(self, reservation: Reservation, *, degraded: bool) -> None:
        """It was admitted, `degraded` without the store, and may be sent from now on. Batches are left out:
        their reservations outlive whoever made them."""
        payer = reservation.payer
        if not reservation.amounts.nanousd or payer.endpoint == Endpoint.BATCHES:
            return
        line = _encode((reservation.id, degraded, reservation.amounts, payer))
        if len(line) >= SLOT_BYTES:
            line = _encode((reservation.id, degraded, reservation.amounts, replace(payer, tags=())))
        slot = self._slots.get(reservation.id)
        if slot is None:
            if not self._free:
                self._free.append(self._length)
                self._length += 1
            slot = self._slots[reservation.id] = self._free.pop()
        self._write(line[: SLOT_BYTES - 1] + b"\n", slot)

    def drop(self, reservation_id: ReservationId) -> None:
        """It is closed, or others see to that. Unknown ids: nothing happens."""
        slot = self._slots.pop(reservation_id, None)
        if slot is not None:
            self._free.append(slot)
            self._write(_FREE, slot)

    def close(self) -> None:
        """Calls that are open still stay in the file."""
        if self._file >= 0:
            if not self._slots and not self._found:
                with suppress(OSError):
                    os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1
        while self._left_files:
            os.close(self._left_files.pop())

    def _write(self, line: bytes, slot: int) -> None:
        try:
            if self._file < 0:
                self._file = _locked(self._path, os.O_RDWR | os.O_CREAT)
            if os.pwrite(self._file, line, slot * SLOT_BYTES) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                log.error("calls that are open cannot be written to %s: %s", self._path, error.strerror)
            self._is_failing = True

    def _call(self, line: bytes) -> Unsettled | None:
        try:
            reservation_id, degraded, amounts, payer = _decode(line)
        except msgspec.MsgspecError:
            log.warning("a call that was open cannot be read: %d bytes", len(line))
            return None
        if payer.received_at_ms < self._now() * 1000 - OLDEST_MS:
            log.warning(
                "%s was open too long ago: it is left to the lease of its reservation", reservation_id
            )
            return None
        return Unsettled(
            reservation_id=ReservationId(reservation_id),
            amounts=amounts,
            payer=payer,
            ended_at=self._now(),
            degraded=degraded,
        )


def left_behind(path: Path, count: int) -> tuple[Path, ...]:
    """Files like this one of workers that there are no more, now that there are `count`."""
    numbered = (
        (other.name.removeprefix(f"{path.name}."), other) for other in path.parent.glob(f"{path.name}.*")
    )
    return tuple(sorted(other for number, other in numbered if number.isdigit() and int(number) >= count))


def _locked(path: Path, flags: int) -> int:
    """Its descriptor, which no other process has as long as this one lives. Raises OSError."""
    file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _lines(file: int) -> Iterator[tuple[int, bytes]]:
    """The slots that are taken, and what is in them."""
    for slot in range(-(-os.fstat(file).st_size // SLOT_BYTES)):
        line, end, _ = os.pread(file, SLOT_BYTES, slot * SLOT_BYTES).partition(b"\n")
        if end and not line.startswith((_FREE, b"\0")):
            yield slot, line
