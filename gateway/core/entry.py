"""One exchange in the ledger: what is kept of its record, as a row.

An entry holds numbers, names from the configuration and the caller's tags: no content, no credential. Storing
it is `adapters/ledger.py`; what is made of many of them is `ledger.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.ledger import billed
from gateway.core.pricing import Cost
from gateway.core.usage import Usage

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord
    from gateway.core.placement import Placement

SCHEMA_VERSION = 3
"""1: until 2026-11. 2: with what caching saved, `cohort` and after. 3: in a chain (`chain.py`)."""
MAX_TEXT = 200
"""Longest text kept in one column; what comes from outside is cut to it."""
MAX_TAGS = 16


class Entry(NamedTuple):
    """One exchange in the ledger; a tuple, because it is stored as it is, in this order.

    Token columns are what is billed: where upstream reported iterations, the sum over all of them.
    """

    id: str
    schema_version: int
    received_at_ms: int
    """Epoch milliseconds: the day and month (UTC) that the exchange belongs to."""
    organisation: str | None
    workspace: str | None
    key_id: str | None
    route: str | None
    endpoint: str
    method: str
    streaming: int
    model: str | None
    state: str
    basis: str
    status: int
    error_code: str | None
    upstream_error_type: str | None
    upstream_request_id: str | None
    message_id: str | None
    stop_reason: str | None
    attempts: int
    uncached_input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    web_search_requests: int
    web_fetch_requests: int
    code_execution_requests: int
    iterations: int
    service_tier: str | None
    inference_geo: str | None
    speed: str | None
    uncached_input_nanousd: int
    cache_read_nanousd: int
    cache_write_5m_nanousd: int
    cache_write_1h_nanousd: int
    output_nanousd: int
    server_tools_nanousd: int
    counterfactual_nanousd: int
    price_id: str
    price_fallback: int
    reservation_id: str | None
    estimated_nanousd: int
    overrun_nanousd: int
    binding_limit: str | None
    shadow_refusals: str
    """JSON list of limit ids."""
    store_degraded: int
    breakpoints: int
    placement_reason: str
    plan_failed: int
    client_marks: int
    request_bytes: int
    response_bytes: int
    total_seconds: float
    body_read_seconds: float
    overhead_seconds: float
    upstream_first_byte_seconds: float | None
    first_token_seconds: float | None
    tags: str
    """JSON object of strings."""
    cohort: str | None = None
    """Whose breakpoints the call went out with (`savings.Cohort`); None where nothing was billed. This and
    what follows is of schema 2, and says nothing of entries of schema 1."""
    shadow_nanousd: int | None = None
    """What the input would have cost as decided; of shadow mode only."""
    expected_read_tokens: int = 0
    """Beside `cache_read_tokens`: what the decision counted on."""
    miss_cause: str | None = None
    miss_detail: str | None = None
    """A sentence without content."""
    miss_tokens: int = 0
    miss_nanousd: int = 0
    """What those tokens cost above a read."""
    held_ms: int = 0
    held_saved_nanousd: int = 0


_NO_USAGE = Usage()
_NO_COST = Cost()


def entry_of(record: ExchangeRecord) -> Entry:
    """The entry of a finished exchange. Texts are cut to `MAX_TEXT`, tags to `MAX_TAGS`."""
    usage, cost = record.usage or _NO_USAGE, record.cost or _NO_COST
    return Entry._make(
        (*_identity(record), *_spending(usage, cost), *_circumstances(record), *_caching(record))
    )


def _identity(record: ExchangeRecord) -> tuple[str | int | None, ...]:
    """`id` to `attempts`."""
    principal, report = record.principal, record.report
    return (
        record.id,
        SCHEMA_VERSION,
        round(record.received_at * 1000),
        principal.organisation if principal else None,
        principal.workspace if principal else None,
        principal.key_id if principal else None,
        record.route,
        record.endpoint,
        record.method[:MAX_TEXT],
        int(record.streaming),
        _text(record.model),
        record.state.value,
        record.basis.value,
        record.status,
        record.error_code,
        _text(record.upstream_error_type),
        _text(record.upstream_request_id),
        _text(report.message_id) if report else None,
        _text(report.stop_reason) if report else None,
        record.attempts,
    )


def _spending(usage: Usage, cost: Cost) -> tuple[str | int | None, ...]:
    """`uncached_input_tokens` to `price_fallback`."""
    tokens = billed(usage)
    return (
        tokens.uncached_input_tokens,
        tokens.cache_read_tokens,
        tokens.cache_write_5m_tokens,
        tokens.cache_write_1h_tokens,
        tokens.output_tokens,
        usage.web_search_requests,
        usage.web_fetch_requests,
        usage.code_execution_requests,
        len(usage.iterations),
        _text(usage.service_tier),
        _text(usage.inference_geo),
        _text(usage.speed),
        cost.uncached_input_nanousd,
        cost.cache_read_nanousd,
        cost.cache_write_5m_nanousd,
        cost.cache_write_1h_nanousd,
        cost.output_nanousd,
        cost.server_tools_nanousd,
        cost.counterfactual_nanousd,
        cost.price_id,
        int(cost.fallback),
    )


def _circumstances(record: ExchangeRecord) -> tuple[str | int | float | None, ...]:
    """`reservation_id` to `tags`."""
    timings = record.timings
    return (
        record.reservation.id if record.reservation else None,
        record.estimated_nanousd,
        record.overrun_nanousd,
        record.binding_limit,
        json.dumps(record.shadow_refusals) if record.shadow_refusals else "[]",
        int(record.store_degraded),
        len(record.placement.breakpoints) if record.placement and record.placement_applied else 0,
        _reason(record.placement),
        int(record.plan_failed),
        record.client_marks,
        record.request_bytes,
        record.response_bytes,
        # As floats, whatever they were: a database gives back floats, and digests are over what it holds.
        float(timings.total_seconds),
        float(timings.body_read_seconds),
        float(timings.overhead_seconds),
        _seconds(timings.upstream_first_byte_seconds),
        _seconds(timings.first_token_seconds),
        _tags(record.tags) if record.tags else "{}",
    )


def _caching(record: ExchangeRecord) -> tuple[str | int | None, ...]:
    """`cohort` to `held_saved_nanousd`."""
    savings, placement = record.savings, record.placement
    held_ms = round(record.timings.held_seconds * 1000)
    if savings is None:
        return (None, None, 0, None, None, 0, 0, held_ms, 0)
    cause, detail = savings.miss_cause, None
    if cause is not None and placement is not None and placement.miss is not None:
        detail = placement.miss.reason[:MAX_TEXT]
    return (
        savings.cohort.value,
        savings.shadow_nanousd,
        savings.expected_read_tokens,
        None if cause is None else cause.value,
        detail,
        savings.miss_tokens,
        savings.miss_nanousd,
        held_ms,
        savings.held_saved_nanousd,
    )


def _text(value: str | None) -> str | None:
    """Cut, and without NUL, which a text in PostgreSQL cannot hold."""
    if value is None or (len(value) <= MAX_TEXT and "\0" not in value):
        return value
    return value[:MAX_TEXT].replace("\0", "\ufffd")


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)


def _reason(placement: Placement | None) -> str:
    if placement is None:
        return ""
    if not placement.breakpoints:
        return placement.reason[:MAX_TEXT]
    return "; ".join(breakpoint.reason for breakpoint in placement.breakpoints)[:MAX_TEXT]


def _tags(tags: tuple[tuple[str, str], ...]) -> str:
    kept = {name[:MAX_TEXT]: value[:MAX_TEXT] for name, value in tags[:MAX_TAGS]}
    return json.dumps(kept, sort_keys=True)
