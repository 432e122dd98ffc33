"""What must hold of savings whatever was billed and whatever was expected of it."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.exchange import Basis, Exchange, Hold
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL
from gateway.core.savings import Cohort, Savings, reckon_savings
from gateway.core.usage import Usage
from tests.property.test_money import COUNT, MODELS, TIMES, naive, usages
from tests.support.prices import price_table

PLACEMENTS = st.builds(
    lambda **values: Placement(**values),  # noqa: PLW0108 - whose annotations name what is not imported
    breakpoints=st.sampled_from([(), (Breakpoint(0, TTL.FIVE_MINUTES, ""),)]),
    prompt_tokens=COUNT,
    read_tokens=COUNT,
    write_5m_tokens=COUNT,
    write_1h_tokens=COUNT,
    miss=st.none() | st.builds(Miss, st.just(0), st.sampled_from(MissCause), COUNT),
    holdout=st.booleans(),
)
INPUT_KINDS = (
    "uncached_input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
)
EXCHANGES = st.builds(
    lambda usage, **values: Exchange(
        id="e", endpoint="messages", method="POST", started=0.0, usage=usage, **values
    ),
    usages(),
    received_at=TIMES,
    model=MODELS,
    placement=PLACEMENTS,
    placement_applied=st.booleans(),
    client_marks=st.integers(0, 4),
    basis=st.sampled_from([Basis.REPORTED, Basis.PARTIAL, Basis.ESTIMATED]),
    hold=st.builds(Hold, st.floats(0, 9), COUNT),
)


def reckoned(exchange: Exchange) -> Savings:
    assert exchange.usage is not None
    exchange.cost = price_table().cost(exchange.usage, model=exchange.model, at=exchange.received_at)
    savings = reckon_savings(exchange, price_table())
    assert savings is not None
    return savings


def bare(usage: Usage) -> Usage:
    """The same prompts without any caching."""
    return replace(
        usage,
        uncached_input_tokens=usage.prompt_tokens,
        cache_read_tokens=0,
        cache_write_5m_tokens=0,
        cache_write_1h_tokens=0,
        iterations=tuple(bare(part) for part in usage.iterations),
    )


@given(EXCHANGES)
def test_saved_is_the_price_without_caching_less_the_price_paid(exchange: Exchange) -> None:
    """By the slow pricer, straight from the price file: both to the nano-dollar."""
    savings = reckoned(exchange)
    assert exchange.usage is not None
    assert exchange.cost is not None
    assert exchange.model is not None

    without = ceil(naive(bare(exchange.usage), exchange.model, exchange.received_at, False))
    paid = ceil(naive(exchange.usage, exchange.model, exchange.received_at, False))
    assert savings.plain_nanousd - savings.paid_nanousd == without - paid
    fixed = exchange.cost.output_nanousd + exchange.cost.server_tools_nanousd
    assert savings.paid_nanousd + fixed == exchange.cost.total_nanousd


@given(st.lists(EXCHANGES, max_size=12))
def test_sums_over_cohorts_equal_the_inputs_bill(exchanges: list[Exchange]) -> None:
    by_cohort = dict.fromkeys(Cohort, 0)
    for exchange in exchanges:
        savings = reckoned(exchange)
        by_cohort[savings.cohort] += savings.paid_nanousd

    costs = [exchange.cost for exchange in exchanges if exchange.cost is not None]
    assert sum(by_cohort.values()) == sum(
        cost.uncached_input_nanousd
        + cost.cache_read_nanousd
        + cost.cache_write_5m_nanousd
        + cost.cache_write_1h_nanousd
        for cost in costs
    )


def first_of(usage: Usage) -> Usage:
    """The prompt that was planned."""
    return usage.iterations[0] if usage.iterations else usage


def bill_with(exchange: Exchange, kind: str) -> int:
    """The whole bill, had all of the planned prompt been of one kind."""
    usage = exchange.usage
    assert usage is not None
    first = first_of(usage)
    nothing = dict.fromkeys(INPUT_KINDS, 0)
    moved = replace(first, **(nothing | {kind: first.prompt_tokens}))
    usage = replace(usage, iterations=(moved, *usage.iterations[1:])) if usage.iterations else moved
    return price_table().cost(usage, model=exchange.model, at=exchange.received_at).total_nanousd


@given(EXCHANGES)
def test_a_loss_is_at_most_what_was_not_read_cost_above_reads(exchange: Exchange) -> None:
    savings = reckoned(exchange)
    assert exchange.usage is not None
    assert exchange.cost is not None
    first = first_of(exchange.usage)

    least = bill_with(exchange, "cache_read_tokens")
    assert 0 <= savings.miss_nanousd <= exchange.cost.total_nanousd - least
    assert 0 <= savings.miss_tokens <= first.prompt_tokens - first.cache_read_tokens
    assert savings.miss_tokens == 0 or savings.miss_cause is not None


@given(EXCHANGES)
def test_what_holding_saved_was_really_read(exchange: Exchange) -> None:
    savings = reckoned(exchange)
    assert exchange.usage is not None

    assert 0 <= savings.held_tokens <= first_of(exchange.usage).cache_read_tokens
    assert (savings.held_saved_nanousd > 0) == (savings.held_tokens > 0)


@given(EXCHANGES)
def test_a_shadow_lies_between_reading_all_and_writing_all_of_the_prompt(exchange: Exchange) -> None:
    savings = reckoned(exchange)
    assert exchange.cost is not None
    fixed = exchange.cost.output_nanousd + exchange.cost.server_tools_nanousd

    assert (savings.shadow_nanousd is not None) == (savings.cohort is Cohort.SHADOW)
    if savings.shadow_nanousd is not None:
        least, most = (bill_with(exchange, kind) for kind in ("cache_read_tokens", "cache_write_1h_tokens"))
        assert least <= savings.shadow_nanousd + fixed <= most
