"""Settles message batches: asks upstream how each stands, reads its results once it has ended, books what it
cost, and closes its reservation.

Each step is written down before the next one is taken, and each may be taken again:

1. A batch that is due is put off: of several replicas one alone gets to do that, and looks at it.
2. Once it has ended, the sums of its results are kept with it, and the ledger that is to book them. From then
   on nobody asks upstream again.
3. That ledger books them under ids of the batch's own. Another replica has another ledger and leaves them
   alone, unless they have not been booked for a day: then their ledger is taken for lost.
4. Its reservation is settled, by its id and by what was kept of how it is held: in counters that were lost
   since it is booked anew; then it is forgotten.

Of what cannot be had any more, what was set aside is booked, as presumed: deleted batches, those older than
upstream keeps them, and such as a credential may not see for days.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import msgspec

from gateway.core.batch import LEASE_SECONDS, RESULTS_SECONDS, KeptBatch, Settled
from gateway.core.batch_records import batch_records
from gateway.core.batch_results import ResultSums
from gateway.core.bucket import Amounts, Held
from gateway.core.errors import GatewayError, StoreUnavailable
from gateway.core.exchange import Basis, ExchangeRecord
from gateway.core.headers import with_credential
from gateway.core.ids import ReservationId
from gateway.core.rules import Rules
from gateway.ports import (
    Answer,
    BatchBooks,
    BatchStore,
    Clock,
    Observer,
    Upstream,
    UpstreamRequest,
)

log = logging.getLogger(__name__)

TURN_SECONDS = 5.0
"""How often it is looked whether anything is due."""
AT_ONCE = 100
SHORTEST_SECONDS = 15.0
LONGEST_SECONDS = 300.0
TAKEN_SECONDS = 900.0
"""How long a batch is put off while one replica looks at it: longer than reading its results takes."""
MISSES = 3
"""So many times in a row upstream may not know a batch before it is taken for deleted."""
DENIED_SECONDS = 3 * 86_400.0
"""So long after its creation a batch that may not be seen is given up."""
LOST_SECONDS = 86_400.0
"""So long a ledger may take to book before it is taken for lost."""
MAX_STATUS_BYTES = 1 << 16
NOT_FOUND = (404, 410)
DENIED = (401, 403)


class HeldBudgets(Protocol):
    """What is asked of `adapters.guarded_budgets.GuardedBudgets`; its docstrings say more."""

    async def settle_held(
        self, reservation_id: ReservationId, held: Held | None, actual: Amounts
    ) -> None: ...

    async def renew_held(
        self, reservation_id: ReservationId, held: Held | None, lease_seconds: float
    ) -> None: ...


class BatchSettler:
    """The worker of one replica. `observers` are told of what was booked; the ledger is not among them."""

    def __init__(
        self,
        store: BatchStore,
        *,
        upstream: Upstream,
        budgets: HeldBudgets,
        books: BatchBooks,
        observers: Sequence[Observer],
        rules: Callable[[], Rules],
        clock: Clock,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._budgets = budgets
        self._books = books
        self._observers = observers
        self._rules = rules
        self._clock = clock

    async def turn(self) -> None:
        """Look at what is due, one after the other. Raises `StoreUnavailable` where nothing can be done; what
        is the matter with one batch never keeps others waiting."""
        for batch in await self._store.due(self._clock.now(), AT_ONCE):
            await self._look(batch)

    async def settle_now(self, batch_id: str) -> None:
        """Look at one, due or not; nothing where it is not known. Raises `StoreUnavailable`."""
        batch = await self._store.find(batch_id)
        if batch is not None:
            await self._look(batch)

    async def _look(self, batch: KeptBatch) -> None:
        taken = await self._store.change(replace(batch, next_at=self._clock.now() + TAKEN_SECONDS))
        if taken is None:
            return  # another replica looks at it
        try:
            left = await self._step(taken)
        except Exception as error:
            if isinstance(error, StoreUnavailable):
                log.warning("batch %s cannot be settled now: %s", batch.id, error.message)
            else:
                log.exception("settling batch %s failed; it is tried again", batch.id)
            left = await self._store.find(batch.id)
        if left is not None:
            await self._store.change(replace(left, next_at=self._clock.now() + self._pause(left)))

    async def _step(self, batch: KeptBatch) -> KeptBatch | None:
        """One step on: the batch as it is to be looked at again; None where it is forgotten."""
        if batch.settled is None:
            try:
                found = await self._found_out(batch)
            except GatewayError as error:
                log.warning("batch %s: upstream gave no answer: %s", batch.id, error.message)
                found = self._given_up(batch, RESULTS_SECONDS, "upstream gives no answer")
            if isinstance(found, KeptBatch):
                await self._renew(found)
                return found
            kept = await self._store.change(replace(batch, settled=found))
            if kept is None:
                return None  # another replica was first
            batch = kept
        return await self._book(batch)

    # Ask upstream

    async def _found_out(self, batch: KeptBatch) -> KeptBatch | Settled:
        """What it cost, or the batch as it is to be asked for again. Raises `GatewayError`."""
        path = f"/v1/messages/batches/{batch.id}"
        if batch.route not in self._rules().routes:
            return self._given_up(batch, DENIED_SECONDS, f"there is no route {batch.route!r} any more")
        async with self._upstream.open(self._request(batch, path)) as answer:
            if answer.status != 200:
                return self._refused(batch, answer.status)
            status = _read_status(await _whole(answer))
        if status is None or status.processing_status != "ended":
            return self._given_up(replace(batch, misses=0), RESULTS_SECONDS, "it does not end")
        ended_at = _instant(status.ended_at) or self._clock.now()
        sums = ResultSums(self._rules().prices, at=ended_at)
        async with self._upstream.open(self._request(batch, f"{path}/results")) as answer:
            if answer.status != 200:
                return self._refused(batch, answer.status)
            while not await answer.pump(sums.feed):
                pass
        sums.end()
        if not sums.is_whole(batch.items):
            return self._presumed(batch, "its results cannot be read in full", ended_at)
        now = self._clock.now()
        return sums.settled(items=batch.items, ended_at=ended_at, ledger=self._books.name, at=now)

    def _request(self, batch: KeptBatch, target: str) -> UpstreamRequest:
        route = self._rules().routes[batch.route]
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in batch.version_headers]
        headers.append((b"accept-encoding", b"identity"))
        return UpstreamRequest(
            method="GET", target=target, headers=with_credential(headers, route.credential()), route=route
        )

    def _refused(self, batch: KeptBatch, status: int) -> KeptBatch | Settled:
        if status in NOT_FOUND:
            batch = replace(batch, misses=batch.misses + 1)
            if batch.misses >= MISSES:
                return self._presumed(batch, "upstream does not know it, or has its results no more")
            return batch
        return self._given_up(
            batch, DENIED_SECONDS if status in DENIED else RESULTS_SECONDS, f"upstream answers {status}"
        )

    def _given_up(self, batch: KeptBatch, after_seconds: float, why: str) -> KeptBatch | Settled:
        """The batch as it is, until it is so old."""
        if self._clock.now() < batch.created_at + after_seconds:
            return batch
        return self._presumed(batch, why)

    def _presumed(self, batch: KeptBatch, why: str, ended_at: float | None = None) -> Settled:
        log.warning("batch %s is booked at what was set aside: %s", batch.id, why)
        now = self._clock.now()
        return Settled(
            basis=Basis.PRESUMED,
            ended_at=now if ended_at is None else ended_at,
            amounts=batch.presumed_amounts,
            shares=batch.presumed,
            ledger=self._books.name,
            at=now,
        )

    # Book

    async def _book(self, batch: KeptBatch) -> KeptBatch | None:
        settled = batch.settled
        assert settled is not None
        if settled.ledger != self._books.name:
            if self._clock.now() < settled.at + LOST_SECONDS:
                return batch
            log.error("the ledger %s does not book batch %s; this one does", settled.ledger, batch.id)
            settled = replace(settled, ledger=self._books.name, at=self._clock.now())
            return replace(batch, settled=settled)
        records = batch_records(batch, settled)
        if records and await self._books.add(records):
            self._tell(records)
        if batch.reservation_id is not None:
            reservation_id = ReservationId(batch.reservation_id)
            await self._budgets.settle_held(reservation_id, batch.held, settled.amounts)
        await self._store.forget(batch.id)
        return None

    def _tell(self, records: Sequence[ExchangeRecord]) -> None:
        for record in records:
            for observer in self._observers:
                try:
                    observer.observe(record)
                except Exception:
                    log.exception("observer %s failed", type(observer).__name__)

    async def _renew(self, batch: KeptBatch) -> None:
        if batch.reservation_id is not None:
            reservation_id = ReservationId(batch.reservation_id)
            await self._budgets.renew_held(reservation_id, batch.held, LEASE_SECONDS)

    def _pause(self, batch: KeptBatch) -> float:
        """A tenth of its age: most end within the hour, all within a day."""
        age = self._clock.now() - batch.created_at
        return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, age / 10))


class _Status(msgspec.Struct):
    processing_status: str = ""
    ended_at: str | None = None


_STATUS = msgspec.json.Decoder(_Status)


def _read_status(body: bytes) -> _Status | None:
    try:
        return _STATUS.decode(body)
    except msgspec.MsgspecError:
        return None


def _instant(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


async def _whole(answer: Answer) -> bytes:
    body = bytearray()

    def feed(data: bytes) -> bool:
        body.extend(data[: MAX_STATUS_BYTES - len(body)])
        return False

    while not await answer.pump(feed):
        pass
    return bytes(body)
