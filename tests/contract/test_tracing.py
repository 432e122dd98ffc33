"""Spans on their way to a collector: what is told of a record, and what a collector that fails costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.adapters import tracing as module
from gateway.adapters.traced_upstream import TRACE
from gateway.adapters.tracing import BATCH, SpanExport, spans_of
from gateway.core.exchange import ExchangeRecord, State
from gateway.core.trace_context import SAMPLED, Attempt, Trace
from tests.support.otlp_collector import Collector, a_collector, attributes
from tests.support.records import a_record, a_refused_record


@pytest.fixture
def collector() -> Iterator[Collector]:
    with a_collector() as collector:
        yield collector


def an_export(collector: Collector, queue: int = 1_000) -> SpanExport:
    return SpanExport(f"{collector.url}/v1/traces", headers={}, service_name="gate", version="1", queue=queue)


def a_trace(call_id: str = "exchange-1", flags: int = SAMPLED, attempts: int = 1) -> Trace:
    """Of a call that arrived at 100 on the monotonic clock."""
    trace = Trace(
        call_id=call_id,
        target="/v1/messages",
        trace_id=0xAB,
        span_id=0xCD,
        parent_span_id=None,
        flags=flags,
        state=b"",
        received_at=1_795_000_000.25,
        started=100.0,
    )
    trace.attempts += [
        Attempt(
            span_id=number + 1,
            target="/v1/messages",
            base_url="https://api.example.com/base",
            route="direct",
            started=100.1 + number,
            ended=100.9 + number,
            status=200 if number == attempts - 1 else None,
            error="" if number == attempts - 1 else "upstream_unreachable",
        )
        for number in range(attempts)
    ]
    return trace


def told(export: SpanExport, record: ExchangeRecord, trace: Trace | None) -> None:
    """As the pipeline tells it, in the context of its call."""

    def within() -> None:
        TRACE.set(trace)
        export.observe(record)

    copy_context().run(within)


def until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_what_a_record_knows_is_what_its_spans_say() -> None:
    call, first, second = spans_of(a_record(), a_trace(attempts=2), False)

    assert (call.kind, first.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert call.trace_id == first.trace_id == (0xAB).to_bytes(16, "big")
    assert first.parent_span_id == second.parent_span_id == call.span_id == (0xCD).to_bytes(8, "big")
    assert round((call.end_time_unix_nano - call.start_time_unix_nano) / 1e6) == 2_500
    assert round((second.start_time_unix_nano - call.start_time_unix_nano) / 1e6) == 1_100
    said = attributes(second)
    assert said["gen_ai.usage.input_tokens"] == 10_000
    assert said["gen_ai.usage.cache_read.input_tokens"] == 9_000
    assert said["gen_ai.usage.cache_write.input_tokens"] == 900
    assert said["gen_ai.usage.output_tokens"] == 300
    assert said["gen_ai.request.stream"] is True
    assert (said["server.address"], said["server.port"]) == ("api.example.com", 443)
    assert "gen_ai.usage.cache_creation.input_tokens" not in said
    assert "gen_ai.usage.input_tokens" not in attributes(first)
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert attributes(first)["error.type"] == "upstream_unreachable"
    about = attributes(call)
    assert about["gateway.cost.nanousd"] == 10_875_001
    assert about["gateway.placement.reason"] == "the last stable block"
    assert about["gateway.workspace"] == "search"


def test_what_the_gateway_asks_for_itself_is_named_so() -> None:
    trace = a_trace(attempts=2)
    trace.attempts[0].target = "/v1/messages/count_tokens"
    _, counted, sent = spans_of(a_record(), trace, False)

    assert (counted.name, sent.name) == ("POST count_tokens", "chat claude-test-1")
    assert "gen_ai.operation.name" not in attributes(counted)


def test_only_failures_of_the_service_are_errors_of_the_call() -> None:
    (refused,) = spans_of(a_refused_record(), a_trace(attempts=0), False)
    (failed,) = spans_of(a_refused_record(state=State.FAILED, status=502), a_trace(attempts=0), False)

    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(refused)["gateway.error.code"] == "unauthenticated"
    assert failed.status.code == Status.STATUS_CODE_ERROR


def test_calls_without_a_sampled_trace_of_their_own_leave_nothing(collector: Collector) -> None:
    export = an_export(collector)
    told(export, a_record(), None)
    told(export, a_record(), a_trace(flags=0))
    told(export, a_record(id="a warm-up that this call spawned"), a_trace())
    told(export, a_record(), a_trace())
    export.close()

    assert len(collector.spans) == 2
    assert (export.status.exported, export.status.failed, export.status.dropped) == (2, 0, 0)


def test_all_that_waits_is_sent_at_the_end(collector: Collector) -> None:
    export = an_export(collector)
    for _ in range(3 * BATCH + 1):
        told(export, a_record(), a_trace())
    export.close(20.0)
    export.close()

    assert len(collector.spans) == export.status.exported == 2 * (3 * BATCH + 1)


def test_what_may_be_better_soon_is_repeated(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    collector.script += [503, 429]
    export = an_export(collector)
    told(export, a_record(), a_trace())
    until(lambda: export.status.exported == 2)
    collector.script += [503, 503, 503]
    told(export, a_record(), a_trace())
    until(lambda: export.status.failed == 2)
    collector.script += [400]
    told(export, a_record(), a_trace())
    until(lambda: export.status.failed == 4)
    export.close()

    assert len(collector.headers) == 3 + 3 + 1


def test_what_finds_no_room_is_dropped_and_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    collector.hangs = True
    export = an_export(collector, queue=2)
    told(export, a_record(), a_trace())
    assert collector.arrived.wait(20)  # the first is under way, and hangs
    for _ in range(5):
        told(export, a_record(), a_trace())
    assert export.status.dropped == 3
    export.close(0.05)

    assert export.status.dropped == 5
    told(export, a_record(), a_trace())
    assert export.status.dropped == 6


def test_a_record_that_cannot_be_told_does_not_end_the_rest(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    export = an_export(collector)
    told(export, a_record(), replace(a_trace(), trace_id=-1))
    until(lambda: export.status.failed)
    told(export, a_record(), a_trace())
    export.close()

    assert export.status.exported == 2
