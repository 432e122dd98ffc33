"""How what an exchange cost gets to a store whose counters are perhaps no longer those in which it was set
aside: under its own id where they are, else under the other one (`afterwards` in `core/settlement.py`), once.

Each step may be repeated, by whoever knows what was held. When it is taken, the guard says
(`guarded_budgets.py`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NoReturn, Protocol

from msgspec.structs import replace

from gateway.core.bucket import Amounts, Reservation
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.rebuild import SURELY_READ_SECONDS, is_rebuilt
from gateway.core.reservations import CLOSED_KEPT_MS
from gateway.core.settlement import afterwards, late_id
from gateway.ports import BudgetStore

log = logging.getLogger(__name__)


class Fence(Protocol):
    """What is asked of a fence on the way of a call; see `redis_fence.py`."""

    @property
    def generation(self) -> str: ...

    @property
    def opened_at(self) -> float: ...

    def disturbed(self) -> bool: ...

    def acknowledged(self, reservation_id: ReservationId, *, closed: bool) -> None: ...

    def swept(self, reservation_id: ReservationId, before_by: str = "") -> None: ...

    def gone(self, generation: str) -> None: ...

    async def beat(self) -> None: ...

    async def take_away(self, generation: str = "") -> None: ...


class FencedStore(BudgetStore, Protocol):
    """A store under a fence's generation."""

    async def settle_known(self, reservation_id: ReservationId, actual: Amounts) -> bool | None: ...


@dataclass(slots=True)
class SetAside:
    """What the store has of an exchange that runs."""

    reservation: Reservation
    generation: str | None
    """Under which its dollars are set aside; empty: only what is no dollar window; None: perhaps nothing."""
    late_in: str | None = None
    """The generation in which it was set aside again, under its other id; empty while that is not known."""


class LateSettling:
    """Closes, and sets aside again. Every method raises `StoreUnavailable`, and may be asked again then."""

    def __init__(self, store: BudgetStore, fenced: FencedStore | None, fence: Fence | None) -> None:
        self._store = store
        self._known = fenced
        self._fenced = fenced or store
        self._fence = fence

    async def close(self, aside: SetAside, actual: Amounts | None, *, ended_at: float) -> None:
        """Settle at `actual`, or release where that is None. `ended_at`: since when the ledger has it."""
        fence, reservation_id = self._fence, aside.reservation.id
        if fence is None or not aside.generation or aside.generation != fence.generation:
            await self._close_late(aside, actual, ended_at)
        else:
            await self.settle_known(fence, reservation_id, actual or Amounts())

    async def settle_known(self, fence: Fence, reservation_id: ReservationId, actual: Amounts) -> None:
        """Settle what was set aside under the generation that is in force. Where the store does not know of
        it, its data went back in time: then the counters are rebuilt, and it is settled in the new ones."""
        assert self._known is not None
        generation = fence.generation
        try:
            known = await self._known.settle_known(reservation_id, actual)
        except StoreUnavailable as error:
            self._note(error, generation)
            raise
        if not known:
            await self._forgotten(fence, reservation_id, generation)
        self._acknowledged(reservation_id, generation, closed=True)

    async def set_aside_again(self, aside: SetAside) -> None:
        """Set aside what the counters do not have, under the other id. Nothing where they have it."""
        generation = self._fence.generation if self._fence is not None else "-"
        if generation in (aside.generation, aside.late_in):
            return
        aside.late_in = ""  # from here on its close closes that too, whatever becomes of the asking
        late = self._late(aside, aside.reservation.amounts)
        await self._fenced.reserve(late)
        aside.late_in = generation
        self._acknowledged(late.id, generation, closed=False)

    async def renew(self, aside: SetAside, lease_seconds: float) -> None:
        """Prolong the lease, under both ids."""
        if aside.late_in is not None:
            await self._store.renew(late_id(aside.reservation.id), lease_seconds)
        await self._store.renew(aside.reservation.id, lease_seconds)

    async def close_found(
        self, reservation: Reservation, *, ended_at: float, degraded: bool, now: float
    ) -> None:
        """Settle at its amounts what an earlier process had booked, and perhaps not settled. `degraded`: the
        store was away when it was admitted.

        The store knows each of its reservations until it is closed. So it is asked under the first id; where
        that is unknown, the exchange was settled and is forgotten, or it was set aside in counters that were
        lost since. Only in the second case it is booked under the other id: where it began before these
        counters were, and ended later than what is surely in their sum; or where it ended so lately that the
        store must know it, and so has lost it by itself."""
        fence, amounts = self._fence, reservation.amounts
        if fence is not None and not fence.generation:
            raise rebuilding()
        if degraded:
            await self.close(SetAside(reservation, None), amounts, ended_at=ended_at)
            return
        if fence is None:
            await self._store.settle(reservation.id, amounts)
            return
        generation = fence.generation
        try:
            assert self._known is not None
            if await self._known.settle_known(reservation.id, amounts):
                self._acknowledged(reservation.id, generation, closed=True)
                return
        except StoreUnavailable as error:
            self._note(error, generation)
            raise
        began = reservation.payer.received_at_ms / 1000
        is_recent = now - ended_at < KNOWN_SECONDS and amounts.nanousd > 0
        if is_recent or began <= fence.opened_at + CLOCKS_DIFFER_SECONDS:
            await self._close_late(SetAside(reservation, _LOST), amounts, ended_at)

    async def _close_late(self, aside: SetAside, actual: Amounts | None, ended_at: float) -> None:
        fence, reservation_id = self._fence, aside.reservation.id
        is_rebuilding = fence is not None and not fence.generation
        # What the store may have under its own id: all of it, what is no dollar window (a rebuilding leaves
        # that), or what is to be overwritten.
        if aside.generation is None or actual is None:
            await self._store.release(reservation_id)
        else:
            await self._store.settle(reservation_id, actual)
        if is_rebuilding:
            raise rebuilding()
        if actual is None and aside.late_in is None:
            return
        if fence is not None and ended_at < fence.opened_at - SURELY_READ_SECONDS:
            return  # the counters were computed from the ledger since, and that knows it
        late = self._late(aside, actual or Amounts())
        if fence is None or self._known is None:
            if actual is not None:
                await self._store.reserve(late)
            await self._store.settle(late.id, actual or Amounts())
            return
        generation = fence.generation
        try:
            if actual is not None:
                await self._known.reserve(late)
            known = await self._known.settle_known(late.id, actual or Amounts())
        except StoreUnavailable as error:
            self._note(error, generation)
            raise
        if known is None and actual is not None:  # another server has answered, or the data went back
            await self._forgotten(fence, late.id, generation)
        self._acknowledged(late.id, generation, closed=True)

    def _late(self, aside: SetAside, amounts: Amounts) -> Reservation:
        """Of what was held nowhere all; else the dollars, as the store has the rest under its own id."""
        late = afterwards(aside.reservation, amounts)
        if aside.generation is None:
            return late
        return replace(late, limits=tuple(bound for bound in late.limits if is_rebuilt(bound.limit)))

    def _acknowledged(self, reservation_id: ReservationId, generation: str, *, closed: bool) -> None:
        """What was written under a generation is missed under that only: another one has what ledgers say."""
        if self._fence is not None and self._fence.generation == generation:
            self._fence.acknowledged(reservation_id, closed=closed)

    def _note(self, error: StoreUnavailable, generation: str) -> None:
        if self._fence is not None and says_fenced(error):
            self._fence.gone(generation)

    async def _forgotten(self, fence: Fence, reservation_id: ReservationId, generation: str) -> NoReturn:
        """The store does not have what it had set aside: its counters are not to be trusted."""
        if fence.generation == generation:
            log.warning("the store has forgotten %s, which it had set aside", reservation_id)
            await fence.take_away(generation)
        raise rebuilding()


CLOCKS_DIFFER_SECONDS = 30.0
"""By so much clocks of replicas and of the store may differ, at most."""
KNOWN_SECONDS = 200.0
"""What ended so lately, and was settled, is among the closed ones that the store remembers."""
assert KNOWN_SECONDS * 1000 < CLOSED_KEPT_MS - CLOCKS_DIFFER_SECONDS * 1000
_LOST = "lost"
"""A generation that never is."""


def rebuilding() -> StoreUnavailable:
    """While the dollar windows are behind the fence."""
    return StoreUnavailable("The counters of money are being computed from the ledger; that takes seconds.")


def is_about_a_key(error: StoreUnavailable) -> bool:
    """Whether a script found in a key what it never wrote: somebody else did. It is no outage."""
    return "WRONGTYPE" in error.message or "Bad data format" in error.message


def says_fenced(error: StoreUnavailable) -> bool:
    """Whether a script found another generation than the known one."""
    return "GWFENCE" in error.message
