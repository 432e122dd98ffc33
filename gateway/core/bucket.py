"""Arithmetic of buckets, and the decision that several of them make together. Pure integers.

A bucket is what is gone from it: `spent`, and `set_aside` for reservations that are open. Available is
capacity - spent - set_aside, always. Three kinds differ only in how what is gone comes back:

- Refilled continuously (per second, minute, hour): `spent` drains at the limit's rate. A reservation counts
  as spent from the start, so that a long stream does not hold back what its minute has long given again. At
  its close comes back what it had too much, as far as time has not given it back already (`corrected`). So
  over any time t at most capacity + rate * t is used, each exchange counted when it was reserved, beyond
  what exchanges cost more than they had reserved; that is charged in full when it becomes known.
- Calendar windows (day, week, month): each window has a bucket of its own, which never drains. A reservation
  is set aside in the window in which it was made, and settled there however late.
- Concurrent requests: set aside while the reservation is open, and never spent.

Available may be below zero: by what settlements cost more than was set aside. What to keep per reservation,
and for how long, is in `reservations.py`; nothing here knows a store or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.core.ids import ReservationId
from gateway.core.limits import MAX_AMOUNT, BoundLimit, Limit, Mode, Period, Unit
from gateway.core.windows import Window, windows_around

MORE_THAN_ANY: Final = MAX_AMOUNT + 1
"""Amounts are cut off here: no limit is as large. 2^53 - 1 is the last integer that doubles count exactly."""

REFILLED_KEPT_AT_LEAST_MS: Final = 86_400_000
"""How long a refilled bucket is kept at least after its last change, even when it is full again: one that was
forgotten counts `Level.given_back` from zero. So within this time of a taking the count can be relied on;
later `corrected` does without."""

_LAST_INSTANT_MS: Final = 253_402_300_799_000
"""The end of the year 9999, beyond which no calendar goes: a rate may be longer in filling up."""

_GIVEN_BACK_WRAPS: Final = MORE_THAN_ANY + 1

PERIOD_MS: Final = {Period.SECOND: 1_000, Period.MINUTE: 60_000, Period.HOUR: 3_600_000}

RETRY_WHILE_SET_ASIDE_SECONDS: Final = 1.0
"""When to ask again where open reservations alone stand in the way: they may settle for less any moment."""


# msgspec.Structs, since they are made for each call: a frozen dataclass takes ten times as long to make.
class Amounts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """So much of each unit."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanousd: int = 0
    prompt_tokens: int = 0
    concurrent: int = 0
    """One, of what is to be set aside; no actual cost has any."""

    def of(self, unit: Unit) -> int:
        """The amount in one unit, cut off at `MORE_THAN_ANY`."""
        amount: int = getattr(self, unit.value)
        assert amount >= 0, f"{unit}: {amount}"
        return min(amount, MORE_THAN_ANY)


class Payer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """For whom a reservation is made: what the ledger needs to know of an exchange that nobody can tell of
    any more, since its replica died. Numbers and names from the configuration; kept by the store."""

    received_at_ms: int = 0
    """When the call arrived, epoch milliseconds: its cost belongs to that day."""
    organisation: str = ""
    workspace: str = ""
    key_id: str = ""
    route: str = ""
    model: str = ""
    endpoint: str = ""
    tags: tuple[tuple[str, str], ...] = ()


NOBODY: Final = Payer()


class Reservation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is set aside for one exchange. Its id is ours and known before the store is asked, so that it
    can be closed whatever became of the asking."""

    id: ReservationId
    limits: tuple[BoundLimit, ...]
    amounts: Amounts
    lease_seconds: float
    payer: Payer = NOBODY
    at_ms: int = 0
    """Of what is booked afterwards: the instant in whose calendar windows it counts; 0: now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What it takes to settle a reservation for another process than the one that made it."""

    reservation: Reservation
    generation: str | None
    """Of the counters in which its dollars are set aside; empty: only what is no dollar window; None: perhaps
    nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presumed:
    """A change that a store made to its counters by itself, and that the ledger has to follow: a reservation
    whose lease ended was closed at what it had set aside; or that was taken back, as it was settled late."""

    reservation_id: ReservationId
    payer: Payer
    nanousd: int
    """Below zero where it is taken back."""
    taken_back: bool = False

    @property
    def id(self) -> str:
        """Of the ledger's entry: always the same, so that it is booked once, however often it is tried."""
        return f"{self.reservation_id}:{'corrected' if self.taken_back else 'presumed'}"


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one limit answered."""

    bound: BoundLimit
    allowed: bool
    remaining: int
    """What is left for others after this reservation, never below zero in display."""
    retry_after_seconds: float | None
    """Shortest wait after which the same request could pass; 0 where it passed, None where waiting cannot
    help."""
    reset_at: float | None
    """When the bucket is full again, or its window ends; epoch seconds. None for concurrent requests, whose
    end nobody knows."""
    spent: int = 0
    """Spent in this window; of a refilled bucket, what has not yet come back."""
    set_aside: int = 0
    """Held by open reservations; of a refilled bucket they are part of `spent`."""
    rebuilding: bool = False
    """Whether the counter is being computed anew: what is spent, set aside and left says nothing yet."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer for all limits of a reservation at once. Nothing is held where `allowed` is False.

    `binding` is the strictest verdict of the limits that are enforced: of a refusal, the one that bound. It
    is None where no limit is enforced, or where the reservation had been closed before it was asked for.
    `shadow_refusals` names limits in shadow mode that would have refused."""

    allowed: bool
    binding: Verdict | None
    verdicts: tuple[Verdict, ...] = ()
    shadow_refusals: tuple[str, ...] = ()
    degraded: bool = False
    """True where a policy decided because the store could not."""


class Level(msgspec.Struct, frozen=True, gc=False):
    """What is gone from one bucket, as of an instant."""

    spent: int = 0
    set_aside: int = 0
    fraction: int = 0
    """Of a refilled bucket: what came back beyond whole units, in units / period in milliseconds."""
    at_ms: int = 0
    given_back: int = 0
    """Of a refilled bucket: all that closes gave back, each rounded up. Begins again from zero at 2^53, which
    no difference within `REFILLED_KEPT_AT_LEAST_MS` comes near."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """A bucket as a reservation finds it: all that a verdict is made from."""

    level: Level
    window: Window | None = None
    """The store's current window, of a calendar limit."""


EMPTY: Final = Level()


def drained(level: Level, rate: int, period_ms: int, now_ms: int) -> Level:
    """What is still gone at `now_ms`, when `rate` units come back per period. Exact: nothing is lost between
    calls, however many. A clock that went back adds nothing, and is waited for; where that would take more
    than a period, the clock before was wrong, and the bucket drains from now on."""
    if level.at_ms - now_ms > period_ms:
        level = Level(level.spent, level.set_aside, level.fraction, now_ms, level.given_back)
    elapsed_ms = now_ms - level.at_ms
    if level.spent == 0:
        return Level(at_ms=max(now_ms, level.at_ms), given_back=level.given_back)
    if elapsed_ms <= 0:
        return level
    back, fraction = divmod(elapsed_ms * rate + level.fraction, period_ms)
    if back >= level.spent:
        return Level(at_ms=now_ms, given_back=level.given_back)
    return Level(spent=level.spent - back, fraction=fraction, at_ms=now_ms, given_back=level.given_back)


def spend(level: Level, change: int) -> Level:
    """The level of a refilled bucket after spending so much, or getting it back. Not below empty."""
    spent = saturated(level.spent + change)
    fraction = level.fraction if spent else 0
    return Level(spent=spent, fraction=fraction, at_ms=level.at_ms, given_back=level.given_back)


def corrected(level: Level, taken: Level, amount: int, actual: int, rate: int, period_ms: int) -> Level:
    """The level of a refilled bucket, drained until now, after `actual` takes the place of an `amount`.
    `taken` is the level right after that amount was taken.

    Gives back amount - actual, but no more than is surely left of what was gone then: what drained in the
    meantime time has given back, and must not come back once more. Surely left is the greater of
    - amount - drained since;
    - the level then - drained since - given back to anyone since: lower than that the bucket never was.
    So over any time t no more than capacity + rate * t is used: what is used since any instant, less what
    drained, stays at or below the level. Where the instant is before the taking, the use itself falls by
    amount - actual; where it is after, the level exceeds it by each of the two at least.

    The second keeps a busy bucket busy, whose level is far above any one amount. What lasts longer than a
    full bucket takes to drain gets nothing back, nor does what was taken by a clock that was ahead: nobody
    knows for how long. The lowest level itself, were it known, would be too much: two that share it would
    both get it back."""
    if actual >= amount:
        return spend(level, actual - amount)
    if level.at_ms < taken.at_ms:
        return level
    # Exact, in units / period: a unit lasts long where few come back, and is not to be lost to rounding.
    elapsed_ms = level.at_ms - taken.at_ms
    left = amount * period_ms
    if elapsed_ms < REFILLED_KEPT_AT_LEAST_MS:
        given_back = (level.given_back - taken.given_back) % _GIVEN_BACK_WRAPS
        left = max(left, (taken.spent - given_back) * period_ms - taken.fraction)
    gone = level.spent * period_ms - level.fraction
    back = min((amount - actual) * period_ms, left - elapsed_ms * rate, gone)
    if back <= 0:
        return level
    spent = -((back - gone) // period_ms)
    return Level(
        spent=spent,
        fraction=spent * period_ms - (gone - back),
        at_ms=level.at_ms,
        given_back=(level.given_back - (-back // period_ms)) % _GIVEN_BACK_WRAPS,
    )


def saturated(units: int) -> int:
    """A count as every store can hold it: it stops at `MORE_THAN_ANY`, where only a shadow limit gets to."""
    return min(max(units, 0), MORE_THAN_ANY)


def fits(level: Level, capacity: int, amount: int) -> bool:
    """Whether a bucket has so much to give. Nothing fits always, even where a bucket is below zero."""
    return amount == 0 or amount <= capacity - level.spent - level.set_aside


def decide(
    limits: Sequence[BoundLimit], amounts: Amounts, found: Sequence[Standing], now_ms: int
) -> Decision:
    """The decision of all limits together, from the levels that were found before anything was taken."""
    asked = []
    allowed = True
    for bound, standing in zip(limits, found, strict=True):
        amount = amounts.of(bound.limit.unit)
        fit = fits(standing.level, bound.limit.capacity, amount)
        allowed = allowed and (fit or bound.limit.mode is Mode.SHADOW)
        asked.append((bound, standing, amount, fit))
    verdicts = tuple(
        [
            _verdict(bound, standing, amount, fit, now_ms, taken=allowed)
            for bound, standing, amount, fit in asked
        ]
    )
    binding: Verdict | None = None
    shadow_refusals: tuple[str, ...] = ()
    for verdict in verdicts:
        if verdict.bound.limit.mode is Mode.ENFORCE:
            binding = verdict if binding is None else stricter(binding, verdict)
        elif not verdict.allowed:
            shadow_refusals += (verdict.bound.limit.id,)
    return Decision(allowed=allowed, binding=binding, verdicts=verdicts, shadow_refusals=shadow_refusals)


CLOSED_BEFORE: Final = Decision(allowed=False, binding=None)
"""The answer to a reservation that was closed before it arrived: nothing is held."""


def stricter(one: Verdict, other: Verdict) -> Verdict:
    """The verdict that says more to a caller: a refusal before a pass, no hope before a long wait before a
    short one, then the smaller share left. The first of equals."""
    if one.allowed != other.allowed:
        return other if one.allowed else one
    if not one.allowed and one.retry_after_seconds != other.retry_after_seconds:
        if one.retry_after_seconds is None or other.retry_after_seconds is None:
            return one if one.retry_after_seconds is None else other
        return one if one.retry_after_seconds > other.retry_after_seconds else other
    # remaining / capacity, compared without dividing
    share = one.remaining * max(other.bound.limit.capacity, 1)
    return one if share <= other.remaining * max(one.bound.limit.capacity, 1) else other


def standing_windows(limit: Limit, now_ms: int) -> tuple[Window, Window, Window] | None:
    """The windows among which a store may find its clock; None where time has no windows for the limit."""
    return windows_around(limit.period, limit.timezone, now_ms) if limit.period.is_calendar else None


def _verdict(
    bound: BoundLimit, standing: Standing, amount: int, fit: bool, now_ms: int, *, taken: bool
) -> Verdict:
    limit, level, window = bound.limit, standing.level, standing.window
    held = amount if taken else 0
    left = limit.capacity - level.spent - level.set_aside - held
    spent, set_aside = level.spent, level.set_aside + held
    reset_ms: int | None = None
    if window is not None:
        reset_ms = window.end_ms
    elif limit.period.is_rate:
        spent, set_aside = level.spent + held, 0
        reset_ms = min(now_ms + _drain_ms(limit, level, spent), _LAST_INSTANT_MS)
    return Verdict(
        bound=bound,
        allowed=fit,
        remaining=max(left, 0),
        retry_after_seconds=0.0 if fit else _retry_after_seconds(limit, standing, amount, now_ms),
        reset_at=None if reset_ms is None else reset_ms / 1000,
        spent=spent,
        set_aside=set_aside,
    )


def _retry_after_seconds(limit: Limit, standing: Standing, amount: int, now_ms: int) -> float | None:
    level, window = standing.level, standing.window
    if amount > limit.capacity:
        return None
    if limit.period is Period.OPEN:
        return RETRY_WHILE_SET_ASIDE_SECONDS
    if window is None:
        return _drain_ms(limit, level, amount + level.spent - limit.capacity) / 1000
    end_seconds = max(window.end_ms - now_ms, 0) / 1000
    if amount <= limit.capacity - level.spent:
        return min(RETRY_WHILE_SET_ASIDE_SECONDS, end_seconds)
    return end_seconds


def _drain_ms(limit: Limit, level: Level, units: int) -> int:
    """Until so many units have come back, rounded up to a millisecond."""
    missing = units * PERIOD_MS[limit.period] - level.fraction
    return max(-(-missing // limit.amount), 0)
