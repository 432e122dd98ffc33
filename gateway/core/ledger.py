"""What the books say: one entry per exchange, and totals over entries.

Entries are made here from the record of an exchange, and totals of several ledgers are added up here.
Storing and reading them is `adapters/ledger.py`. An entry holds numbers, names from the configuration and
the caller's tags: no content, no credential.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.pricing import Cost
from gateway.core.usage import Usage

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord
    from gateway.core.placement import Placement

SCHEMA_VERSION = 1
MAX_TEXT = 200
"""Longest text kept in one column; what comes from outside is cut to it."""
MAX_TAGS = 16
NANOUSD_PER_USD = 1_000_000_000


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


_NO_USAGE = Usage()
_NO_COST = Cost()


def entry_of(record: ExchangeRecord) -> Entry:
    """The entry of a finished exchange. Texts are cut to `MAX_TEXT`, tags to `MAX_TAGS`."""
    usage, cost = record.usage or _NO_USAGE, record.cost or _NO_COST
    return Entry._make((*_identity(record), *_spending(usage, cost), *_circumstances(record)))


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
        timings.total_seconds,
        timings.body_read_seconds,
        timings.overhead_seconds,
        timings.upstream_first_byte_seconds,
        timings.first_token_seconds,
        _tags(record.tags) if record.tags else "{}",
    )


def billed(usage: Usage) -> Usage:
    """The tokens that are billed: those of all iterations where there are any, because upstream's totals
    leave out compaction and advisor iterations (usage iterations in the SDK's types, 2026-11)."""
    if not usage.iterations:
        return usage
    parts = usage.iterations
    return Usage(
        uncached_input_tokens=sum(part.uncached_input_tokens for part in parts),
        cache_read_tokens=sum(part.cache_read_tokens for part in parts),
        cache_write_5m_tokens=sum(part.cache_write_5m_tokens for part in parts),
        cache_write_1h_tokens=sum(part.cache_write_1h_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
    )


def _text(value: str | None) -> str | None:
    return value if value is None or len(value) <= MAX_TEXT else value[:MAX_TEXT]


def _reason(placement: Placement | None) -> str:
    if placement is None:
        return ""
    if not placement.breakpoints:
        return placement.reason[:MAX_TEXT]
    return "; ".join(breakpoint.reason for breakpoint in placement.breakpoints)[:MAX_TEXT]


def _tags(tags: tuple[tuple[str, str], ...]) -> str:
    kept = {name[:MAX_TEXT]: value[:MAX_TEXT] for name, value in tags[:MAX_TAGS]}
    return json.dumps(kept, sort_keys=True)


class Dimension(StrEnum):
    """What a report can be split by."""

    ORGANISATION = "organisation"
    WORKSPACE = "workspace"
    KEY = "key"
    MODEL = "model"
    ENDPOINT = "endpoint"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Sums over the entries of one group, exact: all are integers."""

    group: tuple[str, ...] = ()
    """One value per dimension asked for; "-" where the exchange has none."""
    requests: int = 0
    refused: int = 0
    failed: int = 0
    """Neither answered nor refused by the gateway: no answer, or a cut one."""
    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    uncached_input_nanousd: int = 0
    cache_read_nanousd: int = 0
    cache_write_5m_nanousd: int = 0
    cache_write_1h_nanousd: int = 0
    output_nanousd: int = 0
    server_tools_nanousd: int = 0
    counterfactual_nanousd: int = 0
    guessed_nanousd: int = 0
    """The part of the cost whose usage upstream did not report in full."""
    fallback_nanousd: int = 0
    """The part of the cost priced by the fallback, because no row of the price table knew the model."""

    @property
    def cost_nanousd(self) -> int:
        return (
            self.uncached_input_nanousd
            + self.cache_read_nanousd
            + self.cache_write_5m_nanousd
            + self.cache_write_1h_nanousd
            + self.output_nanousd
            + self.server_tools_nanousd
        )

    @property
    def prompt_tokens(self) -> int:
        return (
            self.uncached_input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
        )

    @property
    def cache_read_ratio(self) -> float | None:
        """Share of all prompt tokens that were read from a cache; None without any."""
        return self.cache_read_tokens / self.prompt_tokens if self.prompt_tokens else None


SUMMED = tuple(item.name for item in fields(Total) if item.name != "group")


def add_up(totals: Iterable[Total]) -> tuple[Total, ...]:
    """One total per group, dearest first: how the ledgers of several replicas become one report."""
    sums: dict[tuple[str, ...], list[int]] = {}
    for total in totals:
        row = sums.setdefault(total.group, [0] * len(SUMMED))
        for index, name in enumerate(SUMMED):
            row[index] += getattr(total, name)
    added = [Total(group=group, **dict(zip(SUMMED, row, strict=True))) for group, row in sums.items()]
    return tuple(sorted(added, key=lambda total: (-total.cost_nanousd, total.group)))


def month_bounds(month: str) -> tuple[int, int]:
    """Epoch milliseconds of a month such as "2026-11" in UTC, the end exclusive. Raises ValueError."""
    try:
        start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{month!r} is no month; write it as 2026-11") from None
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return round(start.timestamp() * 1000), round(following.timestamp() * 1000)


def usd(nanousd: int) -> str:
    """Dollars with all nine decimals: exact, for machines."""
    sign, amount = ("-", -nanousd) if nanousd < 0 else ("", nanousd)
    return f"{sign}{amount // NANOUSD_PER_USD}.{amount % NANOUSD_PER_USD:09d}"
