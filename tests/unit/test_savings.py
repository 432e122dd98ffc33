"""What caching saved one exchange, reckoned by hand. Prices of Opus 5.5 in nano-dollars a token: uncached
4,000; read 200; written 5,000 for 5 minutes, 8,000 for an hour; output 20,000."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.exchange import Basis, Exchange, Hold
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Breakpoint, Placement
from gateway.core.plan import UNPLACED
from gateway.core.principal import Principal, warming_principal
from gateway.core.prompt import TTL
from gateway.core.savings import Cohort, Savings, cohort_of, reckon_savings
from gateway.core.usage import Report, Usage
from tests.support.prices import NOW, price_table

SEARCH = WorkspaceId("search")
CALLER = Principal(workspace=SEARCH, key_id=KeyId("k1"), key_name="warming")
MARK = Breakpoint(0, TTL.FIVE_MINUTES, "")
USAGE = Usage(
    uncached_input_tokens=100,
    cache_read_tokens=6_000,
    cache_write_5m_tokens=3_000,
    cache_write_1h_tokens=900,
    output_tokens=50,
)
PAID = 100 * 4_000 + 6_000 * 200 + 3_000 * 5_000 + 900 * 8_000
PLAIN = 10_000 * 4_000


def an_exchange(
    placement: Placement | None = None, usage: Usage | None = USAGE, **changes: object
) -> Exchange:
    """Billed as `USAGE`, placed by the gateway."""
    values: dict[str, object] = {
        "principal": CALLER,
        "model": "claude-opus-5-5",
        "basis": Basis.REPORTED,
        "placement": placement or Placement(breakpoints=(MARK,)),
        "usage": usage,
    }
    exchange = Exchange(
        id="e1",
        endpoint="messages",
        method="POST",
        received_at=NOW,
        started=0.0,
        **(values | changes),  # type: ignore[arg-type]
    )
    if usage is not None:
        exchange.cost = price_table().cost(usage, model=exchange.model, at=NOW, report=exchange.report)
    return exchange


def savings_of(placement: Placement | None = None, usage: Usage | None = USAGE, **changes: object) -> Savings:
    savings = reckon_savings(an_exchange(placement, usage, **changes), price_table())
    assert savings is not None
    return savings


def test_plain_and_paid_are_the_input_without_and_with_caching() -> None:
    savings = savings_of()

    assert savings == Savings(cohort=Cohort.PLACED, plain_nanousd=PLAIN, paid_nanousd=PAID)
    assert savings.saved_nanousd == 16_200_000


def test_caching_that_is_not_read_lost_money() -> None:
    written = savings_of(usage=Usage(cache_write_5m_tokens=1_000, output_tokens=7))

    assert written.saved_nanousd == -1_000 * 1_000


def test_nothing_is_reckoned_where_nothing_was_billed() -> None:
    assert reckon_savings(an_exchange(usage=None), price_table()) is None
    unplanned = an_exchange()
    unplanned.placement = None
    assert reckon_savings(unplanned, price_table()) is None


@pytest.mark.parametrize(
    ("cohort", "changes"),
    [
        (Cohort.PLACED, {}),
        (Cohort.PLACED, {"client_marks": 2}),
        (Cohort.SHADOW, {"placement_applied": False}),
        (Cohort.SHADOW, {"placement_applied": False, "client_marks": 1}),
        (Cohort.CLIENT, {"placement": Placement(reason="hands off"), "client_marks": 1}),
        (Cohort.CLIENT, {"placement": UNPLACED, "client_marks": 1}),
        (Cohort.NONE, {"placement": Placement(reason="too short")}),
        (Cohort.OFF, {"placement": UNPLACED}),
        (Cohort.HOLDOUT, {"placement": Placement(holdout=True)}),
        (Cohort.WARMING, {"principal": warming_principal(SEARCH, "default")}),
    ],
)
def test_a_cohort_says_whose_breakpoints_went_out(cohort: Cohort, changes: dict[str, object]) -> None:
    exchange = an_exchange()
    for name, value in changes.items():
        setattr(exchange, name, value)

    assert cohort_of(exchange) is cohort
    assert cohort_of(exchange.record(1.0)) is cohort


def test_what_was_not_planned_has_no_cohort() -> None:
    refused, counted = an_exchange(), an_exchange()
    refused.placement = None
    counted.endpoint = "count_tokens"

    assert cohort_of(refused) is None
    assert cohort_of(counted) is None


def a_miss(tokens: int, cause: MissCause = MissCause.EXPIRED, **expected: int) -> Placement:
    return Placement(breakpoints=(MARK,), miss=Miss(4, cause, tokens), **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "lost"),
    [
        (500, 500 * 7_800),  # within what was written for an hour
        (900, 900 * 7_800),
        (1_400, 900 * 7_800 + 500 * 4_800),  # and some of what was written for five minutes
        (4_000, 900 * 7_800 + 3_000 * 4_800 + 100 * 3_800),  # all that was not read
    ],
)
def test_missed_tokens_cost_what_they_were_billed_above_a_read(tokens: int, lost: int) -> None:
    savings = savings_of(a_miss(tokens, read_tokens=6_000, prompt_tokens=10_000))

    assert (savings.miss_cause, savings.miss_tokens, savings.miss_nanousd) == (
        MissCause.EXPIRED,
        tokens,
        lost,
    )
    assert savings.expected_read_tokens == 6_000


def test_no_more_is_missed_than_was_not_read() -> None:
    savings = savings_of(a_miss(50_000, read_tokens=6_000, prompt_tokens=10_000))

    assert (savings.miss_tokens, savings.miss_nanousd) == (
        4_000,
        900 * 7_800 + 3_000 * 4_800 + 100 * 3_800,
    )


def test_what_was_read_after_all_was_not_missed() -> None:
    """The gateway's memory is of its own calls; others may have written."""
    partly = savings_of(a_miss(2_000, read_tokens=4_500, prompt_tokens=10_000))
    wholly = savings_of(a_miss(2_000, read_tokens=4_000, prompt_tokens=10_000))

    assert (partly.miss_cause, partly.miss_tokens, partly.miss_nanousd) == (
        MissCause.EXPIRED,
        500,
        500 * 7_800,
    )
    assert (wholly.miss_cause, wholly.miss_tokens, wholly.miss_nanousd) == (None, 0, 0)


def test_estimates_are_scaled_to_the_prompt_as_billed() -> None:
    """Estimated 8,000 tokens, billed 10,000."""
    savings = savings_of(a_miss(800, read_tokens=4_800, prompt_tokens=8_000))

    assert (savings.expected_read_tokens, savings.miss_tokens) == (6_000, 1_000)


def test_what_nobody_could_read_has_a_cause_and_costs_nothing() -> None:
    savings = savings_of(a_miss(800, MissCause.BELOW_MINIMUM))

    assert (savings.miss_cause, savings.miss_tokens, savings.miss_nanousd) == (
        MissCause.BELOW_MINIMUM,
        0,
        0,
    )


def test_what_is_held_out_misses_nothing() -> None:
    savings = savings_of(Placement(holdout=True, miss=Miss(4, MissCause.BEYOND_LOOKBACK, 500)))

    assert (savings.cohort, savings.miss_cause, savings.miss_nanousd) == (Cohort.HOLDOUT, None, 0)


@pytest.mark.parametrize(("held", "read"), [(4_000, 4_000), (9_000, 6_000)])
def test_holding_saves_a_write_less_a_read_of_what_was_read(held: int, read: int) -> None:
    savings = savings_of(hold=Hold(seconds=0.4, tokens=held))

    assert (savings.held_tokens, savings.held_saved_nanousd) == (read, read * 4_800)


def test_holding_in_vain_saves_nothing() -> None:
    savings = savings_of(usage=Usage(uncached_input_tokens=10_000), hold=Hold(seconds=0.4, tokens=9_000))

    assert (savings.held_tokens, savings.held_saved_nanousd) == (0, 0)


SHADOWED = Usage(uncached_input_tokens=10_000, output_tokens=50)


def test_shadow_mode_says_what_the_decision_would_have_cost() -> None:
    decided = Placement(
        breakpoints=(MARK,),
        prompt_tokens=5_000,
        read_tokens=2_000,
        write_1h_tokens=500,
        write_5m_tokens=1_000,
    )
    savings = savings_of(decided, SHADOWED, placement_applied=False)

    assert savings.cohort is Cohort.SHADOW
    assert savings.paid_nanousd == savings.plain_nanousd == 40_000_000
    assert savings.shadow_nanousd == 4_000 * 200 + 1_000 * 8_000 + 2_000 * 5_000 + 3_000 * 4_000


def test_only_shadow_mode_has_a_shadow() -> None:
    assert savings_of().shadow_nanousd is None


def test_what_was_guessed_is_not_divided_further() -> None:
    guessed = savings_of(
        a_miss(500, read_tokens=6_000), basis=Basis.ESTIMATED, hold=Hold(seconds=1.0, tokens=50)
    )
    shadow = savings_of(usage=SHADOWED, basis=Basis.ESTIMATED, placement_applied=False)

    assert guessed == Savings(cohort=Cohort.PLACED, plain_nanousd=PLAIN, paid_nanousd=PAID)
    assert shadow.shadow_nanousd == shadow.paid_nanousd


def test_of_several_iterations_the_first_was_planned() -> None:
    """A loop of the API's own tools: the second prompt reads what the first one wrote."""
    second = Usage(cache_read_tokens=10_000, uncached_input_tokens=500)
    usage = replace(USAGE, iterations=(USAGE, second))
    savings = savings_of(a_miss(500, read_tokens=6_000, prompt_tokens=10_000), usage)

    assert savings.paid_nanousd == PAID + 10_000 * 200 + 500 * 4_000
    assert (savings.miss_tokens, savings.miss_nanousd) == (500, 500 * 7_800)


def test_a_refusal_that_is_free_saved_and_lost_nothing() -> None:
    report = Report(stop_reason="refusal", refusal_category="cyber")
    savings = savings_of(a_miss(500, read_tokens=6_000), report=report)

    assert (savings.plain_nanousd, savings.paid_nanousd, savings.miss_nanousd) == (0, 0, 0)


def test_the_band_of_the_whole_prompt_prices_what_is_missed() -> None:
    """Haiku 5.5 above 100,000 tokens: 500 uncached, 50 read."""
    usage = Usage(uncached_input_tokens=100_001)
    missed = Placement(miss=Miss(0, MissCause.CHANGED, 1_000), prompt_tokens=100_001)
    savings = savings_of(missed, usage, model="claude-haiku-5-5")

    assert savings.miss_nanousd == 1_000 * 450
