"""Keeps the dollar windows right: notices that they were lost, rebuilds them from the ledger, books what
waited for the store, and says on demand how far counters and ledger are apart.

What a ledger's sums mean is `core/rebuild.py`'s, what is written to Redis `adapters/redis_fence.py`'s.

How exact it is. With one replica every entry that is in the ledger counts once, and so does every exchange
that ends meanwhile. With a ledger for each replica the same holds once all that live have brought their part;
one that died together with the counters brings its part when it is started again, and until then they say too
little. Where there is a ledger that all share, it is read first, by one of them, and each brings only what it
had not shipped by then: that alone is missing of a replica that died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Protocol

from gateway.core.bucket import Amounts, Decision, Reservation, Verdict
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.ids import ReservationId, WorkspaceId
from gateway.core.limits import BoundLimit, Mode, Scope
from gateway.core.rebuild import (
    KNOWN_MS,
    SHARED,
    Drift,
    LedgerPart,
    Span,
    Turn,
    WindowSpend,
    drift_of,
    spans_of,
    window_spends,
)
from gateway.core.rules import Rules
from gateway.ports import Clock

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
REBUILD_SECONDS: Final = 0.1
"""Between two turns while the counters are being rebuilt."""
PEEKED_AT_ONCE: Final = 100
RAISING_SECONDS: Final = 86_400.0
"""A lease that ends presumes nothing, as nothing is set aside; so it need not end soon."""


class Fence(Protocol):
    """What is asked of `RedisFence`; its docstrings say more."""

    lost: asyncio.Event

    @property
    def found(self) -> str: ...

    @property
    def generation(self) -> str: ...

    @property
    def opened_at(self) -> float: ...

    async def beat(self) -> None: ...

    async def look(self, ledger: str, spans: Sequence[Span], *, shared: bool) -> Turn: ...

    async def add(
        self, ledger: str, windows: Mapping[str, int], known: Sequence[str], reached: Mapping[str, int]
    ) -> bool: ...

    async def reached(self) -> Mapping[str, int]: ...

    async def has(self, ledger: str) -> bool: ...

    def join(self) -> None: ...

    async def take_away(self, generation: str = "", staying: Iterable[str] = ()) -> None: ...


class Guard(Protocol):
    """What is asked of `GuardedBudgets`."""

    async def pay(self) -> None: ...

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]: ...

    async def reserve(self, reservation: Reservation) -> Decision: ...

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None: ...


class LedgerReader(Protocol):
    """`adapters/ledger_spend.read_part` of one ledger. Blocks; raises `ConfigError` and OSError."""

    def __call__(
        self,
        spans: Sequence[Span],
        *,
        known_since_ms: int,
        by_tags: bool,
        beyond: Mapping[str, int] | None,
    ) -> LedgerPart: ...


def _nothing() -> None: ...


class Rebuilding:
    """One replica's share of it. `read` reads its own ledger, whose identity is `ledger`, and `written`
    returns once that has all that was observed when it was called; `read_shared` reads the one that all
    share, where there is such. `reading` is held while a part is read and brought. `joined` is called when
    others, or an earlier turn, had brought this ledger's part to the counters that are joined."""

    def __init__(
        self,
        *,
        guard: Guard,
        read: LedgerReader,
        rules: Callable[[], Rules],
        clock: Clock,
        fence: Fence | None = None,
        ledger: str = "",
        read_shared: LedgerReader | None = None,
        written: Callable[[], Awaitable[None]],
        reading: AbstractAsyncContextManager[None] | None = None,
        joined: Callable[[], None] = _nothing,
    ) -> None:
        self._reading = asyncio.Lock() if reading is None else reading
        self._guard = guard
        self._read = read
        self._rules = rules
        self._clock = clock
        self._fence = fence
        self._ledger = ledger
        self._read_shared = read_shared
        self._written = written
        self._joined = joined
        self._is_written = False
        self._said = False

    async def run(self) -> None:
        """Until it is cancelled. Raises nothing."""
        while True:
            seconds = BEAT_SECONDS
            try:
                seconds = await self.turn()
            except StoreUnavailable:
                pass  # the guard has said so, and each call finds out by itself
            except (ConfigError, OSError) as error:
                log.error("the ledger cannot be read, so the counters of money stay closed: %s", error)
            except Exception:
                log.exception("rebuilding the counters failed; it is tried again")
            await self._rest(seconds)

    async def open(self, seconds: float) -> bool:
        """At the start: until the counters are there, or the time is over. Whether they are."""
        until = self._clock.monotonic() + seconds
        while self._clock.monotonic() < until:
            try:
                if await self.turn() == BEAT_SECONDS:
                    return True
            except (StoreUnavailable, ConfigError, OSError):
                return False
            await self._clock.sleep(REBUILD_SECONDS)
        return False

    async def turn(self) -> float:
        """One look at how things stand, and one step; after how many seconds the next one is due. Raises
        `StoreUnavailable`; `ConfigError` or OSError where the ledger cannot be read."""
        fence = self._fence
        if fence is not None:
            fence.lost.clear()
            await fence.beat()
            if not fence.found:
                await self._rebuild(fence)
            if fence.found and not fence.generation:
                await self._join(fence)
            if not fence.generation:
                return REBUILD_SECONDS
            self._is_written = self._said = False
        await self._guard.pay()
        return BEAT_SECONDS

    async def audit(self) -> tuple[Drift, ...]:
        """Every counter that the ledger knows of, beside the ledger's sum for it. What runs or is just being
        settled makes small differences; with a ledger for each replica, this is only its part. Raises
        `StoreUnavailable`, `ConfigError`."""
        await self._written()
        now_ms = round(self._clock.now() * 1000)
        sums = self._sums(await self._whole())
        spends = [spend for spend in sums if spend.window.start_ms <= now_ms < spend.window.end_ms]
        drifts: list[Drift] = []
        for start in range(0, len(spends), PEEKED_AT_ONCE):
            some = spends[start : start + PEEKED_AT_ONCE]
            verdicts = await self._guard.peek([spend.bound for spend in some])
            drifts += map(drift_of, some, verdicts)
        return tuple(drifts)

    async def repair(self) -> None:
        """Have all dollar windows rebuilt from the ledger, behind the fence: they refuse for as long as that
        takes. What was presumed spent of exchanges that no ledger knows is forgotten. Raises
        `StoreUnavailable`."""
        if self._fence is not None:
            await self._fence.take_away()

    async def mend(self, keys: Collection[str]) -> None:
        """See that these counters, of the current windows, say as much as the ledger. Behind a fence all are
        rebuilt, but for limits of some models, which only rise: the ledger has the model that answered, they
        count by those that were asked for. Elsewhere, where whoever counts writes one ledger, they are raised
        by what they lack; one at a time of those processes does it, and reads them again first. Raises
        `StoreUnavailable`, `ConfigError`, OSError."""
        if self._fence is not None:
            if self._fence.generation:
                staying = [limit.id for limit in self._rules().limits.all if limit.models]
                await self._fence.take_away(self._fence.generation, staying)
            return
        async with self._reading:
            for drift in await self.audit():
                if drift.spend.key in keys and drift.lacks:
                    await self._raise(drift)

    async def _raise(self, drift: Drift) -> None:
        """As a settlement of its own, for which nothing was set aside: no ledger is ever told of it."""
        bound, window = drift.spend.bound, drift.spend.window
        one = Reservation(
            id=ReservationId(f"audit:{drift.spend.key}:{drift.counted}:{drift.lacks}"),
            limits=(replace(bound, limit=replace(bound.limit, mode=Mode.SHADOW)),),
            amounts=Amounts(),
            lease_seconds=RAISING_SECONDS,
            at_ms=window.start_ms,
        )
        await self._guard.reserve(one)
        await self._guard.settle(one.id, Amounts(nanousd=drift.lacks))

    async def _rest(self, seconds: float) -> None:
        if self._fence is None:
            await self._clock.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._fence.lost.wait()
            await self._clock.sleep(0.01)  # so that no fault makes this loop a busy one
        except TimeoutError:
            pass

    async def _rebuild(self, fence: Fence) -> None:
        if not self._said:
            self._said = True
            log.warning("the counters of money in the store are gone: they are rebuilt from the ledger")
        await self._all_written()
        for _ in range(3):  # who has brought the last part can open at once
            turn = Turn.LOOK_AGAIN
            while turn is Turn.LOOK_AGAIN:
                turn = await fence.look(self._ledger, self._spans(), shared=self._read_shared is not None)
            if turn is Turn.READ_SHARED and self._read_shared is not None:
                part = await self._part(self._read_shared, None)
                await fence.add(SHARED, self._by_key([part]), part.known, part.reached)
            elif turn is Turn.READ_OWN:
                await self._bring(fence)
        if fence.found:
            log.warning("the counters of money are rebuilt, and admit again")

    async def _join(self, fence: Fence) -> None:
        """Others have opened the fence: perhaps without this replica's ledger. All of it is brought, also
        what ended since: it may have been settled at a server that was the master until then. What is still
        to be settled is named, and so not counted once more."""
        if await fence.has(self._ledger):
            fence.join()
            self._joined()
        elif fence.found:
            await self._all_written()
            if await self._bring(fence, opened_ms=round(fence.opened_at * 1000)):
                fence.join()

    async def _all_written(self) -> None:
        if not self._is_written:
            await self._written()
            self._is_written = True

    async def _bring(self, fence: Fence, *, opened_ms: int | None = None) -> bool:
        async with self._reading:
            beyond = await fence.reached()
            part = await self._part(self._read, opened_ms, beyond)
            return await fence.add(self._ledger, self._by_key([part]), part.known, {})

    async def _whole(self) -> tuple[LedgerPart, ...]:
        """All that can be read here."""
        if self._read_shared is None:
            return (await self._part(self._read, None),)
        shared = await self._part(self._read_shared, None)
        return shared, await self._part(self._read, None, shared.reached)

    async def _part(
        self, read: LedgerReader, opened_ms: int | None, beyond: Mapping[str, int] | None = None
    ) -> LedgerPart:
        limits, now_ms, spans = self._rules().limits.all, round(self._clock.now() * 1000), self._spans()
        return await asyncio.to_thread(
            lambda: read(
                spans,
                known_since_ms=min(now_ms, opened_ms or now_ms) - KNOWN_MS,
                by_tags=any(limit.scope is Scope.TAG for limit in limits),
                beyond=beyond,
            )
        )

    def _spans(self) -> tuple[Span, ...]:
        return spans_of(self._rules().limits.all, round(self._clock.now() * 1000))

    def _by_key(self, parts: Sequence[LedgerPart]) -> dict[str, int]:
        return {spend.key: spend.nanousd for spend in self._sums(parts)}

    def _sums(self, parts: Sequence[LedgerPart]) -> tuple[WindowSpend, ...]:
        rules = self._rules()

        def team_of(workspace: str) -> str:
            known = rules.workspaces.get(WorkspaceId(workspace))
            return known.team if known is not None else ""

        return window_spends(parts, rules.limits, team_of=team_of, canonical=rules.models.canonical)
