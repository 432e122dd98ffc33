"""Whether a workspace spends far more than it usually does at this hour of the week, or reads far less from
the cache than it did, and why. Pure, from sums of the ledger.

Usual is the median of the same hour in earlier weeks; how far off is still usual, the median of their
distances from it (MAD), which single odd weeks do not move. Why is told by splitting the difference into
factors of the hour's cost: requests, prompt tokens of a request, share of their price paid with caching, the
rest (output, server tools) of a request, and the price of a prompt token without caching. `variance.py`
splits a period's difference by model and kind of tokens; it does not know requests, and so cannot tell more
calls from larger prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from statistics import median
from typing import Final

from gateway.core.ledger import Total, add_up

WEEKS: Final = 8
"""Earlier weeks that are looked at."""
FEWEST_WEEKS: Final = 3
"""With fewer nothing is said."""
MAD_TO_DEVIATION: Final = 1.4826
"""By which a MAD becomes the standard deviation, of numbers that are spread normally."""
LEAST_SPREAD: Final = 0.1
"""Of the median: few weeks that were much alike do not make a tenth more unusual."""
FEWEST_PROMPT_TOKENS: Final = 20_000
"""Of which a share that is read from the cache says something."""


class Cause(StrEnum):
    REQUESTS = "more requests"
    PROMPTS = "larger prompts"
    CACHE = "less read from the cache"
    PRICES = "dearer models or prices"
    OUTPUT = "more output a request"


@dataclass(frozen=True, slots=True)
class Effect:
    """So much of the difference is due to one cause."""

    cause: Cause
    nanousd: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusual:
    """An hour that cost too much. Nano-dollars."""

    cost_nanousd: int
    usual_nanousd: int
    """The median."""
    limit_nanousd: int
    """Up to which it would have been called usual."""
    weeks: int
    effects: tuple[Effect, ...]
    """What made it dearer, the greatest first."""


def unusual(hour: Total, before: Sequence[Total], *, deviations: float, floor_nanousd: int) -> Unusual | None:
    """Judge one hour against the same hour of earlier weeks; None where it is as usual, where it is less than
    the floor above that, or where too few weeks are known. An hour that is not over yet may be judged: it can
    only become dearer."""
    if len(before) < FEWEST_WEEKS:
        return None
    costs = [each.cost_nanousd for each in before]
    usual = median(costs)
    mad = median(abs(cost - usual) for cost in costs)
    spread = max(mad * MAD_TO_DEVIATION, usual * LEAST_SPREAD)
    limit = round(usual + max(deviations * spread, floor_nanousd))
    if hour.cost_nanousd <= limit:
        return None
    return Unusual(
        cost_nanousd=hour.cost_nanousd,
        usual_nanousd=round(usual),
        limit_nanousd=limit,
        weeks=len(before),
        effects=effects(hour, before),
    )


def effects(hour: Total, before: Sequence[Total]) -> tuple[Effect, ...]:
    """The causes by which `hour` cost more than the mean of `before`, the greatest first; those by which it
    cost less are left out. The effects of all causes sum to the difference."""
    (usual,) = add_up(_ungrouped(each) for each in before) or (Total(),)
    then, now = _Factors(usual, len(before)), _Factors(hour, 1)
    if not then.requests or not now.requests:
        sentence = f"{float(now.requests):,.0f} requests, where there are none usually"
        return (Effect(Cause.REQUESTS, hour.cost_nanousd, sentence),) if now.requests else ()
    found = [
        Effect(
            Cause.REQUESTS,
            round((now.requests - then.requests) * then.cost),
            f"{float(now.requests):,.0f} requests in the hour, {float(then.requests):,.0f} usually",
        ),
        Effect(
            Cause.PROMPTS,
            round(now.requests * then.price * (now.prompt - then.prompt) * then.paid),
            f"{float(now.prompt):,.0f} tokens in a prompt, {float(then.prompt):,.0f} usually",
        ),
        Effect(
            Cause.CACHE,
            round(now.requests * then.price * now.prompt * (now.paid - then.paid)),
            f"{_percent(hour.cache_read_ratio)} of prompts read from the cache, "
            f"{_percent(usual.cache_read_ratio)} usually",
        ),
        Effect(
            Cause.PRICES,
            round(now.requests * (now.price - then.price) * (now.prompt * now.paid + now.rest)),
            f"caching apart, a prompt token costs {float(now.price / then.price):.1f} times the usual",
        ),
        Effect(
            Cause.OUTPUT,
            round(now.requests * then.price * (now.rest - then.rest)),
            f"output of a request costs as much as {float(now.rest):,.0f} tokens of a prompt, "
            f"{float(then.rest):,.0f} usually",
        ),
    ]
    return tuple(sorted((each for each in found if each.nanousd > 0), key=lambda each: -each.nanousd))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFall:
    """Less was read from the cache than before."""

    ratio: float
    before_ratio: float
    lost_nanousd: int
    """What the prompts would have cost less, had as much of their plain price been saved as before."""


def cache_fall(now: Total, before: Total, *, fall: float, floor_nanousd: int) -> CacheFall | None:
    """None where the share of prompt tokens that are read fell by less than `fall`, where that cost less than
    the floor, or where either side has too few prompts to say."""
    was, is_now = before.cache_read_ratio, now.cache_read_ratio
    if was is None or is_now is None:
        return None
    if min(before.prompt_tokens, now.prompt_tokens) < FEWEST_PROMPT_TOKENS or was - is_now < fall:
        return None
    if not before.plain_nanousd:
        return None
    as_before = Fraction(before.paid_nanousd, before.plain_nanousd) * now.plain_nanousd
    lost = round(now.paid_nanousd - as_before)
    if lost < max(floor_nanousd, 1):
        return None
    return CacheFall(ratio=is_now, before_ratio=was, lost_nanousd=lost)


class _Factors:
    """The factors of an hour's cost, exact: requests * price * (prompt * paid + rest). The rest is counted in
    prompt tokens, as a dearer model has dearer output as well."""

    __slots__ = ("cost", "paid", "price", "prompt", "requests", "rest")

    def __init__(self, total: Total, hours: int) -> None:
        answered = max(total.requests - total.refused, 0)
        self.requests = Fraction(answered, hours)
        each = max(answered, 1)
        self.prompt = Fraction(total.prompt_tokens, each)
        plain = total.plain_nanousd
        self.price = Fraction(plain, total.prompt_tokens) if plain and total.prompt_tokens else Fraction(1)
        self.paid = Fraction(total.paid_nanousd, plain) if plain else Fraction(0)
        self.rest = Fraction(total.cost_nanousd - total.paid_nanousd, each) / self.price
        self.cost = Fraction(total.cost_nanousd, each)


def _ungrouped(total: Total) -> Total:
    return replace(total, group=())


def _percent(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:.0%}"
