"""Spans of calls through a running gateway, as a collector gets them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.adapters.ledger_queries import read_totals
from gateway.core.ledger import Total
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.faults import Fault, FaultKind, Match
from gateway.tracing import Tracing
from tests.e2e.whole.calls import ASK, LONG, call
from tests.support.clock import ShiftedClock
from tests.support.otlp_collector import Collector, a_collector, attributes
from tests.support.stack import Stack, a_stack

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
CACHED = {**ASK, "system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with a_collector() as collector:
        yield collector


def tracing(collector: Collector, more: str = "") -> str:
    return f'tracing: {{endpoint: "{collector.url}/v1/traces"{more}}}\n'


def by_kind(collector: Collector) -> tuple[list[Span], list[Span]]:
    """What was served, and what was asked of upstream."""
    served = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    return served, [span for span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT]


def the_books(stack: Stack) -> Total:
    (total,) = read_totals(stack.state / LEDGER_FILE, (), start_ms=0, end_ms=2**62)
    return total


async def test_a_call_is_a_span_and_each_attempt_one_below_it(tmp_path: Path, collector: Collector) -> None:
    more = ", headers: {x-token: {env: OTLP_TOKEN}}, service_name: gate"
    environ = {"OTLP_TOKEN": "sk-test-collector"}
    settings = tracing(collector, more)
    async with a_stack(tmp_path, settings=settings, environ=environ) as stack:
        for _ in range(2):
            assert (await call(stack, CACHED)).status == 200
        await stack.service.stop()

        total = the_books(stack)
    assert collector.headers[0]["x-token"] == "sk-test-collector"
    assert collector.resource["service.name"] == "gate"
    served, asked = by_kind(collector)
    assert (len(served), len(asked)) == (2, 2)
    parents = {span.span_id: span for span in served}
    assert all(parents[span.parent_span_id].trace_id == span.trace_id for span in asked)
    assert all(not span.parent_span_id for span in served)
    first, second = (attributes(span) for span in sorted(asked, key=lambda each: each.start_time_unix_nano))
    assert {span.name for span in asked} == {f"chat {ASK['model']}"}
    assert {span.name for span in served} == {"POST messages"}
    for said in (first, second):
        assert said["gen_ai.provider.name"] == "anthropic"
        assert said["gen_ai.operation.name"] == "chat"
        assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == ASK["model"]
        assert said["gen_ai.response.id"].startswith("msg_")
        assert said["gen_ai.response.finish_reasons"] == ["end_turn"]
        assert said["gen_ai.response.time_to_first_chunk"] > 0
        assert said["server.address"] == "127.0.0.1"
        assert f":{said['server.port']}" in stack.simulator.url
    assert first["gen_ai.usage.cache_write.input_tokens"] > 1_000
    assert second["gen_ai.usage.cache_read.input_tokens"] == first["gen_ai.usage.cache_write.input_tokens"]
    prompts = first["gen_ai.usage.input_tokens"] + second["gen_ai.usage.input_tokens"]
    assert prompts == total.prompt_tokens
    costs = [attributes(span)["gateway.cost.nanousd"] for span in served]
    assert sum(costs) == total.cost_nanousd
    assert attributes(served[0])["gateway.workspace"] == "demo"
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in collector.spans)


async def test_a_callers_trace_is_gone_on_with_and_its_decision_followed(
    tmp_path: Path, collector: Collector
) -> None:
    async with a_stack(tmp_path, settings=tracing(collector, ", ratio: 0.0")) as stack:
        await call(stack, ASK)
        await call(stack, ASK, headers=[("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")])
        await call(stack, ASK, headers=[SAMPLED, ("tracestate", "a=1,b=2")])
        await call(stack, ASK, headers=[SAMPLED, SAMPLED])
        await stack.service.stop()

    served, asked = by_kind(collector)
    assert len(served) == len(asked) == 1
    assert served[0].trace_id.hex() == asked[0].trace_id.hex() == TRACE_ID
    assert served[0].parent_span_id.hex() == SPAN_ID
    assert asked[0].parent_span_id == served[0].span_id
    assert served[0].trace_state == "a=1,b=2"


@pytest.mark.parametrize("propagate", [False, True])
async def test_upstream_is_told_of_the_trace_only_where_that_is_wanted(
    tmp_path: Path, collector: Collector, propagate: bool
) -> None:
    settings = tracing(collector, f", propagate: {str(propagate).lower()}")
    async with a_stack(tmp_path, settings=settings) as stack:
        await call(stack, ASK, headers=[SAMPLED, ("tracestate", "a=1"), ("baggage", "user=ann")])
        (received,) = stack.simulator.requests
        await stack.service.stop()

    _, (asked,) = by_kind(collector)
    told = {name.lower().decode(): value.decode() for name, value in received.headers}
    assert "baggage" not in told
    if propagate:
        assert told["traceparent"] == f"00-{TRACE_ID}-{asked.span_id.hex()}-01"
        assert told["tracestate"] == "a=1"
    else:
        assert not told.keys() & {"traceparent", "tracestate"}


async def test_nothing_of_a_trace_crosses_where_tracing_is_off(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        await call(stack, ASK, headers=[SAMPLED, ("tracestate", "a=1")])
        (received,) = stack.simulator.requests
        tracing = Tracing(stack.service._in_force.settings, ShiftedClock(), stack.service.metrics)
        assert tracing.around(stack.service.pipeline) is stack.service.pipeline
        assert tracing.observers == ()
        await tracing.close()

    assert not {name.lower() for name, _ in received.headers} & {b"traceparent", b"tracestate"}


async def test_a_second_attempt_is_a_span_of_its_own(tmp_path: Path, collector: Collector) -> None:
    async with a_stack(tmp_path, settings=tracing(collector)) as stack:
        stack.simulator.faults.add(Fault(kind=FaultKind.CUT, match=Match(path="/v1/models")))
        assert (await call(stack, path="/v1/models", method="GET")).status == 200
        await stack.service.stop()

    served, asked = by_kind(collector)
    assert [span.name for span in served] == ["GET models"]
    failed, good = sorted(asked, key=lambda each: each.start_time_unix_nano)
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "upstream_unreachable"
    assert "error.type" not in attributes(good)
    assert [attributes(each)["gateway.attempt"] for each in (failed, good)] == [1, 2]
    assert failed.span_id != good.span_id
    assert failed.end_time_unix_nano <= good.start_time_unix_nano


async def test_what_is_refused_here_has_no_span_below_it(tmp_path: Path, collector: Collector) -> None:
    async with a_stack(tmp_path, settings=tracing(collector)) as stack:
        assert (await call(stack, ASK, key="poor")).status == 429
        assert (await call(stack, ASK, key="expired")).status == 401
        await stack.service.stop()

    served, asked = by_kind(collector)
    assert asked == []
    codes = {attributes(span)["gateway.error.code"] for span in served}
    assert codes == {"budget_exhausted", "unauthenticated"}
    limits = [attributes(span).get("gateway.limit") for span in served]
    assert "month" in limits


async def test_spans_hold_neither_content_nor_credentials(tmp_path: Path, collector: Collector) -> None:
    asked = {**ASK, "system": "canary-system", "messages": [{"role": "user", "content": "canary-question"}]}
    async with a_stack(tmp_path, settings=tracing(collector)) as stack:
        answer = await call(stack, asked, headers=[("x-team", "canary-tag")])
        key = stack.keys["demo"]
        await stack.service.stop()

    said = "".join(str(request) for request in collector.requests)
    text = answer.json["content"][0]["text"]
    assert "canary" not in said
    assert key not in said
    assert json.dumps(text)[1:-1] not in said


@pytest.mark.parametrize("how", ["away", "hangs", "fails", "redirects"])
async def test_a_collector_that_does_not_take_spans_harms_no_call(
    tmp_path: Path, collector: Collector, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.tracing.EXPORT_SECONDS", 0.3)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    settings = tracing(collector, ", queue: 2")
    if how == "away":
        settings = 'tracing: {endpoint: "http://127.0.0.1:1/v1/traces", queue: 2}\n'
    collector.hangs = how == "hangs"
    collector.status = {"fails": 500, "redirects": 307}.get(how, 200)
    async with a_stack(tmp_path, settings=settings) as stack:
        answers = [await call(stack, ASK) for _ in range(4)]
        assert {answer.status for answer in answers} == {200}
        await asyncio.wait_for(stack.service.stop(), 20)
        _, page = stack.service.metrics.render("text/plain")
        assert the_books(stack).requests == 4

    counts = {
        name.decode(): float(value)
        for name, value in (line.split() for line in page.splitlines() if line.startswith(b"gateway_trace_"))
    }
    assert counts["gateway_trace_spans_exported_total"] == 0
    lost = counts["gateway_trace_spans_failed_total"] / 2 + counts["gateway_trace_calls_dropped_total"]
    assert lost == 4
    assert all("elsewhere" not in str(headers) for headers in collector.headers)


async def test_the_old_name_of_cache_writes_is_told_where_that_is_wanted(
    tmp_path: Path, collector: Collector
) -> None:
    async with a_stack(tmp_path, settings=tracing(collector, ", old_names: true")) as stack:
        await call(stack, CACHED)
        await stack.service.stop()

    _, (asked,) = by_kind(collector)
    said = attributes(asked)
    assert said["gen_ai.usage.cache_creation.input_tokens"] == said["gen_ai.usage.cache_write.input_tokens"]
