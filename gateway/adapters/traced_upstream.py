"""Notes each request to upstream in the trace of the call that makes it, and tells upstream of it where that
is wanted. Stands before the real upstream only where tracing is on.

Which call that is follows from the context that runs (`TRACE`): set around each call of a client, and copied
into what it spawns, as its settling. The gateway's own calls have none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType

from msgspec.structs import replace

from gateway.core.trace_context import Attempt, Trace, new_span_id, told_upstream
from gateway.ports import Answer, Clock, Upstream, UpstreamRequest

TRACE: ContextVar[Trace | None] = ContextVar("gateway_trace", default=None)


class TracedUpstream:
    """`ports.Upstream` around another. `bits` gives so many random bits."""

    def __init__(
        self, upstream: Upstream, *, clock: Clock, bits: Callable[[int], int], propagate: bool
    ) -> None:
        self._upstream = upstream
        self._clock = clock
        self._bits = bits
        self._propagate = propagate

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Answer]:
        trace = TRACE.get()
        if trace is None or not (trace.sampled or self._propagate):
            return self._upstream.open(request)
        span_id = new_span_id(self._bits)
        if self._propagate:
            request = replace(request, headers=told_upstream(request.headers, trace, span_id))
        if not trace.sampled:
            return self._upstream.open(request)
        attempt = Attempt(
            span_id=span_id,
            target=request.target,
            base_url=request.route.base_url,
            route=request.route.name,
            started=self._clock.monotonic(),
        )
        trace.attempts.append(attempt)
        return _Traced(self._upstream.open(request), attempt, self._clock)

    async def close(self) -> None:
        await self._upstream.close()


class _Traced:
    __slots__ = ("_attempt", "_clock", "_opening")

    def __init__(self, opening: AbstractAsyncContextManager[Answer], attempt: Attempt, clock: Clock) -> None:
        self._opening = opening
        self._attempt = attempt
        self._clock = clock

    async def __aenter__(self) -> Answer:
        try:
            answer = await self._opening.__aenter__()
        except BaseException as error:
            self._ended(error)
            raise
        self._attempt.status = answer.status
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._ended(error)
        return await self._opening.__aexit__(kind, error, trace)

    def _ended(self, error: BaseException | None) -> None:
        self._attempt.ended = self._clock.monotonic()
        if error is not None:
            self._attempt.error = str(getattr(error, "code", type(error).__name__))
