"""Spans of finished calls, sent as OTLP over HTTP. Needs the extra `otel`.

An observer that only puts what it is told into a bounded queue: spans are made and sent in a thread of their
own, so that a collector that is slow, broken or away costs spans and nothing else. They are written straight
into the protocol's messages: OpenTelemetry's own tracer and encoder take three times as long for it. Names,
numbers and times alone; there is no content in what observers are told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gateway.adapters import tracing_names as names
from gateway.adapters.traced_upstream import TRACE
from gateway.adapters.tracing_spans import Attributes, Described, Value, attempt_span, call_span
from gateway.core.exchange import ExchangeRecord
from gateway.core.trace_context import Trace

log = logging.getLogger(__name__)

BATCH = 32
"""Calls whose spans are sent in one request. While they are made, the event loop may have to wait for the
interpreter, some milliseconds at most: so few at a time, with a pause behind them."""
PAUSE_SECONDS = 0.001
WAKES_AT = 128
"""Calls that are not left waiting for `LINGER_SECONDS`."""
LINGER_SECONDS = 1.0
EXPORT_SECONDS = 10.0
"""For one request."""
AGAIN_SECONDS = (0.5, 2.0)
"""Before it is repeated, where that may help (OTLP specification: 429, 502, 503, 504, and no answer)."""
_AGAIN = frozenset({429, 502, 503, 504})
_IS_REMOTE_IS_KNOWN, _PARENT_IS_REMOTE = 0x100, 0x200
"""Flags of a span, beside those of its trace."""


@dataclass(slots=True)
class TracingStatus:
    """Counts since the start."""

    exported: int = 0
    """Spans that the collector took."""
    failed: int = 0
    """Spans that it did not."""
    dropped: int = 0
    """Calls that found no room in the queue, or were in it at the end."""


class SpanExport:
    """`ports.Observer` of calls that have a sampled trace. `observe` takes about a microsecond and never
    blocks."""

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        service_name: str,
        version: str,
        queue: int,
        old_names: bool = False,
    ) -> None:
        self.status = TracingStatus()
        self._endpoint = endpoint
        self._headers = {**headers, "content-type": "application/x-protobuf"}
        self._resource = Resource(
            attributes=_attributes({names.SERVICE_NAME: service_name, names.SERVICE_VERSION: version})
        )
        conventions = _attributes({"gateway.conventions": names.CONVENTIONS})
        self._scope = InstrumentationScope(name=names.SCOPE, version=version, attributes=conventions)
        self._waiting: deque[tuple[ExchangeRecord, Trace]] = deque()
        self._most_waiting = queue
        self._old_names = old_names
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # No proxies of the environment: only to the place that was configured.
        self._http = urllib3.PoolManager(num_pools=1, maxsize=1)
        self._thread = threading.Thread(target=self._run, name="span export", daemon=True)
        self._thread.start()

    def observe(self, record: ExchangeRecord) -> None:
        trace = TRACE.get()
        if trace is None or trace.call_id != record.id or not trace.sampled:
            return
        if len(self._waiting) >= self._most_waiting or self._stopping.is_set():
            self.status.dropped += 1
            return
        self._waiting.append((record, trace))
        if len(self._waiting) >= WAKES_AT:
            self._wake.set()

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for so long at most. Blocks. Again, it does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)
        self.status.dropped += len(self._waiting)
        self._waiting.clear()
        self._http.clear()

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            while self._waiting:
                self._export([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))])
                time.sleep(PAUSE_SECONDS)
            if stopping:
                return
            self._wake.wait(LINGER_SECONDS)
            self._wake.clear()

    def _export(self, calls: Sequence[tuple[ExchangeRecord, Trace]]) -> None:
        count = sum(1 + len(trace.attempts) for _, trace in calls)
        try:
            taken = self._send(self._request(calls))
        except Exception as error:  # a bug here must not end the thread
            log.error("spans could not be made: %s", type(error).__name__)
            taken = False
        if taken:
            self.status.exported += count
        else:
            self.status.failed += count

    def _request(self, calls: Iterable[tuple[ExchangeRecord, Trace]]) -> bytes:
        spans = [span for record, trace in calls for span in spans_of(record, trace, self._old_names)]
        scope = ScopeSpans(scope=self._scope, spans=spans)
        request = ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scope])]
        )
        body: bytes = request.SerializeToString()
        return body

    def _send(self, body: bytes) -> bool:
        """Whether the collector took it. At the end nothing is repeated."""
        for delay in (*AGAIN_SECONDS, None):
            try:
                answer = self._http.request(
                    "POST",
                    self._endpoint,
                    body=body,
                    headers=self._headers,
                    timeout=EXPORT_SECONDS,
                    retries=False,
                    redirect=False,
                )
                said = f"status {answer.status}"
                if 200 <= answer.status < 300:
                    return True
                again = answer.status in _AGAIN
            except (urllib3.exceptions.HTTPError, OSError) as error:
                said, again = type(error).__name__, True
            if not again or delay is None or self._stopping.wait(delay):
                break
        log.warning("the collector of spans did not take them: %s", said)
        return False


def spans_of(record: ExchangeRecord, trace: Trace, old_names: bool) -> list[Span]:
    """The span of the call, and one for each of its attempts."""
    spans = [_span(trace, trace.span_id, trace.parent_span_id, call_span(record, trace))]
    for number, attempt in enumerate(trace.attempts):
        described = attempt_span(record, trace, number, old_names=old_names)
        spans.append(_span(trace, attempt.span_id, trace.span_id, described))
    return spans


def _span(trace: Trace, span_id: int, parent_id: int | None, of: Described) -> Span:
    flags = trace.flags | _IS_REMOTE_IS_KNOWN
    if of.serves and parent_id is not None:
        flags |= _PARENT_IS_REMOTE
    return Span(
        trace_id=trace.trace_id.to_bytes(16, "big"),
        span_id=span_id.to_bytes(8, "big"),
        parent_span_id=b"" if parent_id is None else parent_id.to_bytes(8, "big"),
        trace_state=trace.state.decode("ascii"),
        flags=flags,
        name=of.name,
        kind=Span.SPAN_KIND_SERVER if of.serves else Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=round(of.start_at * 1e9),
        end_time_unix_nano=round(of.end_at * 1e9),
        attributes=_attributes(of.attributes),
        status=_ERROR if of.failed else None,
    )


_ERROR = Status(code=Status.STATUS_CODE_ERROR)


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Value) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=each) for each in value]))
