"""A `BudgetStore` that always decides: what becomes of calls while the store is away, or while its dollar
windows are being rebuilt, and how what they cost is booked afterwards.

Each limit says what holds while the store cannot be asked: `refuse`, `allow`, or `allowance` (a bounded
amount on this replica). While the dollar windows are behind the fence (`redis_fence.py`) the same holds for
limits of money in a calendar window; all others are asked as ever.

What could not be booked under the exchange's own id is booked under another, once: see `afterwards` in
`core/settlement.py`. It is kept here until then, for as long as this process lives; a process that dies
leaves it to the ledger, and an audit shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gateway.core.bucket import Amounts, Decision, Presumed, Reservation, Verdict
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Mode, OnStoreFailure
from gateway.core.outage_allowance import OutageAllowance
from gateway.core.rebuild import SURELY_READ_SECONDS, is_rebuilt
from gateway.core.settlement import afterwards
from gateway.ports import BudgetStore, Clock

log = logging.getLogger(__name__)

MAX_OWED: Final = 200_000
"""Settlements that wait for the store. Beyond it the oldest are given up: the ledger has them."""

KINDS: Final = 4096

PAID_AT_ONCE: Final = 500
"""Of those that wait, in one turn of `pay`."""


class Fence(Protocol):
    """What is asked of a fence on the way of a call; see `redis_fence.py`."""

    @property
    def generation(self) -> str: ...

    @property
    def opened_at(self) -> float: ...

    def disturbed(self) -> bool: ...

    def acknowledged(self, reservation_id: ReservationId, *, closed: bool) -> None: ...

    def gone(self) -> None: ...

    async def beat(self) -> None: ...


@dataclass(slots=True)
class _Hold:
    """What the store has of an exchange that runs."""

    reservation: Reservation
    generation: str | None
    """Under which its dollars are set aside; empty: only what is no dollar window; None: perhaps nothing."""
    late_in: str | None = None
    """The generation in which it was set aside again, under its other id; empty while that is not known."""


@dataclass(slots=True)
class _Owed:
    """A close that the store does not have yet."""

    hold: _Hold
    actual: Amounts | None
    """None: released."""
    ended_at: float


def _unheard(_: object) -> None:
    """Where nobody wants to know."""


class GuardedBudgets:
    """`ports.BudgetStore` around another one. `reserve` raises `StoreUnavailable` only where a limit refuses
    to go on without the store; where it goes on, the decision says `degraded`. `degraded` is told at once
    when the store goes away (True) and when it is back with all that was owed to it (False)."""

    def __init__(
        self,
        store: BudgetStore,
        clock: Clock,
        *,
        fence: Fence | None = None,
        fenced: BudgetStore | None = None,
        degraded: Callable[[bool], None] = _unheard,
    ) -> None:
        """With a `fence`, `fenced` is the same store under the fence's generation."""
        assert (fence is None) == (fenced is None)
        self._store = store
        self._fenced = fenced or store
        self._fence = fence
        self._clock = clock
        self._degraded = degraded
        self._holds: dict[ReservationId, _Hold] = {}
        self._owed: dict[ReservationId, _Owed] = {}
        self._kinds: dict[int, tuple[tuple[BoundLimit, ...], bool]] = {}
        self._away = False
        self.allowances = OutageAllowance()
        self.given_up = 0
        """Settlements that were not booked, since too many waited."""

    @property
    def owed(self) -> int:
        """Closes that wait for the store."""
        return len(self._owed)

    @property
    def is_rebuilding(self) -> bool:
        """Whether the dollar windows are behind the fence."""
        return self._fence is not None and not self._fence.generation

    async def reserve(self, reservation: Reservation) -> Decision:
        fence = self._fence
        if fence is None or not self._has_dollars(reservation.limits):
            return await self._reserve_rest(reservation, reservation.limits)
        try:
            if not fence.generation and fence.disturbed():
                await fence.beat()
            if generation := fence.generation:
                decision = await self._fenced.reserve(reservation)
                if fence.disturbed():  # it went over another connection than was looked into
                    await fence.beat()
                if fence.generation != generation:  # it is held, but in counters that are not to be trusted
                    return self._decide_alone(reservation, reservation.limits, _rebuilt())
                fence.acknowledged(reservation.id, closed=False)
                if decision.allowed:
                    self._holds[reservation.id] = _Hold(reservation, generation)
                return decision
        except StoreUnavailable as error:
            if not _says_fenced(error):
                return self._decide_alone(reservation, reservation.limits, error)
            fence.gone()
        return await self._reserve_behind(reservation)

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        hold, fence = self._holds.get(reservation_id), self._fence
        if hold is None or fence is None or not hold.generation or hold.generation != fence.generation:
            await self._close(reservation_id, actual)
            return
        try:  # as nearly always: nothing is owed, and nothing needs to be written down
            await self._fenced.settle(reservation_id, actual)
        except StoreUnavailable as error:
            if _says_fenced(error):
                fence.gone()
            self._owe(reservation_id, hold, actual)
            raise
        self._holds.pop(reservation_id, None)
        if not fence.disturbed():  # else it was perhaps another Redis that said so
            fence.acknowledged(reservation_id, closed=True)

    async def release(self, reservation_id: ReservationId) -> None:
        await self._close(reservation_id, None)

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        hold = self._holds.get(reservation_id)
        if hold is not None and hold.late_in is not None:
            await self._store.renew(afterwards(hold.reservation, Amounts()).id, lease_seconds)
        await self._store.renew(reservation_id, lease_seconds)

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        return await self._store.sweep(ledger)

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        await self._store.booked(ledger, entry_ids)

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        return await self._store.peek(limits)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()

    async def pay(self) -> None:
        """Book what is owed, and set aside again what runs and is not: once the store is back. Raises
        `StoreUnavailable` where it is not, or no more; then what is left stays."""
        if self.is_rebuilding:
            return
        for reservation_id, owed in list(self._owed.items())[:PAID_AT_ONCE]:
            await self._pay(reservation_id, owed)
        generation = self._fence.generation if self._fence is not None else "-"
        for hold in list(self._holds.values()):
            if generation not in (hold.generation, hold.late_in):
                hold.late_in = ""  # from here on its close closes that too, whatever becomes of the asking
                await self._fenced.reserve(self._late(hold, hold.reservation.amounts))
                hold.late_in = generation
        if not self._owed:
            self.allowances.over()
            self._tell(away=False)

    def _has_dollars(self, limits: tuple[BoundLimit, ...]) -> bool:
        """Remembered by the tuple itself: rules give the same one to all calls of a caller."""
        known = self._kinds.get(id(limits))
        if known is not None and known[0] is limits:
            return known[1]
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        found = any(is_rebuilt(bound.limit) for bound in limits)
        self._kinds[id(limits)] = (limits, found)
        return found

    # While the store is away, or its dollars are behind the fence

    async def _reserve_behind(self, reservation: Reservation) -> Decision:
        dollars = [bound for bound in reservation.limits if is_rebuilt(bound.limit)]
        rest = tuple(bound for bound in reservation.limits if not is_rebuilt(bound.limit))
        self._admit_alone(reservation, dollars, _rebuilt())
        try:
            decision = await self._reserve_rest(reservation, rest)
        except BaseException:
            self.allowances.close(reservation.id, Amounts())
            raise
        if not decision.allowed:
            self.allowances.close(reservation.id, Amounts())
            return decision
        self._tell(away=True)
        self._holds.setdefault(reservation.id, _Hold(reservation, ""))
        return replace(decision, degraded=True)

    async def _reserve_rest(self, reservation: Reservation, limits: tuple[BoundLimit, ...]) -> Decision:
        if not limits:
            return _ALONE
        asked = reservation if limits is reservation.limits else replace(reservation, limits=limits)
        try:
            return await self._store.reserve(asked)
        except StoreUnavailable as error:
            return self._decide_alone(reservation, limits, error)

    def _decide_alone(
        self, reservation: Reservation, limits: Sequence[BoundLimit], error: StoreUnavailable
    ) -> Decision:
        self._tell(away=True)
        self._admit_alone(reservation, limits, error)
        self._holds[reservation.id] = _Hold(reservation, None)
        return _ALONE

    def _admit_alone(
        self, reservation: Reservation, limits: Sequence[BoundLimit], error: StoreUnavailable
    ) -> None:
        """Raises `error`, or one that says which allowance is used up, where a limit does not let it pass."""
        for bound in limits:
            if bound.limit.mode is Mode.ENFORCE and bound.limit.on_store_failure is OnStoreFailure.REFUSE:
                raise error
        now_ms = round(self._clock.now() * 1000)
        full = self.allowances.take(reservation.id, limits, reservation.amounts, now_ms)
        if full is not None:
            raise StoreUnavailable(
                f"{error.message} What limit {full.limit.id} allows meanwhile is used up.",
                outcome_known=error.outcome_known,
            )

    # Closing, now or later

    async def _close(self, reservation_id: ReservationId, actual: Amounts | None) -> None:
        hold = self._holds.get(reservation_id)
        if hold is not None:
            await self._pay(reservation_id, self._owe(reservation_id, hold, actual))
        elif (waiting := self._owed.get(reservation_id)) is not None:
            await self._pay(reservation_id, waiting)
        elif actual is None:
            await self._store.release(reservation_id)
        else:
            await self._store.settle(reservation_id, actual)

    def _owe(self, reservation_id: ReservationId, hold: _Hold, actual: Amounts | None) -> _Owed:
        """Write down that it ended."""
        self._holds.pop(reservation_id, None)
        self.allowances.close(reservation_id, actual or Amounts())
        owed = self._owed[reservation_id] = _Owed(hold, actual, self._clock.now())
        if len(self._owed) > MAX_OWED:
            del self._owed[next(iter(self._owed))]
            self.given_up += 1
        return owed

    async def _pay(self, reservation_id: ReservationId, owed: _Owed) -> None:
        """Each step may be repeated; what is done is forgotten at the end only."""
        hold, fence = owed.hold, self._fence
        current = fence is not None and hold.generation == fence.generation
        if hold.generation and current:
            assert fence is not None
            try:
                if owed.actual is None:
                    await self._fenced.release(reservation_id)
                else:
                    await self._fenced.settle(reservation_id, owed.actual)
            except StoreUnavailable as error:
                if _says_fenced(error):
                    fence.gone()
                raise
            if not fence.disturbed():
                fence.acknowledged(reservation_id, closed=True)
        else:
            await self._pay_late(reservation_id, owed)
        self._owed.pop(reservation_id, None)

    async def _pay_late(self, reservation_id: ReservationId, owed: _Owed) -> None:
        hold, fence = owed.hold, self._fence
        rebuilding = fence is not None and not fence.generation
        # What the store may have under its own id: all of it, what is no dollar window, or what is to be
        # overwritten. What another generation had is closed already.
        if not hold.generation or rebuilding:
            if hold.generation is None or owed.actual is None:
                await self._store.release(reservation_id)
            else:
                await self._store.settle(reservation_id, owed.actual)
        if rebuilding:
            raise _rebuilt()
        if owed.actual is None and hold.late_in is None:
            return
        if fence is not None and owed.ended_at < fence.opened_at - SURELY_READ_SECONDS:
            return  # the counters were computed from the ledger since, and that knows it
        late = self._late(hold, owed.actual or Amounts())
        try:
            if owed.actual is not None:
                await self._fenced.reserve(late)
            await self._fenced.settle(late.id, owed.actual or Amounts())
        except StoreUnavailable as error:
            if fence is not None and _says_fenced(error):
                fence.gone()
            raise

    def _late(self, hold: _Hold, amounts: Amounts) -> Reservation:
        """Of what was held nowhere all; else the dollars, as the store has the rest under its own id."""
        late = afterwards(hold.reservation, amounts)
        if hold.generation is None:
            return late
        return replace(late, limits=tuple(bound for bound in late.limits if is_rebuilt(bound.limit)))

    def _tell(self, *, away: bool) -> None:
        if away != self._away:
            self._away = away
            self._degraded(away)
            if away:
                log.warning("the budgets cannot be asked: each limit's on_store_failure decides")
            else:
                log.info("the budgets can be asked again, and know what was spent meanwhile")


_ALONE: Final = Decision(allowed=True, binding=None, degraded=True)


def _rebuilt() -> StoreUnavailable:
    return StoreUnavailable("The counters of money are being computed from the ledger; that takes seconds.")


def _says_fenced(error: StoreUnavailable) -> bool:
    return "GWFENCE" in error.message
