"""Sums over the items of a batch that are booked together: usage and cost of each share. Pure.

Costs are added as they were rounded, item by item: so they are billed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.ledger import billed
from gateway.core.pricing import Cost
from gateway.core.usage import Usage

BATCH_TIER = "batch"
"""How upstream names the tier in the usage of an item."""
NO_USAGE = Usage(service_tier=BATCH_TIER)
NO_COST = Cost()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Items of a batch that are booked together: of one model, at one price."""

    model: str
    items: int
    usage: Usage
    cost: Cost


@dataclass(slots=True)
class ShareSum:
    """Adds up the items of one share. Place and price are the first item's: whoever adds keeps them apart."""

    model: str
    items: int = 0
    usage: Usage = NO_USAGE
    cost: Cost = NO_COST

    def add(self, usage: Usage, cost: Cost) -> None:
        """One item more; of its tokens those that are billed."""
        if not self.items:
            self.usage = replace(self.usage, model=self.model, inference_geo=usage.inference_geo)
            self.cost = replace(self.cost, price_id=cost.price_id, fallback=cost.fallback)
        self.items += 1
        self.usage = _usages(self.usage, usage)
        self.cost = _costs(self.cost, cost)

    def share(self) -> Share:
        return Share(model=self.model, items=self.items, usage=self.usage, cost=self.cost)


def sorted_shares(sums: Iterable[ShareSum]) -> tuple[Share, ...]:
    """Dearest first; of equal ones in an order that is always the same."""
    shares = (each.share() for each in sums)
    return tuple(sorted(shares, key=lambda share: (-share.cost.total_nanousd, share.model, share.items)))


def total_usage(shares: Iterable[Share]) -> Usage:
    """All shares' tokens in one."""
    total = NO_USAGE
    for share in shares:
        total = _usages(total, share.usage)
    return total


def total_cost(shares: Sequence[Share]) -> Cost:
    """All shares' costs in one, under the name of the dearest one's price."""
    total = shares[0].cost if shares else NO_COST
    for share in shares[1:]:
        total = replace(_costs(total, share.cost), fallback=total.fallback or share.cost.fallback)
    return total


def _usages(one: Usage, other: Usage) -> Usage:
    """`one` and the billed tokens of `other`, under the names of `one`."""
    tokens = billed(other)
    return Usage(
        uncached_input_tokens=one.uncached_input_tokens + tokens.uncached_input_tokens,
        cache_read_tokens=one.cache_read_tokens + tokens.cache_read_tokens,
        cache_write_5m_tokens=one.cache_write_5m_tokens + tokens.cache_write_5m_tokens,
        cache_write_1h_tokens=one.cache_write_1h_tokens + tokens.cache_write_1h_tokens,
        output_tokens=one.output_tokens + tokens.output_tokens,
        web_search_requests=one.web_search_requests + other.web_search_requests,
        web_fetch_requests=one.web_fetch_requests + other.web_fetch_requests,
        code_execution_requests=one.code_execution_requests + other.code_execution_requests,
        model=one.model,
        service_tier=one.service_tier,
        inference_geo=one.inference_geo,
    )


def _costs(one: Cost, other: Cost) -> Cost:
    return Cost(
        uncached_input_nanousd=one.uncached_input_nanousd + other.uncached_input_nanousd,
        cache_read_nanousd=one.cache_read_nanousd + other.cache_read_nanousd,
        cache_write_5m_nanousd=one.cache_write_5m_nanousd + other.cache_write_5m_nanousd,
        cache_write_1h_nanousd=one.cache_write_1h_nanousd + other.cache_write_1h_nanousd,
        output_nanousd=one.output_nanousd + other.output_nanousd,
        server_tools_nanousd=one.server_tools_nanousd + other.server_tools_nanousd,
        counterfactual_nanousd=one.counterfactual_nanousd + other.counterfactual_nanousd,
        price_id=one.price_id,
        fallback=one.fallback,
    )
