"""The shapes of the provider's usage and cost reports, and what each row says. Both generations.

Fields that nobody here needs are left out. Sources: SDK 2.12 (`types/beta/organization/analytics`, 2026-11)
and the usage and cost API page with its reference (2026-08-21). How they are fetched is `claude_reports.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from fractions import Fraction
from typing import Generic, TypeVar

import msgspec

from gateway.core.pricing import cents
from gateway.core.reconcile_cells import ANY_MODEL, STANDARD, Amount, Billed, Kind

DEFAULT_WORKSPACE = "default"
"""How the default workspace is named here, where the older reports give it no id."""
_TOKEN_TYPES = {
    "uncached_input_tokens": Kind.UNCACHED_INPUT,
    "cache_read_input_tokens": Kind.CACHE_READ,
    "cache_creation.ephemeral_5m_input_tokens": Kind.CACHE_WRITE_5M,
    "cache_creation.ephemeral_1h_input_tokens": Kind.CACHE_WRITE_1H,
    "output_tokens": Kind.OUTPUT,
}
Row = TypeVar("Row")


class Generation(StrEnum):
    ANALYTICS = "analytics"
    OLDER = "older"


class ReportsUnavailable(Exception):
    """The reports could not be read. The message says why and holds nothing secret; `status` is what the
    provider answered, where it did."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderReports:
    generation: Generation
    billed: tuple[Billed, ...]
    smallest_nanousd: Fraction
    """The last decimal that amounts are written with: they may be rounded to it."""


class Page(msgspec.Struct, Generic[Row]):
    data: list[Row]
    has_more: bool = False
    next_page: str | None = None


class Group(msgspec.Struct):
    workspace_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    cost_type: str | None = None
    token_type: str | None = None


class _Writes(msgspec.Struct):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class _ServerTools(msgspec.Struct):
    web_search_requests: int = 0


class _Usage(msgspec.Struct, kw_only=True):
    uncached_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation: _Writes
    server_tool_use: _ServerTools | None = None


class _Cost(msgspec.Struct, kw_only=True):
    amount: str
    """After discounts."""
    list_amount: str
    currency: str


class UsageRow(msgspec.Struct):
    starting_at: datetime
    group: Group
    usage: _Usage

    def read(self) -> Iterator[Billed]:
        yield from _of_usage(self.starting_at, self.group, self.usage)


class CostRow(msgspec.Struct):
    starting_at: datetime
    group: Group
    cost: _Cost

    def read(self) -> Iterator[Billed]:
        cost = self.cost
        yield _of_cost(self.starting_at, self.group, cost.list_amount, cost.amount, cost.currency)

    def amounts(self) -> tuple[str, ...]:
        return (self.cost.list_amount,)


class _OlderUsage(_Usage, kw_only=True):
    workspace_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    service_tier: str | None = None


class UsageBucket(msgspec.Struct):
    starting_at: datetime
    results: list[_OlderUsage]

    def read(self) -> Iterator[Billed]:
        for result in self.results:
            group = Group(
                workspace_id=result.workspace_id,
                api_key_id=result.api_key_id,
                model=result.model,
                service_tier=result.service_tier,
            )
            yield from _of_usage(self.starting_at, group, result)


class _OlderCost(Group, kw_only=True):
    amount: str
    currency: str


class CostBucket(msgspec.Struct):
    starting_at: datetime
    results: list[_OlderCost]

    def read(self) -> Iterator[Billed]:
        for result in self.results:
            yield _of_cost(self.starting_at, result, result.amount, result.amount, result.currency)

    def amounts(self) -> tuple[str, ...]:
        return tuple(result.amount for result in self.results)


def _of_usage(starting_at: datetime, group: Group, usage: _Usage) -> Iterator[Billed]:
    writes, tools = usage.cache_creation, usage.server_tool_use or _ServerTools()
    counts = {
        Kind.UNCACHED_INPUT: usage.uncached_input_tokens,
        Kind.CACHE_READ: usage.cache_read_input_tokens,
        Kind.CACHE_WRITE_5M: writes.ephemeral_5m_input_tokens,
        Kind.CACHE_WRITE_1H: writes.ephemeral_1h_input_tokens,
        Kind.OUTPUT: usage.output_tokens,
        Kind.WEB_SEARCH: tools.web_search_requests,
    }
    for kind, count in counts.items():
        if count:
            yield _billed(starting_at, group, kind, Amount(count))


def _of_cost(starting_at: datetime, group: Group, listed: str, charged: str, currency: str) -> Billed:
    """Raises ValueError for what is no amount in dollars."""
    if currency != "USD":
        raise ValueError(f"amounts are in {currency[:10]!r}")
    kind = Kind.OTHER
    if group.cost_type == "web_search":
        kind = Kind.WEB_SEARCH
    elif group.cost_type == "tokens":
        kind = _TOKEN_TYPES.get(group.token_type or "", Kind.OTHER)
    amount = Amount(0, _nanousd(listed))
    return _billed(starting_at, group, kind, amount, charged=_nanousd(charged))


def _billed(
    starting_at: datetime, group: Group, kind: Kind, amount: Amount, charged: Fraction = Fraction(0)
) -> Billed:
    return Billed(
        day=_day(starting_at),
        workspace_id=group.workspace_id or DEFAULT_WORKSPACE,
        api_key_id=group.api_key_id,
        model=group.model or ANY_MODEL,
        tier=group.service_tier or STANDARD,
        kind=kind,
        amount=amount,
        charged_nanousd=charged,
    )


def _nanousd(text: str) -> Fraction:
    """Corrections can be below zero."""
    return -cents(text[1:]) if text.startswith("-") else cents(text)


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()
