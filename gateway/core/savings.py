"""What caching saved one exchange, and what a miss, a hold and shadow mode made of its bill. Pure.

All of it is differences between bills of the one price table: the call as it was billed, and the same call
with some of its prompt moved from one kind of tokens to another. Integers of nano-dollars; no rate is ever
multiplied here. Why something was missed is `misses.py`'s, what was placed is `placement.py`'s.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.core.endpoints import Endpoint
from gateway.core.exchange import Basis, Exchange, ExchangeRecord
from gateway.core.misses import MissCause
from gateway.core.plan import UNPLACED
from gateway.core.principal import is_warming
from gateway.core.usage import Usage

if TYPE_CHECKING:
    from gateway.core.placement import Placement
    from gateway.core.pricing import PriceTable


class Cohort(StrEnum):
    """Whose breakpoints a call went out with: what savings are compared by."""

    PLACED = "placed"
    """The gateway's, whether or not the client set some as well."""
    CLIENT = "client"
    """The client's own alone."""
    NONE = "none"
    """None: the gateway found nothing worth one, or could not plan."""
    SHADOW = "shadow"
    """The client's own bytes; what the gateway would have placed was only decided."""
    OFF = "off"
    """None, and none were looked for: placement is off for the workspace or the call."""
    HOLDOUT = "holdout"
    """None, on purpose: what the call costs without is measured."""
    WARMING = "warming"
    """The gateway's own warm-ups."""


# A msgspec.Struct, since it is made for each call: a frozen dataclass takes ten times as long to make.
class Savings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What caching did to one exchange that was billed. Nano-dollars are of its input unless said otherwise;
    what it saved is `plain_nanousd - paid_nanousd`, and negative where caching lost money."""

    cohort: Cohort
    plain_nanousd: int
    """Without any caching."""
    paid_nanousd: int
    """As it was billed: the four kinds of input of its `Cost`."""
    shadow_nanousd: int | None = None
    """Cohort `shadow`: as it would have been billed, had what was decided been sent and come true."""
    expected_read_tokens: int = 0
    """What the decision counted on, scaled to the prompt as billed."""
    miss_cause: MissCause | None = None
    """None too where the call was held out: that it reads nothing is on purpose."""
    miss_tokens: int = 0
    """Tokens that were known and could not be read."""
    miss_nanousd: int = 0
    """What they cost above a read."""
    held_tokens: int = 0
    """Tokens that were read because the call was held."""
    held_saved_nanousd: int = 0
    """What they would have cost above a read."""

    @property
    def saved_nanousd(self) -> int:
        return self.plain_nanousd - self.paid_nanousd


def cohort_of(exchange: Exchange | ExchangeRecord) -> Cohort | None:
    """None for what is no Messages call, and where the call was refused before it was planned."""
    placement = exchange.placement
    if placement is None or exchange.endpoint != Endpoint.MESSAGES:
        return None
    if exchange.principal is not None and is_warming(exchange.principal):
        return Cohort.WARMING
    if placement.holdout:
        return Cohort.HOLDOUT
    if placement.breakpoints:
        return Cohort.PLACED if exchange.placement_applied else Cohort.SHADOW
    if exchange.client_marks:
        return Cohort.CLIENT
    return Cohort.OFF if placement is UNPLACED else Cohort.NONE


def reckon_savings(exchange: Exchange, prices: PriceTable) -> Savings | None:
    """For a finished exchange whose usage and cost are known; None where nothing was billed.

    - A miss: its tokens, in the order in which the API bills a prompt behind what it read (1h writes, 5m
      writes, uncached; prompt caching docs, 2026-08-21) and without those that were read after all, at what
      they cost less what reading them had cost. So it is at most what all that was not read cost above reads.
    - A hold: the tokens that were to be read for it, as far as they were, at a 5m write less a read.
    - Shadow mode: the prompt split as decided. What the gateway knows of a prompt are estimates, so all
      tokens are scaled by the ratio of billed to estimated prompt.

    Where upstream reported several iterations, the first is the one that was planned; the others stay as
    billed. Where usage was presumed, not reported, nothing but `plain` and `paid` is said of it.
    """
    usage, cost, placement = exchange.usage, exchange.cost, exchange.placement
    cohort = cohort_of(exchange)
    if usage is None or cost is None or placement is None or cohort is None:
        return None
    fixed = cost.output_nanousd + cost.server_tools_nanousd
    paid = cost.total_nanousd - fixed
    shadow = paid if cohort is Cohort.SHADOW else None
    cause: MissCause | None = None
    read = miss = lost = held = kept = 0
    first = usage.iterations[0] if usage.iterations else usage
    if exchange.basis is not Basis.ESTIMATED and first.prompt_tokens:
        scale = _Scale(first.prompt_tokens, placement.prompt_tokens)
        read = scale(placement.read_tokens)
        held = min(scale(exchange.hold.tokens), first.cache_read_tokens)
        if cohort is not Cohort.HOLDOUT:
            cause, miss = _missed(placement, first, scale)
        if miss:
            lost = cost.total_nanousd - _bill(exchange, usage, _read_too(first, miss), prices)
        if held:
            kept = _bill(exchange, usage, _written_instead(first, held), prices) - cost.total_nanousd
        if shadow is not None:
            shadow = _bill(exchange, usage, _as_decided(first, placement, scale), prices) - fixed
    return Savings(
        cohort=cohort,
        plain_nanousd=cost.counterfactual_nanousd - fixed,
        paid_nanousd=paid,
        shadow_nanousd=shadow,
        expected_read_tokens=read,
        miss_cause=cause,
        miss_tokens=miss,
        miss_nanousd=lost,
        held_tokens=held,
        held_saved_nanousd=kept,
    )


class _Scale:
    """From the gateway's estimates of one prompt's tokens to the tokens that were billed. Never more than
    the whole prompt; one to one where the estimate of the whole is not known."""

    __slots__ = ("_billed", "_estimated")

    def __init__(self, billed: int, estimated: int) -> None:
        self._billed = billed
        self._estimated = estimated or billed

    def __call__(self, tokens: int) -> int:
        return min(self._billed, tokens * self._billed // self._estimated)


def _missed(placement: Placement, first: Usage, scale: _Scale) -> tuple[MissCause | None, int]:
    """The cause and the tokens of a miss that came true; (None, 0) where all was read after all. What lies
    below the model's minimum can be read by nobody: it has a cause, and no tokens that were lost."""
    miss = placement.miss
    if miss is None:
        return None, 0
    if miss.cause is MissCause.BELOW_MINIMUM:
        return miss.cause, 0
    end = scale(placement.read_tokens + miss.tokens)
    tokens = max(0, min(end - first.cache_read_tokens, scale(miss.tokens)))
    return (miss.cause, tokens) if tokens else (None, 0)


def _read_too(part: Usage, tokens: int) -> Usage:
    """The same prompt, had so many tokens behind what was read been read as well."""
    write_1h = min(tokens, part.cache_write_1h_tokens)
    write_5m = min(tokens - write_1h, part.cache_write_5m_tokens)
    return replace(
        part,
        cache_read_tokens=part.cache_read_tokens + tokens,
        cache_write_1h_tokens=part.cache_write_1h_tokens - write_1h,
        cache_write_5m_tokens=part.cache_write_5m_tokens - write_5m,
        uncached_input_tokens=part.uncached_input_tokens - (tokens - write_1h - write_5m),
    )


def _written_instead(part: Usage, tokens: int) -> Usage:
    """The same prompt, had so many of the tokens that were read been written, for 5 minutes: the least."""
    return replace(
        part,
        cache_read_tokens=part.cache_read_tokens - tokens,
        cache_write_5m_tokens=part.cache_write_5m_tokens + tokens,
    )


def _as_decided(part: Usage, placement: Placement, scale: _Scale) -> Usage:
    """The same prompt, split as the placement expected."""
    read_end = scale(placement.read_tokens)
    hour_end = scale(placement.read_tokens + placement.write_1h_tokens)
    write_end = scale(placement.read_tokens + placement.write_1h_tokens + placement.write_5m_tokens)
    return replace(
        part,
        cache_read_tokens=read_end,
        cache_write_1h_tokens=hour_end - read_end,
        cache_write_5m_tokens=write_end - hour_end,
        uncached_input_tokens=part.prompt_tokens - write_end,
    )


def _bill(exchange: Exchange, usage: Usage, first: Usage, prices: PriceTable) -> int:
    """The whole of `usage` in nano-dollars, had its first prompt been billed as `first`; priced as
    `settlement.py` prices the exchange itself."""
    usage = replace(usage, iterations=(first, *usage.iterations[1:])) if usage.iterations else first
    cost = prices.cost(usage, model=exchange.model, at=exchange.received_at, report=exchange.report)
    return cost.total_nanousd
