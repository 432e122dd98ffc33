"""Tracing of one replica, put together. Where it is off nothing is: the pipeline, upstream and the observers
are the very ones that they would be without this module.

What a span says is in `adapters/tracing_spans.py`; reading and writing ids in `core/trace_context.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import getrandbits
from typing import TYPE_CHECKING

import gateway
from gateway.adapters.prometheus import Metrics
from gateway.adapters.traced_upstream import TRACE, TracedUpstream
from gateway.core.errors import ConfigError
from gateway.core.trace_context import begin_trace
from gateway.ports import Call, Clock, Observer, Reply, Upstream
from gateway.settings.load import Settings
from gateway.settings.secrets import secret_reader
from gateway.settings.tracing import Tracing as TracingSettings
from gateway.settings.tracing_checks import MISSING
from gateway.web.dataplane import Calls

if TYPE_CHECKING:
    from gateway.adapters.tracing import SpanExport

CLOSING_SECONDS = 5.0
"""For spans that wait to be sent when the gateway stops."""


class Tracing:
    """Raises `ConfigError` where it is on and cannot be."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings.gateway.tracing
        self._clock = clock
        self._export = None if self._settings.endpoint is None else _opened(settings, metrics)

    @property
    def observers(self) -> Sequence[Observer]:
        """Of the pipeline."""
        return () if self._export is None else (self._export,)

    def upstream(self, upstream: Upstream) -> Upstream:
        """Upstream, with its requests noted in the traces of calls."""
        if self._export is None:
            return upstream
        propagate = self._settings.propagate
        return TracedUpstream(upstream, clock=self._clock, bits=getrandbits, propagate=propagate)

    def around(self, calls: Calls) -> Calls:
        """The pipeline, each of its calls within a trace."""
        return calls if self._export is None else _Traced(calls.handle, self._settings)

    async def close(self) -> None:
        """Send what waits, for some seconds."""
        if self._export is not None:
            await asyncio.to_thread(self._export.close, CLOSING_SECONDS)


class _Traced:
    def __init__(self, handle: Callable[[Call, Reply], Awaitable[None]], settings: TracingSettings) -> None:
        self._handle = handle
        self._ratio = settings.ratio

    async def handle(self, call: Call, reply: Reply) -> None:
        trace = begin_trace(
            call.headers,
            call_id=call.id,
            target=call.target,
            received_at=call.received_at,
            started=call.started,
            ratio=self._ratio,
            bits=getrandbits,
        )
        token = TRACE.set(trace)
        try:
            await self._handle(call, reply)
        finally:
            TRACE.reset(token)


def _opened(settings: Settings, metrics: Metrics) -> SpanExport:
    tracing = settings.gateway.tracing
    assert tracing.endpoint is not None
    try:
        from gateway.adapters.tracing import SpanExport  # OpenTelemetry is an extra
    except ImportError:
        raise ConfigError(f"tracing.endpoint {MISSING}") from None
    headers = {}
    for name, ref in tracing.headers.items():
        try:
            headers[name] = secret_reader(ref, settings.environ)()
        except (OSError, ValueError) as error:
            raise ConfigError(f"tracing.headers.{name} ({ref}) cannot be used: {error}") from None
    export = SpanExport(
        tracing.endpoint,
        headers=headers,
        service_name=tracing.service_name,
        version=gateway.__version__,
        queue=tracing.queue,
        old_names=tracing.old_names,
    )
    metrics.pull("gateway_trace_spans_exported_total", lambda: export.status.exported)
    metrics.pull("gateway_trace_spans_failed_total", lambda: export.status.failed)
    metrics.pull("gateway_trace_calls_dropped_total", lambda: export.status.dropped)
    return export
