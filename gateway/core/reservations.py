"""The life of reservations over tables: reserve, close, renew, sweep, peek. Pure but for the tables.

The stores that run Python use this (memory and SQLite); the scripts in `adapters/lua/` say the same in Lua,
and one test drives both. Each function must run atomically: the store sees to that, and to durability.

States: `open`, then `closed` (settled or released), or `swept` (its lease ended: closed at what it had set
aside, presumed spent; a later settle puts the actual cost in place of the presumed). `refused` holds nothing.
What was presumed, and what of that was corrected, waits for the ledger (`sweep`, `booked`): it is handed out
to one ledger, and to that one again until it says that it has it. (The scripts give a correction to the
ledger that was given what was presumed; the stores here have one ledger, and give it to whoever asks.)
A concurrent request is over at any close, a sweep too: none of it is ever spent, or presumed.
An id closed before its reserve arrived is `closed` too, and the reserve then finds it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.core.bucket import (
    CLOSED_BEFORE,
    EMPTY,
    NOBODY,
    PERIOD_MS,
    REFILLED_KEPT_AT_LEAST_MS,
    Amounts,
    Decision,
    Level,
    Payer,
    Presumed,
    Reservation,
    Standing,
    Verdict,
    corrected,
    decide,
    drained,
    saturated,
    spend,
    standing_windows,
)
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Limit, Unit
from gateway.core.settlement import is_late

CLOSED_KEPT_MS: Final = 300_000
"""How long closed ids are remembered: far longer than any request to a store can be under way. After that an
id is unknown, and closing it does nothing still."""

REFUSED_KEPT_MS: Final = 10_000
"""The same of refused ones, which may be many: nothing is ever looked up under them but by a second try."""

LATE_KEPT_MS: Final = 7 * 86_400_000
"""How long it is remembered what was booked afterwards: a replica that was down so long may still ask for it
once more. These are few."""

SWEPT_KEPT_MS: Final = 86_400_000
"""How long after its lease a swept reservation can still be corrected by its settlement."""

WINDOW_KEPT_MS: Final = 7 * 86_400_000
"""How long a window's bucket outlives its window, for late settlements."""

REFILLED_KEPT_MS: Final = 400 * 86_400_000
"""How long a refilled bucket is kept at most after its last change. One that takes longer to drain is full
again after that; instants so stay within what every store can hold."""

SWEEP_BATCH: Final = 200
"""How many reservations one sweep closes at most, so that nobody waits long behind it."""


class State(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    SWEPT = "swept"
    REFUSED = "refused"


# msgspec.Structs, since they are made for each call: a frozen dataclass takes ten times as long to make.
class Charge(msgspec.Struct, frozen=True, gc=False):
    """What a reservation took from one bucket, with all that is needed to settle it there."""

    bucket_key: str
    unit: Unit
    amount: int
    rate: int
    """Units that come back per period; 0 where none do with time."""
    period_ms: int
    window_end_ms: int
    """End of the calendar window; 0 where there is none."""
    taken: Level = EMPTY
    """A refilled bucket right after this was taken from it: what its close gives back follows from that."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """All that is kept of a reservation."""

    state: State
    until_ms: int
    """End of the lease while it is open, afterwards the instant at which it is forgotten."""
    charges: tuple[Charge, ...] = ()
    found_at_ms: int = 0
    found: tuple[Standing, ...] | None = None
    """What it found, from which its first answer can be given again; None where it came after its close."""
    payer: Payer = NOBODY
    nanousd: int = 0
    """What was set aside, in money."""


class Tables(Protocol):
    """Where a store keeps buckets and reservations. Called within one atomic step at a time."""

    def level(self, bucket_key: str) -> Level | None: ...

    def put_level(self, bucket_key: str, level: Level, keep_until_ms: int) -> None:
        """`keep_until_ms`: from then on the bucket is surely empty, or of no interest to anyone."""
        ...

    def keep_level(self, bucket_key: str, level: Level) -> None:
        """Keep it until it is dropped, however long that is."""
        ...

    def drop_level(self, bucket_key: str) -> None: ...

    def record(self, reservation_id: ReservationId) -> Record | None: ...

    def put_record(self, reservation_id: ReservationId, record: Record) -> None: ...

    def owe(self, ledger: str, presumed: Presumed) -> None:
        """Keep this for a ledger until it is `paid`; for any where `ledger` is empty."""
        ...

    def owed(self, ledger: str, at_most: int) -> Sequence[Presumed]: ...

    def paid(self, ledger: str, entry_ids: Sequence[str]) -> None: ...

    def due(self, now_ms: int, at_most: int) -> Sequence[ReservationId]:
        """Open reservations whose lease is over, the oldest first."""
        ...

    def forget(self, now_ms: int) -> None:
        """Drop records (other than open ones) and buckets that need not be kept any longer, or some."""
        ...


def reserve(tables: Tables, reservation: Reservation, now_ms: int) -> Decision:
    """`BudgetStore.reserve`."""
    known = tables.record(reservation.id)
    if known is not None:
        if known.found is None:
            return CLOSED_BEFORE
        return decide(reservation.limits, reservation.amounts, known.found, known.found_at_ms)
    keys, found = _find(tables, reservation.limits, now_ms, reservation.at_ms or now_ms)
    decision = decide(reservation.limits, reservation.amounts, found, now_ms)
    if not decision.allowed:
        refused = Record(State.REFUSED, now_ms + REFUSED_KEPT_MS, found_at_ms=now_ms, found=found)
        tables.put_record(reservation.id, refused)
        _keep_set_back(tables, reservation.limits, keys, found)
        return decision
    charges = []
    for bound, key, standing in zip(reservation.limits, keys, found, strict=True):
        amount = reservation.amounts.of(bound.limit.unit)
        rate, period_ms = _refill(bound.limit)
        end_ms = standing.window.end_ms if standing.window else 0
        taken = spend(standing.level, amount) if rate else EMPTY
        charge = Charge(key, bound.limit.unit, amount, rate, period_ms, end_ms, taken)
        charges.append(charge)
        if amount:
            _take(tables, charge, standing, now_ms)
    lease_ms = now_ms + round(reservation.lease_seconds * 1000)
    nanousd = reservation.amounts.of(Unit.NANOUSD)
    opened = Record(State.OPEN, lease_ms, tuple(charges), now_ms, found, reservation.payer, nanousd)
    tables.put_record(reservation.id, opened)
    return decision


def close(tables: Tables, reservation_id: ReservationId, actual: Amounts, now_ms: int) -> None:
    """`BudgetStore.settle`; at `Amounts()` it is `BudgetStore.release`. Either corrects what was swept."""
    record, kept_ms = tables.record(reservation_id), closed_kept_ms(reservation_id)
    if record is None:
        tables.put_record(reservation_id, Record(State.CLOSED, now_ms + kept_ms))
        return
    if record.state not in (State.OPEN, State.SWEPT):
        return
    for charge in record.charges:
        _settle(tables, charge, actual.of(charge.unit), now_ms, still_open=record.state is State.OPEN)
    if record.state is State.SWEPT:
        back = Presumed(
            reservation_id=reservation_id, payer=record.payer, nanousd=-record.nanousd, taken_back=True
        )
        tables.owe("", back)
    closed = Record(State.CLOSED, now_ms + kept_ms, found_at_ms=record.found_at_ms, found=record.found)
    tables.put_record(reservation_id, closed)


def closed_kept_ms(reservation_id: ReservationId) -> int:
    """How long a closed id is remembered."""
    return LATE_KEPT_MS if is_late(reservation_id) else CLOSED_KEPT_MS


def renew(tables: Tables, reservation_id: ReservationId, lease_seconds: float, now_ms: int) -> None:
    """`BudgetStore.renew`."""
    record = tables.record(reservation_id)
    if record is not None and record.state is State.OPEN:
        until_ms = now_ms + round(lease_seconds * 1000)
        tables.put_record(reservation_id, replace(record, until_ms=until_ms))


def sweep(tables: Tables, ledger: str, now_ms: int) -> tuple[Presumed, ...]:
    """`BudgetStore.sweep`, for at most `SWEEP_BATCH` reservations."""
    due = tables.due(now_ms, SWEEP_BATCH)
    for reservation_id in due:
        record = tables.record(reservation_id)
        assert record is not None and record.state is State.OPEN, reservation_id
        for charge in record.charges:
            if charge.amount and not charge.rate:  # a refilled bucket counts it as spent already
                _settle(tables, charge, charge.amount, now_ms, still_open=True)
        swept = replace(record, state=State.SWEPT, until_ms=now_ms + SWEPT_KEPT_MS)
        tables.put_record(reservation_id, swept)
        presumed = Presumed(reservation_id=reservation_id, payer=record.payer, nanousd=record.nanousd)
        tables.owe(ledger, presumed)
    for taken_back in tables.owed("", SWEEP_BATCH):
        tables.paid("", [taken_back.id])
        tables.owe(ledger, taken_back)
    tables.forget(now_ms)
    return tuple(tables.owed(ledger, SWEEP_BATCH))


def booked(tables: Tables, ledger: str, entry_ids: Sequence[str]) -> None:
    """`BudgetStore.booked`."""
    tables.paid(ledger, entry_ids)


def peek(tables: Tables, limits: Sequence[BoundLimit], now_ms: int) -> tuple[Verdict, ...]:
    """`BudgetStore.peek`."""
    _, found = _find(tables, limits, now_ms, now_ms)
    return decide(limits, Amounts(), found, now_ms).verdicts


def _find(
    tables: Tables, limits: Sequence[BoundLimit], now_ms: int, at_ms: int
) -> tuple[list[str], tuple[Standing, ...]]:
    keys, found = [], []
    for bound in limits:
        key, window = bound.bucket_id, None
        if windows := standing_windows(bound.limit, at_ms):
            window = windows[1]
            key = f"{bound.bucket_id}/{window.label}"
        level = tables.level(key)
        if bound.limit.period.is_rate:
            level = drained(level or Level(at_ms=now_ms), *_refill(bound.limit), now_ms)
        keys.append(key)
        found.append(Standing(level or EMPTY, window))
    return keys, tuple(found)


def _refill(limit: Limit) -> tuple[int, int]:
    return (limit.amount, PERIOD_MS[limit.period]) if limit.period.is_rate else (0, 0)


def _take(tables: Tables, charge: Charge, standing: Standing, now_ms: int) -> None:
    level = standing.level
    if charge.rate:
        _put_refilled(tables, charge.bucket_key, charge.taken, charge.rate, charge.period_ms)
    elif charge.unit is Unit.CONCURRENT:
        tables.keep_level(charge.bucket_key, Level(set_aside=saturated(level.set_aside + charge.amount)))
    else:
        _put_window(tables, charge, Level(level.spent, saturated(level.set_aside + charge.amount)), now_ms)


def _settle(tables: Tables, charge: Charge, actual: int, now_ms: int, *, still_open: bool) -> None:
    if charge.unit is Unit.CONCURRENT:
        if still_open and charge.amount:
            _leave(tables, charge)
        return
    if not charge.amount and not actual:
        return
    level = tables.level(charge.bucket_key)
    if charge.rate:
        level = drained(level or Level(at_ms=now_ms), charge.rate, charge.period_ms, now_ms)
        level = corrected(level, charge.taken, charge.amount, actual, charge.rate, charge.period_ms)
        _put_refilled(tables, charge.bucket_key, level, charge.rate, charge.period_ms)
        return
    level = level or EMPTY
    if still_open:
        settled = Level(saturated(level.spent + actual), saturated(level.set_aside - charge.amount))
    else:
        settled = Level(saturated(level.spent + actual - charge.amount), level.set_aside)
    _put_window(tables, charge, settled, now_ms)


def _leave(tables: Tables, charge: Charge) -> None:
    left = saturated((tables.level(charge.bucket_key) or EMPTY).set_aside - charge.amount)
    if left:
        tables.keep_level(charge.bucket_key, Level(set_aside=left))
    else:
        tables.drop_level(charge.bucket_key)


def _keep_set_back(
    tables: Tables, limits: Sequence[BoundLimit], keys: Sequence[str], found: Sequence[Standing]
) -> None:
    """Buckets that a clock wrote which was ahead: they drain from now on, though nothing is taken."""
    for bound, key, standing in zip(limits, keys, found, strict=True):
        kept = tables.level(key)
        if kept is not None and standing.level.at_ms < kept.at_ms:
            _put_refilled(tables, key, standing.level, *_refill(bound.limit))


def _put_refilled(tables: Tables, bucket_key: str, level: Level, rate: int, period_ms: int) -> None:
    keep_ms = -(-level.spent * period_ms // rate) + REFILLED_KEPT_AT_LEAST_MS
    tables.put_level(bucket_key, level, level.at_ms + min(keep_ms, REFILLED_KEPT_MS))


def _put_window(tables: Tables, charge: Charge, level: Level, now_ms: int) -> None:
    tables.put_level(charge.bucket_key, level, max(charge.window_end_ms, now_ms) + WINDOW_KEPT_MS)
