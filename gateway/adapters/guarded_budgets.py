"""A `BudgetStore` that always decides: what becomes of calls while the store is away, or while its dollar
windows are being rebuilt, and how what they cost is booked afterwards.

Each limit says what holds while the store cannot be asked: `refuse`, `allow`, or `allowance` (a bounded
amount on this replica). While the dollar windows are behind the fence (`redis_fence.py`) the same holds for
limits of money in a calendar window; all others are asked as ever.

What could not be booked under the exchange's own id is booked under another, once: see `late_settling.py`. It
is kept here until then, for as long as this process lives; what a process that dies leaves behind, the next
one on its ledger settles (`workers/sweeping.py`), for which `open_calls.py` has what runs. Of a batch, which
outlives its call, what was set aside goes to whoever settles it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from gateway.adapters.late_settling import (
    Fence,
    FencedStore,
    LateSettling,
    SetAside,
    is_about_a_key,
    rebuilding,
    says_fenced,
)
from gateway.adapters.open_calls import OpenCalls
from gateway.adapters.patience import Patience
from gateway.core.bucket import Amounts, Decision, Held, Presumed, Reservation, Verdict
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Mode, OnStoreFailure
from gateway.core.outage_allowance import OutageAllowance
from gateway.core.rebuild import is_rebuilt
from gateway.core.reservations import SWEPT_KEPT_MS
from gateway.ports import BudgetStore, Clock

log = logging.getLogger(__name__)

MAX_OWED: Final = 200_000
"""Settlements that wait for the store. Beyond it the oldest are given up: the ledger has them."""

DECIDE_SECONDS: Final = 0.5
"""For one decision, with all that has to be asked about the fence."""

SWEPT_LOOKED_FOR_MS: Final = SWEPT_KEPT_MS // 2
"""What was presumed of calls that came in longer ago, the store may have forgotten rightly."""

PAID_AT_ONCE: Final = 500
"""Of those that wait, in one turn of `pay`."""


@dataclass(slots=True)
class _Owed:
    """A close that the store does not have yet."""

    aside: SetAside
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
        fenced: FencedStore | None = None,
        degraded: Callable[[bool], None] = _unheard,
        open_calls: OpenCalls | None = None,
    ) -> None:
        """With a `fence`, `fenced` is the same store under the fence's generation. `open_calls` is told of
        what the store may forget."""
        assert (fence is None) == (fenced is None)
        self._store = store
        self._fenced = fenced or store
        self._fence = fence
        self._late = LateSettling(store, fenced, fence)
        self._clock = clock
        self._degraded = degraded
        self._open_calls = open_calls
        self._set_aside: dict[ReservationId, SetAside] = {}
        self._owed: dict[ReservationId, _Owed] = {}
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
        if fence is None:
            return await self._reserve_rest(reservation, reservation.limits)
        try:
            async with Patience(DECIDE_SECONDS):
                return await self._reserve_fenced(reservation, fence)
        except TimeoutError:
            late = f"The budgets gave no answer in {DECIDE_SECONDS} s."
            error = StoreUnavailable(late, outcome_known=False)
            return self._decide_alone(reservation, reservation.limits, error)

    async def _reserve_fenced(self, reservation: Reservation, fence: Fence) -> Decision:
        if not any(is_rebuilt(bound.limit) for bound in reservation.limits):
            return await self._reserve_rest(reservation, reservation.limits)
        decision: Decision | None = None
        generation = ""
        try:
            if not fence.generation and fence.disturbed():
                await fence.beat()
            if generation := fence.generation:
                decision = await self._fenced.reserve(reservation)
                if fence.disturbed():  # it went over another connection than was looked into
                    await fence.beat()
                if fence.generation != generation:  # it is held, but in counters that are not to be trusted
                    raise rebuilding()
                if decision.allowed:
                    fence.acknowledged(reservation.id, closed=False)
                    self._admitted(SetAside(reservation, generation))
                return decision
        except StoreUnavailable as error:
            if not says_fenced(error):
                if decision is not None:
                    error.outcome_known = False
                return self._decide_alone(reservation, reservation.limits, error)
            fence.gone(generation)
        return await self._reserve_behind(reservation)

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        aside, fence = self._set_aside.get(reservation_id), self._fence
        if aside is None or fence is None or not aside.generation or aside.generation != fence.generation:
            await self._close(reservation_id, actual)
            return
        try:  # as nearly always: nothing is owed, and nothing needs to be written down
            await self._late.settle_known(fence, reservation_id, actual)
        except StoreUnavailable:
            self._owe(reservation_id, aside, actual)
            raise
        self._let_go(reservation_id)

    async def release(self, reservation_id: ReservationId) -> None:
        await self._close(reservation_id, None)

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        aside = self._set_aside.get(reservation_id)
        if aside is None:
            await self._store.renew(reservation_id, lease_seconds)
        else:
            await self._late.renew(aside, lease_seconds)

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        """Under the generation that this replica knows: in others its ledger may not be yet, and what is
        presumed there would count once more with it."""
        fence = self._fence
        if fence is None:
            return await self._store.sweep(ledger)
        generation = fence.generation
        try:
            found = await self._fenced.sweep(ledger)
        except StoreUnavailable as error:
            if says_fenced(error):
                fence.gone(generation)
            raise
        if fence.generation == generation:
            since_ms = self._clock.now() * 1000 - SWEPT_LOOKED_FOR_MS
            for one in found:
                if not one.taken_back and not 0 < one.payer.received_at_ms < since_ms:
                    fence.swept(one.reservation_id)
        return found

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        await self._store.booked(ledger, entry_ids)

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        was_rebuilding = self.is_rebuilding
        found = await self._store.peek(limits)
        if not was_rebuilding and not self.is_rebuilding:
            return found
        return tuple(replace(each, rebuilding=is_rebuilt(each.bound.limit)) for each in found)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()

    async def pay(self) -> None:
        """Book what is owed, and set aside again what runs and is not: once the store is back. Raises
        `StoreUnavailable` where it is not, or no more; then what is left stays. What is refused for its own
        sake stays too, and waits behind all others."""
        if self.is_rebuilding:
            return
        if self._away and self._fence is None:  # nobody else has asked whether it is back
            await self._store.ping()
        for reservation_id, owed in list(self._owed.items())[:PAID_AT_ONCE]:
            try:
                await self._pay(reservation_id, owed)
            except StoreUnavailable as error:
                if not is_about_a_key(error):
                    raise
                if self._owed.pop(reservation_id, None) is not None:
                    self._owed[reservation_id] = owed
        for reservation_id, aside in list(self._set_aside.items()):
            if reservation_id in self._set_aside:  # it may have ended meanwhile: nobody would close it then
                await self._late.set_aside_again(aside)
        if not self._owed and self._away:
            self.allowances.over()
            self._tell(away=False)

    async def settle_found(self, reservation: Reservation, *, ended_at: float, degraded: bool) -> None:
        """Settle at its amounts what an earlier process of this replica had booked; see
        `late_settling.LateSettling.close_found`. Idempotent. Raises `StoreUnavailable`."""
        now = self._clock.now()
        await self._late.close_found(reservation, ended_at=ended_at, degraded=degraded, now=now)

    def presumed_found(self, ledger: str, reservation_ids: Sequence[ReservationId]) -> None:
        """What an earlier process on this ledger had swept, and booked: the store may have forgotten that
        with it, and must not presume it once more, or for another ledger."""
        if self._fence is not None:
            for reservation_id in reservation_ids:
                self._fence.swept(reservation_id, ledger)

    # What outlives its call: a batch

    def held(self, reservation_id: ReservationId) -> Held | None:
        """What to keep with a batch, for whoever settles it; None where its id says it all."""
        aside = self._set_aside.get(reservation_id)
        return None if aside is None else Held(reservation=aside.reservation, generation=aside.generation)

    def hand_over(self, reservation_id: ReservationId) -> None:
        """It was kept: from now on `settle_held` and `renew_held` see to it, in this process or another."""
        aside = self._let_go(reservation_id)
        if aside is not None:  # an allowance has it spent until the store is back
            self.allowances.close(reservation_id, aside.reservation.amounts)

    async def settle_held(self, reservation_id: ReservationId, held: Held | None, actual: Amounts) -> None:
        """`settle`, of what was handed over. Idempotent. Raises `StoreUnavailable`."""
        if held is None:
            await self._store.settle(reservation_id, actual)
        else:
            await self._late.close(
                SetAside(held.reservation, held.generation), actual, ended_at=self._clock.now()
            )

    async def renew_held(
        self, reservation_id: ReservationId, held: Held | None, lease_seconds: float
    ) -> None:
        """`renew`, of what was handed over; sets it aside again where counters were lost. Raises
        `StoreUnavailable`."""
        if held is None:
            await self._store.renew(reservation_id, lease_seconds)
            return
        if self.is_rebuilding:
            raise rebuilding()
        aside = SetAside(held.reservation, held.generation)
        await self._late.set_aside_again(aside)
        await self._late.renew(aside, lease_seconds)

    # While the store is away, or its dollars are behind the fence

    async def _reserve_behind(self, reservation: Reservation) -> Decision:
        dollars = [bound for bound in reservation.limits if is_rebuilt(bound.limit)]
        rest = tuple(bound for bound in reservation.limits if not is_rebuilt(bound.limit))
        self._admit_alone(reservation, dollars, rebuilding())
        try:
            decision = await self._reserve_rest(reservation, rest)
        except BaseException:
            self.allowances.close(reservation.id, Amounts())
            raise
        if not decision.allowed:
            self.allowances.close(reservation.id, Amounts())
            return decision
        self._tell(away=True)
        if reservation.id not in self._set_aside:
            self._admitted(SetAside(reservation, ""))
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
        aside = SetAside(reservation, None)
        try:
            self._admit_alone(reservation, limits, error)
        except StoreUnavailable:
            if not error.outcome_known:  # it may be held all the same: the caller hears of a refusal
                self._owe(reservation.id, aside, None)
            raise
        self._admitted(aside)
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

    def _admitted(self, aside: SetAside) -> None:
        """It is admitted."""
        self._set_aside[aside.reservation.id] = aside
        if self._open_calls is not None:
            self._open_calls.add(aside.reservation, degraded=not aside.generation)

    def _let_go(self, reservation_id: ReservationId) -> SetAside | None:
        """It has ended, and the ledger has it if it cost anything."""
        if self._open_calls is not None:
            self._open_calls.drop(reservation_id)
        return self._set_aside.pop(reservation_id, None)

    # Closing, now or later

    async def _close(self, reservation_id: ReservationId, actual: Amounts | None) -> None:
        aside = self._set_aside.get(reservation_id)
        if aside is not None:
            await self._pay(reservation_id, self._owe(reservation_id, aside, actual))
        elif (waiting := self._owed.get(reservation_id)) is not None:
            await self._pay(reservation_id, waiting)
        elif actual is None:
            await self._store.release(reservation_id)
        else:
            await self._store.settle(reservation_id, actual)

    def _owe(self, reservation_id: ReservationId, aside: SetAside, actual: Amounts | None) -> _Owed:
        """Write down that it ended."""
        self._let_go(reservation_id)
        self.allowances.close(reservation_id, actual or Amounts())
        owed = self._owed[reservation_id] = _Owed(aside, actual, self._clock.now())
        if len(self._owed) > MAX_OWED:
            del self._owed[next(iter(self._owed))]
            self.given_up += 1
        return owed

    async def _pay(self, reservation_id: ReservationId, owed: _Owed) -> None:
        """Each step may be repeated; what is done is forgotten at the end only."""
        await self._late.close(owed.aside, owed.actual, ended_at=owed.ended_at)
        self._owed.pop(reservation_id, None)

    def _tell(self, *, away: bool) -> None:
        if away != self._away:
            self._away = away
            self._degraded(away)
            if away:
                log.warning("the budgets cannot be asked: each limit's on_store_failure decides")
            else:
                log.info("the budgets can be asked again, and know what was spent meanwhile")


_ALONE: Final = Decision(allowed=True, binding=None, degraded=True)
