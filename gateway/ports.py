"""What the pipeline needs from the world, and what it offers to observers.

Each method says whether it may raise, whether it is atomic and idempotent, and what bounds it in time.
Two implementations of each exist from the first day: a real one, and one in memory or simulated that
passes the same contract suite.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.core.headers import Header, Headers

if TYPE_CHECKING:
    from gateway.core.adjustments import Adjustment, LogEntry, TakenBack
    from gateway.core.alerts import AlertEntry, Begun
    from gateway.core.batch import KeptBatch
    from gateway.core.bucket import Amounts, Decision, Presumed, Reservation, Verdict
    from gateway.core.endpoints import Endpoint
    from gateway.core.exchange import ExchangeRecord
    from gateway.core.ids import KeyId, ReservationId
    from gateway.core.limits import BoundLimit
    from gateway.core.principal import KeyRecord, Principal
    from gateway.core.rules import Route


__all__ = ["Header", "Headers"]


class Clock(Protocol):
    """Time as an argument. Never raises."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; for durations."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class BudgetStore(Protocol):
    """The state of all buckets and open reservations.

    Every method may raise `StoreUnavailable`, within the store's own timeout (half a second, of a
    process that does not stand still). All are atomic over every replica, and idempotent by reservation id.
    """

    async def reserve(self, reservation: Reservation) -> Decision:
        """Set aside on all limits or on none. Asked twice with one id, gives the first answer again."""
        ...

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        """Close at real cost, in the buckets that it was taken from, whatever is configured by now. An
        overrun is charged. Unknown or closed ids: nothing happens."""
        ...

    async def release(self, reservation_id: ReservationId) -> None:
        """Close at zero. Unknown or closed ids: nothing happens."""
        ...

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        """Prolong the lease of an open reservation (long streams). Unknown ids: nothing happens."""
        ...

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        """Close reservations whose lease is over, at what they had set aside. Returns what `ledger` (a name
        that lasts) is to book: those, and what late settlements took back; some hundreds at most, and each
        again until it is `booked`. Nothing is ever returned to two ledgers."""
        ...

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        """The ledger has these (`Presumed.id`) for good. Unknown ones: nothing happens."""
        ...

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        """What each limit would say to a request of nothing. Changes nothing."""
        ...

    async def ping(self) -> None:
        """Return if the store can serve and be written."""
        ...

    async def close(self) -> None: ...


def _nothing() -> None:
    return


# msgspec.Structs, since they are made for each call: a frozen dataclass takes ten times as long to make.
class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request as it goes out. `body` in pieces, to be written without joining them; or a `body_stream` of
    pieces of unknown number for bodies that are passed through unread."""

    method: str
    target: str
    """Path and query exactly as the client sent them."""
    headers: Headers
    """End-to-end headers, credential included; host, content-length and framing are the adapter's."""
    route: Route
    body: tuple[bytes | memoryview, ...] = ()
    body_stream: BodyStream | None = None
    on_sent: Callable[[], None] = _nothing
    """Called just before the first byte is handed to a connection: from here on upstream may bill."""


class BodyStream(Protocol):
    """A request body that is relayed as it arrives."""

    @property
    def length(self) -> int | None:
        """Content-length as announced, or None where the client sends chunks."""
        ...

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises `ClientGone`, `RequestTimeout`, `TooLarge`."""
        ...


class Answer(Protocol):
    """Upstream's response, its head read."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers:
        """End-to-end response headers; hop-by-hop ones are gone, content-length is kept. Empty once the body
        is pumped: a stream lasts for minutes."""
        ...

    async def pump(self, feed: Callable[[bytes], bool]) -> bool:
        """Hand body bytes to `feed` as they arrive, straight from the socket's callback.

        When `feed` returns True (congested), stop reading from upstream and return False; call again to go
        on. Return True at the body's proper end. Raises `UpstreamCut`, or `UpstreamTimeout` when nothing
        comes for the idle timeout.
        """
        ...


class InboundBody(msgspec.Struct, frozen=True, gc=False):
    data: bytes
    decoded: bool
    """Whether a content-encoding was taken off here."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived. `headers` are all inbound lines; nothing of them crosses unless `core/headers.py`
    says so."""

    id: str
    endpoint: Endpoint
    method: str
    target: str
    headers: Headers
    received_at: float
    started: float
    public_base: str
    """Scheme, host and port by which the client reaches the gateway."""
    read_body: Callable[[], Awaitable[InboundBody]]
    stream_body: Callable[[], BodyStream | None]
    principal: Principal | None = None
    """Who calls, where that is known without a key: the gateway itself, for its warm-ups."""


class Upstream(Protocol):
    """The other end. Pooled connections, TLS, timeouts; one attempt per call, no retries of its own."""

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Answer]:
        """Send and await the response's head. Leaving the context early cuts upstream at once. Raises
        `UpstreamUnreachable`, `UpstreamTimeout`, and whatever `body_stream` raises."""
        ...

    async def close(self) -> None: ...


class Reply(Protocol):
    """The client's end of one exchange. Its methods raise `ClientGone` once the client has left."""

    @property
    def started(self) -> bool:
        """Whether the response's head was written: after that, errors can only cut or end the stream."""
        ...

    @property
    def status(self) -> int:
        """What was started with; 0 before."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Write the head. With a content-length among the headers the body is framed by it, else by
        chunks (or by closing, for HTTP/1.0)."""
        ...

    def write(self, data: bytes) -> bool:
        """Hand bytes to the client's socket without waiting; True where it is congested: await `drained`."""
        ...

    async def drained(self) -> None:
        """Until the client has read enough. Raises `ClientGone` too where it reads too slowly."""
        ...

    def finish(self) -> None:
        """End the body properly."""
        ...

    def abort(self) -> None:
        """Close the connection so that the client cannot take what it has for complete."""
        ...


class Observer(Protocol):
    """Told of each finished exchange exactly once. Must not block and must not raise; one that does raise
    is counted and logged, and the others are told all the same."""

    def observe(self, record: ExchangeRecord) -> None: ...


class KeyStore(Protocol):
    """The records of virtual keys. Every method may raise `StoreUnavailable`, within two seconds; all are
    atomic and idempotent. Revocation is for ever: no method takes it back."""

    async def load(self) -> tuple[KeyRecord, ...]:
        """All records, revoked and expired ones too, oldest first."""
        ...

    async def put(self, record: KeyRecord) -> None:
        """Keep this record; one of the same id is replaced, but stays revoked where it was."""
        ...

    async def revoke(self, key_id: KeyId, at: float, by: str = "") -> bool:
        """Revoke from now on, whatever instant is written down; False where no such key is known. The
        first revocation's instant is kept, and by whom it was."""
        ...

    async def close(self) -> None: ...


class BatchStore(Protocol):
    """Message batches that upstream accepted and that are not booked yet. Every method may raise
    `StoreUnavailable`, within two seconds; all are atomic over every replica."""

    async def keep(self, batch: KeptBatch) -> None:
        """Remember it. One of this id that is there already stays as it is."""
        ...

    async def due(self, now: float, at_most: int) -> tuple[KeptBatch, ...]:
        """Those to be looked at by now, the longest overdue first. What cannot be read is passed over for a
        while, and logged; `find` and `change` raise for it."""
        ...

    async def find(self, batch_id: str) -> KeptBatch | None: ...

    async def change(self, batch: KeptBatch) -> KeptBatch | None:
        """Put it in the place of the one of its id and revision, and return it with its new revision. None
        where there is none any more: another replica was first."""
        ...

    async def forget(self, batch_id: str) -> None:
        """It is booked. Unknown ids: nothing happens."""
        ...

    async def close(self) -> None: ...


class BatchBooks(Protocol):
    """The ledger, for entries that may be booked again after a crash."""

    @property
    def name(self) -> str:
        """Which ledger this is, over restarts; each replica has its own."""
        ...

    async def add(self, records: Sequence[ExchangeRecord]) -> int:
        """Book all or none, on disk when it returns; how many were new. Ids that are there already stay as
        they are. Raises `StoreUnavailable`."""
        ...


class AdjustmentStore(Protocol):
    """The log of adjustments: what people change while the gateway runs. Nothing in it is ever changed or
    removed. Every method may raise `StoreUnavailable`, within two seconds; all are atomic over every replica,
    and idempotent by the adjustment's id."""

    async def load(self, at: float) -> tuple[Adjustment, ...]:
        """Those that were not taken back and do not end before `at`, in the order of the log; those that
        begin later are among them. At most `MAX_IN_FORCE`."""
        ...

    async def find(self, adjustment_id: str) -> LogEntry | None:
        """How this adjustment stands: the entry by which it was taken back, else that by which it was
        made."""
        ...

    async def add(self, adjustment: Adjustment) -> LogEntry:
        """Append it. Where the id is there already, nothing happens, and the entry that there is comes back.
        Raises `TooManyAdjustments`."""
        ...

    async def take_back(self, adjustment_id: str, taken_back: TakenBack) -> LogEntry | None:
        """Append that it was taken back; None where no such adjustment is known. The first time counts, and
        its entry comes back ever after."""
        ...

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        """Entries with a smaller number than `before`, newest first."""
        ...

    async def close(self) -> None: ...


class AlertLog(Protocol):
    """What people were told, and have still to be told. Every method may raise `StoreUnavailable`, within two
    seconds; all are atomic over every replica. Instants are epoch seconds of the callers' clocks."""

    async def begin(self, entry: AlertEntry) -> Begun:
        """Write it down, unless one of its id is there. Those older than `KEPT_SECONDS` are forgotten."""
        ...

    async def take(self, at: float, lease_seconds: float, at_most: int) -> tuple[AlertEntry, ...]:
        """Those due by `at`, the longest first, for the caller alone until the lease ends."""
        ...

    async def save(self, entry: AlertEntry) -> bool:
        """Put it in the place of the one of its id and revision; False where another has taken it since."""
        ...

    async def history(self, at_most: int) -> tuple[AlertEntry, ...]:
        """The newest first."""
        ...

    async def waiting(self) -> int:
        """How many have deliveries left to do."""
        ...

    async def close(self) -> None: ...


class Peers(Protocol):
    """The other replicas, as far as caching goes: who writes what, and what they learned. All of it only ever
    saves money: whoever cannot reach its peers goes on alone.
    """

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        """Claim all of `names` for `holder` (a call's id), or none; for so long at most. None: they are
        the holder's. Otherwise who holds the first that was taken. Atomic over all replicas, idempotent.
        Answers within 0.2 s: where the peers cannot be asked, None, and the failure is counted."""
        ...

    def give_up(self, holder: str) -> None:
        """Let go of all that `holder` claimed, so that another can; before what is told after it is heard.
        Does not block."""
        ...

    def tell(self, news: bytes) -> None:
        """Tell all others, in this order. Does not block; what cannot be told is dropped and counted."""
        ...

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        """Run until cancelled: `heard` gets the name of a replica and its news, in its order; `gone` the name
        of a replica that has died. Neither is told of this one. Raises nothing."""
        ...

    async def close(self) -> None: ...


class Shelf(Protocol):
    """One value of some megabytes that outlives this process, whole or not at all."""

    async def load(self) -> bytes | None:
        """What was saved last; None where nothing is, or it cannot be read (which is logged)."""
        ...

    async def save(self, data: bytes) -> None:
        """Replace it. Raises `StoreUnavailable`."""
        ...

    async def close(self) -> None: ...
