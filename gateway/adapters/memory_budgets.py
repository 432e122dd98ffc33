"""Budgets in the memory of one process: for a single replica whose counts may end with it, and for tests.

The life of a reservation is in `core/reservations.py`; here are only its tables as dicts. Nothing awaits
between reading and writing, which makes each method atomic on one event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import islice

from gateway.core import reservations
from gateway.core.bucket import Amounts, Decision, Level, Presumed, Reservation, Verdict
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit
from gateway.core.reservations import Record, State
from gateway.ports import Clock


class MemoryBudgets:
    """`ports.BudgetStore` in a dict. Never raises `StoreUnavailable`; nothing outlives the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tables = _DictTables()

    async def reserve(self, reservation: Reservation) -> Decision:
        return reservations.reserve(self._tables, reservation, self._now_ms())

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        reservations.close(self._tables, reservation_id, actual, self._now_ms())

    async def release(self, reservation_id: ReservationId) -> None:
        reservations.close(self._tables, reservation_id, Amounts(), self._now_ms())

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        reservations.renew(self._tables, reservation_id, lease_seconds, self._now_ms())

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        return reservations.sweep(self._tables, ledger, self._now_ms())

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        reservations.booked(self._tables, ledger, entry_ids)

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        return reservations.peek(self._tables, limits, self._now_ms())

    async def ping(self) -> None:
        return

    async def close(self) -> None:
        return

    def _now_ms(self) -> int:
        return round(self._clock.now() * 1000)


class _DictTables:
    """`reservations.Tables`. Instants lie in heaps; an entry that its record has outlived is skipped."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[Level, int]] = {}
        self._kept: dict[str, Level] = {}
        """Those that no instant ends."""
        self._records: dict[ReservationId, Record] = {}
        self._leases: list[tuple[int, ReservationId]] = []
        self._closed: list[tuple[int, ReservationId]] = []
        self._drained: list[tuple[int, str]] = []
        self._owed: dict[str, dict[str, Presumed]] = {}

    def level(self, bucket_key: str) -> Level | None:
        held = self._levels.get(bucket_key)
        return held[0] if held else self._kept.get(bucket_key)

    def put_level(self, bucket_key: str, level: Level, keep_until_ms: int) -> None:
        if bucket_key not in self._levels:
            heappush(self._drained, (keep_until_ms, bucket_key))
        self._levels[bucket_key] = (level, keep_until_ms)

    def keep_level(self, bucket_key: str, level: Level) -> None:
        self._kept[bucket_key] = level

    def drop_level(self, bucket_key: str) -> None:
        self._kept.pop(bucket_key, None)

    def record(self, reservation_id: ReservationId) -> Record | None:
        return self._records.get(reservation_id)

    def put_record(self, reservation_id: ReservationId, record: Record) -> None:
        self._records[reservation_id] = record
        heap = self._leases if record.state is State.OPEN else self._closed
        heappush(heap, (record.until_ms, reservation_id))

    def owe(self, ledger: str, presumed: Presumed) -> None:
        self._owed.setdefault(ledger, {})[presumed.id] = presumed

    def owed(self, ledger: str, at_most: int) -> Sequence[Presumed]:
        return list(islice(self._owed.get(ledger, {}).values(), at_most))

    def paid(self, ledger: str, entry_ids: Sequence[str]) -> None:
        for entry_id in entry_ids:
            self._owed.get(ledger, {}).pop(entry_id, None)

    def due(self, now_ms: int, at_most: int) -> Sequence[ReservationId]:
        due: dict[ReservationId, None] = {}  # one renewed within its millisecond lies there twice
        while self._leases and self._leases[0][0] <= now_ms and len(due) < at_most:
            until_ms, reservation_id = heappop(self._leases)
            record = self._records.get(reservation_id)
            if record and record.state is State.OPEN and record.until_ms == until_ms:
                due[reservation_id] = None
        return tuple(due)

    def forget(self, now_ms: int) -> None:
        while self._closed and self._closed[0][0] <= now_ms:
            until_ms, reservation_id = heappop(self._closed)
            record = self._records.get(reservation_id)
            if record and record.state is not State.OPEN and record.until_ms == until_ms:
                del self._records[reservation_id]
        while self._drained and self._drained[0][0] <= now_ms:
            _, bucket_key = heappop(self._drained)
            _, keep_until_ms = self._levels[bucket_key]
            if keep_until_ms <= now_ms:
                del self._levels[bucket_key]
            else:
                heappush(self._drained, (keep_until_ms, bucket_key))
