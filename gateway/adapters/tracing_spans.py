"""What the spans of a call say: the call itself as it was served, and each request to upstream. Values only;
no part of OpenTelemetry is needed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.adapters import tracing_names as names
from gateway.core.endpoints import Endpoint
from gateway.core.exchange import ExchangeRecord, State
from gateway.core.savings import cohort_of
from gateway.core.trace_context import Attempt, Trace

Value = str | int | float | bool | Sequence[str]
Attributes = dict[str, Value]

_FAILED = frozenset({State.FAILED, State.CUT_BY_UPSTREAM})
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One span, its ids apart."""

    name: str
    serves: bool
    """Whether it serves somebody (kind SERVER), or asks somebody (CLIENT)."""
    attributes: Attributes
    start_at: float
    """Epoch seconds, as the end."""
    end_at: float
    failed: bool


def call_span(record: ExchangeRecord, trace: Trace) -> Described:
    """The call as its client saw it."""
    attributes: Attributes = {
        names.METHOD: record.method,
        names.EXCHANGE: record.id,
        names.ENDPOINT: record.endpoint,
        names.OUTCOME: record.state.value,
        names.BASIS: record.basis.value,
        names.OVERHEAD_SECONDS: record.timings.overhead_seconds,
        **_whose(record),
        **_money(record),
        **_placement(record),
    }
    if record.status:
        attributes[names.STATUS] = record.status
    if record.timings.held_seconds:
        attributes[names.HELD_SECONDS] = record.timings.held_seconds
    if record.error_code is not None:
        attributes[names.ERROR_CODE] = record.error_code
    if record.binding_limit is not None:
        attributes[names.LIMIT] = record.binding_limit
    if record.store_degraded:
        attributes[names.STORE_DEGRADED] = True
    failed = record.status >= 500 or record.state in _FAILED
    if failed:
        attributes[names.ERROR_TYPE] = record.error_code or record.upstream_error_type or str(record.status)
    return Described(
        name=f"{record.method} {record.endpoint}",
        serves=True,
        attributes=attributes,
        start_at=trace.received_at,
        end_at=trace.received_at + record.timings.total_seconds,
        failed=failed,
    )


def attempt_span(record: ExchangeRecord, trace: Trace, number: int, *, old_names: bool) -> Described:
    """One request to upstream. What was used is said of the last one of the call, which was answered."""
    attempt = trace.attempts[number]
    url = urlsplit(attempt.base_url)
    attributes: Attributes = {
        names.PROVIDER: names.ANTHROPIC,
        names.METHOD: record.method,
        names.ROUTE: attempt.route,
        names.ATTEMPT: number + 1,
        names.SERVER_ADDRESS: url.hostname or "",
        names.SERVER_PORT: url.port or _PORTS.get(url.scheme, 0),
    }
    own = attempt.target != trace.target  # the gateway counts a prompt before it refuses the call
    name = f"{record.method} {Endpoint.COUNT_TOKENS if own else record.endpoint}"
    model = record.model or ""
    if record.endpoint == Endpoint.MESSAGES and not own:
        name = f"{names.CHAT} {model}".rstrip()
        attributes[names.OPERATION] = names.CHAT
        if number == len(trace.attempts) - 1:
            attributes |= _answered(record, trace, attempt, old_names=old_names)
    if model:
        attributes[names.REQUEST_MODEL] = model
    if attempt.status is not None:
        attributes[names.STATUS] = attempt.status
    failed = bool(attempt.error) or (attempt.status or 0) >= 400
    if failed:
        kind = None if own else record.upstream_error_type
        attributes[names.ERROR_TYPE] = attempt.error or kind or str(attempt.status)
    last = trace.started + record.timings.total_seconds
    return Described(
        name=name,
        serves=False,
        attributes=attributes,
        start_at=trace.wall(attempt.started),
        end_at=trace.wall(last if attempt.ended is None else attempt.ended),
        failed=failed,
    )


def _answered(record: ExchangeRecord, trace: Trace, attempt: Attempt, *, old_names: bool) -> Attributes:
    found: Attributes = {}
    if record.streaming:
        found[names.REQUEST_STREAM] = True
    if record.upstream_request_id is not None:
        found[names.UPSTREAM_REQUEST] = record.upstream_request_id
    report, usage, first = record.report, record.usage, record.timings.first_token_seconds
    if report is not None:
        if report.model:
            found[names.RESPONSE_MODEL] = report.model
        if report.message_id:
            found[names.RESPONSE_ID] = report.message_id
        if report.stop_reason:
            found[names.FINISH_REASONS] = (report.stop_reason,)
    if first is not None:
        found[names.TIME_TO_FIRST_CHUNK] = max(0.0, trace.started + first - attempt.started)
    if usage is not None:
        written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
        found[names.INPUT_TOKENS] = usage.uncached_input_tokens + usage.cache_read_tokens + written
        found[names.CACHE_READ_TOKENS] = usage.cache_read_tokens
        found[names.CACHE_WRITE_TOKENS] = written
        if old_names:
            found[names.OLD_CACHE_WRITE_TOKENS] = written
        found[names.OUTPUT_TOKENS] = usage.output_tokens
    return found


def _whose(record: ExchangeRecord) -> Attributes:
    principal = record.principal
    if principal is None:
        return {}
    whose: Attributes = {
        names.ORGANISATION: principal.organisation,
        names.WORKSPACE: principal.workspace,
        names.KEY_ID: principal.key_id,
    }
    if principal.team:
        whose[names.TEAM] = principal.team
    return whose


def _money(record: ExchangeRecord) -> Attributes:
    money: Attributes = {}
    if record.cost is not None:
        money[names.COST_NANOUSD] = record.cost.total_nanousd
        money[names.COST_USD] = record.cost.total_nanousd / 1e9
    if record.savings is not None:
        money[names.SAVED_NANOUSD] = record.savings.plain_nanousd - record.savings.paid_nanousd
    return money


def _placement(record: ExchangeRecord) -> Attributes:
    placed: Attributes = {}
    cohort, placement = cohort_of(record), record.placement
    if cohort is not None:
        placed[names.COHORT] = cohort.value
    if placement is not None:
        placed[names.BREAKPOINTS] = len(placement.breakpoints) if record.placement_applied else 0
        reasons = [each.reason for each in placement.breakpoints] or [placement.reason]
        placed[names.PLACEMENT_REASON] = "; ".join(reason for reason in reasons if reason)[:500]
    if record.savings is not None and record.savings.miss_cause is not None:
        placed[names.MISS_CAUSE] = record.savings.miss_cause.value
    return placed
