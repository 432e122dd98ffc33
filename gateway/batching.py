"""The creation of a message batch, as a step of the pipeline: read its body, and keep what is known of the
batch once upstream has accepted it.

What it may cost is decided in `core/batch.py`; what it did cost is found out by `workers/batches.py`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol

import msgspec

from gateway.core.batch import BatchPlan, KeptBatch, read_batch
from gateway.core.batch_items import Body
from gateway.core.bucket import Held
from gateway.core.errors import StoreUnavailable
from gateway.core.exchange import Exchange
from gateway.core.headers import Headers, value_of
from gateway.core.ids import ReservationId
from gateway.core.rules import Rules, Workspace
from gateway.ports import BatchStore, Call, Clock
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

LARGE_BYTES = 8 << 20
"""Of bodies above it, and of such as do not say how long they are, only so many are held at a time:"""
LARGE_AT_ONCE = 2
"""Times the largest body that the settings allow: the memory that large batches take at most."""
PIECE_BYTES = 1 << 18
REST_SECONDS = 0.0001
FIRST_LOOK_SECONDS = 15.0
DELETE_SECONDS = 30.0
"""For settling a batch before its results are deleted."""
_VERSIONS = (b"anthropic-version", b"anthropic-beta")


class HeldBody:
    """`ports.BodyStream` over a body that is held: a socket that took it at once would copy it."""

    def __init__(self, data: Body) -> None:
        self._rest = memoryview(data)
        self.length = len(data)

    async def read(self) -> bytes:
        piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
        return bytes(piece)

    def let_go(self) -> None:
        """Give the memory back, which takes a while: meant for a thread."""
        self._rest = memoryview(b"")


@dataclass(slots=True, kw_only=True)
class Creation:
    """One batch that is being created."""

    plan: BatchPlan
    body: HeldBody
    """The client's own bytes."""
    decoded: bool
    keeping: asyncio.Task[None] | None = None
    kept: bool = False
    """Whether it was kept, once `keeping` has ended."""


class Holding(Protocol):
    """What is asked of `adapters.guarded_budgets.GuardedBudgets`; its docstrings say more."""

    def held(self, reservation_id: ReservationId) -> Held | None: ...

    def hand_over(self, reservation_id: ReservationId) -> None: ...


class Batching:
    """Reads bodies of batches and keeps what was created. `settle_now` settles the batch of an id, if it has
    ended and is not settled yet; `budgets` hand over what is held for one that was kept."""

    def __init__(
        self,
        store: BatchStore,
        *,
        clock: Clock,
        tasks: TaskSet,
        settle_now: Callable[[str], Awaitable[None]],
        budgets: Holding,
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._clock = clock
        self._tasks = tasks
        self._settle_now = settle_now
        self._room = asyncio.Semaphore(LARGE_AT_ONCE)
        self._holding: set[str] = set()

    async def read(self, call: Call, rules: Rules, workspace: Workspace, exchange: Exchange) -> Creation:
        """Take the whole body, once, and read it in a thread; `exchange` gets to know what is in it. Whoever
        calls this calls `over` in the end. Raises what `core.batch.read_batch` and reading a body raise."""
        length = value_of(call.headers, b"content-length")
        if length is None or not length.isdigit() or int(length) > LARGE_BYTES:
            await self._room.acquire()
            self._holding.add(call.id)
        data, decoded = await _body_of(call)
        exchange.body_read_at = self._clock.monotonic()
        exchange.request_bytes = len(data)
        plan = await asyncio.to_thread(
            read_batch, data, rules=rules, workspace=workspace, at=call.received_at, rest=_rest
        )
        exchange.batch, exchange.model = plan, next(iter(plan.models), None)
        exchange.estimated_nanousd = plan.estimate.nanousd
        return Creation(plan=plan, body=HeldBody(data), decoded=decoded)

    async def over(self, call_id: str, creation: Creation | None) -> None:
        """The call has ended: let go of its body, if it has one. For any call, as often as one likes."""
        if creation is not None and creation.body.length > LARGE_BYTES:
            await asyncio.to_thread(creation.body.let_go)
        if call_id in self._holding:
            self._holding.discard(call_id)
            self._room.release()

    async def created(self, creation: Creation, exchange: Exchange, headers: Headers, body: bytes) -> None:
        """Keep the batch that upstream's answer names, before its client hears of it. `headers` are the
        client's. Raises a cancellation only: a batch that cannot be kept is booked at once, as estimated, and
        one whose client leaves meanwhile is kept all the same."""
        held = None if exchange.reservation is None else self._budgets.held(exchange.reservation.id)
        batch = _kept_batch(creation.plan, exchange, headers, body, held, at=self._clock.now())
        if batch is None:
            log.error("upstream's answer names no batch; exchange %s is booked as estimated", exchange.id)
            return
        creation.keeping = self._tasks.spawn(self._keep(creation, batch), "keep batch")
        await asyncio.wait((creation.keeping,))

    async def is_kept(self, creation: Creation | None) -> bool:
        """Whether it was kept, as soon as that is known."""
        if creation is None:
            return False
        if creation.keeping is not None:
            await asyncio.wait((creation.keeping,))
        return creation.kept

    async def before_deletion(self, batch_id: str) -> None:
        """Settle a batch whose results are about to be deleted, for a while. Never raises."""
        try:
            async with asyncio.timeout(DELETE_SECONDS):
                await self._settle_now(batch_id)
        except (TimeoutError, StoreUnavailable) as error:
            log.warning("batch %s is deleted before it could be settled: %s", batch_id, error)

    async def _keep(self, creation: Creation, batch: KeptBatch) -> None:
        try:
            await self._store.keep(batch)
            creation.kept = True
            if batch.reservation_id is not None:
                self._budgets.hand_over(ReservationId(batch.reservation_id))
        except StoreUnavailable as error:
            log.error("batch %s cannot be kept and is booked as estimated: %s", batch.id, error.message)


def _rest() -> None:
    """Sleep for as short a time as there is: who waits for the interpreter gets it at once, and not after its
    switch interval."""
    time.sleep(REST_SECONDS)


async def _body_of(call: Call) -> tuple[Body, bool]:
    """The body, and whether an encoding was taken off. Put in its place as it comes: joining 256 MB, or
    moving them while they grow, would hold the loop, and take twice the memory."""
    stream = call.stream_body()
    if stream is None or value_of(call.headers, b"content-encoding") is not None:
        body = await call.read_body()
        return body.data, body.decoded
    if stream.length is None or stream.length <= LARGE_BYTES:
        data = bytearray()
        while piece := await stream.read():
            data += piece
        return data, False
    # Memory of its own, which the system clears page by page, and gets back at once.
    held, at = mmap(-1, stream.length), 0
    while piece := await stream.read():
        held[at : at + len(piece)] = piece
        at += len(piece)
    return held, False


class _Created(msgspec.Struct):
    id: str


_BATCH_ID = re.compile(r"[a-zA-Z0-9_-]{1,200}")
_CREATED = msgspec.json.Decoder(_Created)


def _kept_batch(
    plan: BatchPlan, exchange: Exchange, headers: Headers, body: bytes, held: Held | None, *, at: float
) -> KeptBatch | None:
    try:
        batch_id = _CREATED.decode(body).id
    except msgspec.MsgspecError:
        return None
    if _BATCH_ID.fullmatch(batch_id) is None:  # it becomes part of a path
        return None
    principal, reservation = exchange.principal, exchange.reservation
    assert principal is not None
    return KeptBatch(
        id=batch_id,
        exchange_id=exchange.id,
        principal=principal,
        route=exchange.route or "",
        version_headers=tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name in _VERSIONS
        ),
        tags=exchange.tags,
        created_at=at,
        items=plan.items,
        presumed=plan.shares,
        presumed_amounts=plan.estimate.amounts,
        reservation_id=None if reservation is None else reservation.id,
        held=held,
        next_at=at + FIRST_LOOK_SECONDS,
    )
