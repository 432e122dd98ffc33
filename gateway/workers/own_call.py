"""A call of the gateway's own through the pipeline, and what became of it. Its small answer is kept here and
reaches no client; budgets, books, retries and metrics are those of any call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.core.endpoints import Endpoint
from gateway.core.errors import GatewayError
from gateway.core.exchange import ExchangeRecord
from gateway.core.headers import Headers
from gateway.core.principal import Principal
from gateway.ports import BodyStream, Call, Clock, InboundBody, Reply

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1 << 16
"""Of an answer that generates nothing; what is more of it is not kept."""
RECORD_SECONDS = 10.0
"""For the record of a call that has ended: it is told at the loop's next turns."""

Handle = Callable[[Call, Reply], Awaitable[None]]


@dataclass(slots=True)
class KeptAnswer:
    """`ports.Reply` into memory."""

    status: int = 0
    headers: Headers = ()
    body: bytearray = field(default_factory=bytearray, repr=False)

    @property
    def started(self) -> bool:
        return self.status != 0

    def start(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers

    def write(self, data: bytes) -> bool:
        self.body += data[: MAX_ANSWER_BYTES - len(self.body)]
        return False

    async def drained(self) -> None:
        return

    def finish(self) -> None:
        return

    def abort(self) -> None:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a call of the gateway's own ended."""

    call_id: str
    sent_at: float
    """Epoch seconds; lifetimes of entries run from here."""
    answer: KeptAnswer
    error: GatewayError | None
    """What the pipeline raised instead of an answer."""
    record: ExchangeRecord | None


class OwnCalls:
    """Makes them. `handle` is the pipeline's; this is one of its observers."""

    def __init__(self, handle: Handle, clock: Clock, new_id: Callable[[], str]) -> None:
        self._handle = handle
        self._clock = clock
        self._new_id = new_id
        self._awaited: dict[str, asyncio.Future[ExchangeRecord]] = {}

    @property
    def under_way(self) -> int:
        """Calls that have not been booked."""
        return len(self._awaited)

    async def send(self, principal: Principal, body: bytes, headers: Headers, *, target: str) -> Done:
        """One Messages call. Raises a cancellation only."""
        answer = KeptAnswer()
        call = self._call(principal, body, headers, target)
        told = self._awaited[call.id] = asyncio.get_running_loop().create_future()
        error: GatewayError | None = None
        record: ExchangeRecord | None = None
        try:
            try:
                await self._handle(call, answer)
            except GatewayError as raised:
                error = raised
            except Exception:
                log.exception("a call of the gateway's own failed inside the gateway")
                error = GatewayError("The gateway failed; its log says why.")
            async with asyncio.timeout(RECORD_SECONDS):
                record = await told
        except TimeoutError:
            log.error("the record of exchange %s never came", call.id)
        finally:
            del self._awaited[call.id]
        return Done(call_id=call.id, sent_at=call.received_at, answer=answer, error=error, record=record)

    def observe(self, record: ExchangeRecord) -> None:
        """As `ports.Observer`. Of calls of others nothing is kept."""
        told = self._awaited.get(record.id)
        if told is not None and not told.done():
            told.set_result(record)

    def _call(self, principal: Principal, body: bytes, headers: Headers, target: str) -> Call:
        async def read() -> InboundBody:
            return InboundBody(body, decoded=False)

        def stream() -> BodyStream | None:
            return None

        return Call(
            id=self._new_id(),
            endpoint=Endpoint.MESSAGES,
            method="POST",
            target=target,
            headers=[*headers, (b"content-type", b"application/json")],
            received_at=self._clock.now(),
            started=self._clock.monotonic(),
            public_base="",
            read_body=read,
            stream_body=stream,
            principal=principal,
        )
