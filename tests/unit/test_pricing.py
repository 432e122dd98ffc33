"""Costs are exact, by what upstream reported; the prices are those of the shipped file."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.models import ModelNames
from gateway.core.pricing import PriceRow, PriceTable, Terms, cents, usd_per_million
from gateway.core.usage import Report, Usage, read_usage
from tests.support.prices import NOW, model_table, on, price_table
from tests.support.streams import usage

OPUS = {"uncached_input_tokens": 100, "cache_write_5m_tokens": 50_000, "cache_read_tokens": 150_000,
        "output_tokens": 1_000}  # fmt: skip


def total(model: str, at: float = NOW, **counts: Any) -> int:
    return price_table().cost(Usage(**counts), model=model, at=at).total_nanousd


def nanousd(dollars: str) -> int:
    exact = Fraction(dollars) * 10**9
    assert exact.denominator == 1
    return int(exact)


@pytest.mark.parametrize(
    ("model", "counts", "dollars"),
    [
        ("claude-opus-5-5", OPUS, "0.3004"),
        ("claude-opus-5-5", OPUS | {"service_tier": "batch"}, "0.1502"),
        ("claude-opus-5-5", OPUS | {"inference_geo": "us"}, "0.33044"),
        ("claude-opus-5-5", OPUS | {"inference_geo": "us", "service_tier": "batch"}, "0.16522"),
        ("claude-opus-5-5", OPUS | {"speed": "fast"}, "0.6008"),
        ("claude-haiku-5-5",
         {"uncached_input_tokens": 1_000, "cache_read_tokens": 99_000, "output_tokens": 500}, "0.00134"),
        ("claude-haiku-5-5",
         {"uncached_input_tokens": 1_001, "cache_read_tokens": 99_000, "output_tokens": 500}, "0.0067005"),
        ("claude-sonnet-5-5",
         {"cache_read_tokens": 10_000, "cache_write_1h_tokens": 20_000, "cache_write_5m_tokens": 15_000,
          "uncached_input_tokens": 200, "output_tokens": 300}, "0.1219"),
        ("claude-fable-5-2", {"uncached_input_tokens": 8, "cache_read_tokens": 100_000}, "0.020064"),
        ("claude-fable-5-2", {"uncached_input_tokens": 8, "cache_write_5m_tokens": 100_000}, "1.000064"),
        ("claude-opus-5-5", {"web_search_requests": 3}, "0.03"),
    ],
)  # fmt: skip
def test_prices_the_published_cases_exactly(model: str, counts: dict[str, Any], dollars: str) -> None:
    assert nanousd(dollars) == total(model, **counts)


def test_prices_a_hundred_requests_of_one_prefix_and_what_they_had_cost_without_a_cache() -> None:
    write = price_table().cost(Usage(cache_write_5m_tokens=100_000), model="claude-opus-4-7", at=NOW)
    read = price_table().cost(Usage(cache_read_tokens=100_000), model="claude-opus-4-7", at=NOW)

    assert nanousd("5.575") == write.total_nanousd + 99 * read.total_nanousd
    assert nanousd("50") == write.counterfactual_nanousd + 99 * read.counterfactual_nanousd


def test_trap_54_prices_by_model_and_date_and_band_and_speed_and_geography_and_tier() -> None:
    """Sonnet 5.5's reads halved on 2026-10-07."""
    read = {"cache_read_tokens": 1_000_000}

    assert nanousd("0.2") == total("claude-sonnet-5-5", on("2026-10-06"), **read)
    assert nanousd("0.1") == total("claude-sonnet-5-5", on("2026-10-07"), **read)
    assert nanousd("0.2") == total("claude-sonnet-5-5", on("2025-01-01"), **read)
    assert nanousd("0.01") == total("claude-haiku-5-5", cache_read_tokens=100_000) * 10
    assert nanousd("0.2") == total("claude-opus-5-5", inference_geo="global", **read)
    assert nanousd("0.2") == total("claude-opus-5-5", speed="standard", service_tier="standard", **read)


def test_trap_54_takes_the_model_that_answered_before_the_one_that_was_asked() -> None:
    """Never from the request alone."""
    used = Usage(output_tokens=1_000, model="claude-haiku-4-5-20251001")
    cost = price_table().cost(used, model="claude-opus-5-5", at=NOW)

    assert nanousd("0.005") == cost.total_nanousd
    assert cost.price_id.startswith("claude-haiku-4-5 ")


def test_reads_cost_a_different_share_of_input_by_model() -> None:
    """Conflict 3."""
    table = price_table()

    assert table.factors("claude-fable-5-2", at=NOW) == (0.025, 1.25, 2.0)
    assert table.factors("claude-opus-5-5", at=NOW) == (0.05, 1.25, 2.0)
    assert table.factors("claude-opus-4-8", at=NOW) == (0.1, 1.25, 2.0)


@pytest.mark.parametrize("model", [facts.id for facts in model_table().known()])
def test_writes_cost_five_quarters_and_double_for_every_model(model: str) -> None:
    for prompt_tokens in (0, 500_000):
        factors = price_table().factors(model, at=NOW, prompt_tokens=prompt_tokens)

        assert (factors.write_5m, factors.write_1h) == (1.25, 2.0)
        assert factors.read in (0.025, 0.05, 0.1)


@pytest.mark.parametrize(
    ("model", "dollars", "fallback"),
    [
        ("claude-opus-5-5", "0.4", False),  # the rule, not the $0.80 that some pages say
        ("claude-opus-5", "1.0", False),
        ("claude-opus-4-6", "0.5", False),  # runs standard, silently
        ("claude-fable-5-2", "0.4", True),  # no price was published
    ],
)
def test_fast_has_its_own_prices(model: str, dollars: str, fallback: bool) -> None:
    cost = price_table().cost(Usage(cache_read_tokens=1_000_000, speed="fast"), model=model, at=NOW)

    assert nanousd(dollars) == cost.total_nanousd
    assert fallback == cost.fallback


def test_geography_costs_nothing_more_before_the_models_that_have_it() -> None:
    assert total("claude-haiku-4-5", output_tokens=100) == total(
        "claude-haiku-4-5", output_tokens=100, inference_geo="us"
    )


def test_trap_55_bills_the_sum_over_all_iterations_each_by_its_model() -> None:
    """The totals above them are not billed: they leave some out."""
    used = read_usage(
        usage(30, 3, iterations=[
            {"type": "compaction", **usage(1_000, 100)},
            {"type": "message", **usage(30, 3)},
            {"type": "advisor_message", "model": "claude-fable-5-2", **usage(7, 70)},
        ]),
        model="claude-opus-5-5",
    )  # fmt: skip
    cost = price_table().cost(used, model=None, at=NOW)

    assert cost.uncached_input_nanousd == 1_030 * 4_000 + 7 * 8_000
    assert cost.output_nanousd == 103 * 20_000 + 70 * 40_000


def test_chooses_the_band_of_each_iteration_by_itself() -> None:
    """Conflict 10: not documented; decided so, to be compared with the invoice."""
    part = Usage(uncached_input_tokens=60_000)
    used = Usage(uncached_input_tokens=120_000, iterations=(part, part))

    assert nanousd("0.012") == price_table().cost(used, model="claude-haiku-5-5", at=NOW).total_nanousd


def test_trap_56_thinking_is_not_billed_on_top_of_output() -> None:
    plain = read_usage(usage(1, 500, write_5m=30, write_1h=70))
    detailed = read_usage(
        usage(1, 500, write_5m=30, write_1h=70, output_tokens_details={"thinking_tokens": 9})
    )
    table = price_table()

    assert table.cost(plain, model="claude-opus-5", at=NOW) == table.cost(
        detailed, model="claude-opus-5", at=NOW
    )


def test_trap_57_prices_writes_without_a_split_as_five_minutes() -> None:
    used = read_usage({"cache_creation_input_tokens": 1_000_000})
    cost = price_table().cost(used, model="claude-opus-5", at=NOW)

    assert nanousd("6.25") == cost.cache_write_5m_nanousd == cost.total_nanousd


@pytest.mark.parametrize(
    ("category", "day", "has_content", "free"),
    [
        ("cyber", "2026-11-22", False, True),
        (None, "2026-11-22", False, True),
        ("general_harms", "2026-11-22", False, True),
        ("bio", "2026-11-22", False, False),
        ("frontier_llm", "2026-09-24", False, False),
        ("reasoning_extraction", "2026-11-22", False, False),
        ("bio", "2026-09-23", False, True),
        ("cyber", "2026-11-22", True, False),
        ("cyber", "2026-09-23", True, False),
        ("bio", "2026-09-23", True, False),
    ],
)
def test_trap_58_bills_no_refusal_before_output_but_of_three_categories(
    category: str | None, day: str, has_content: bool, free: bool
) -> None:
    """Usage shows tokens for the free ones, too; also of output."""
    used = Usage(uncached_input_tokens=1_000, output_tokens=7)
    report = Report(usage=used, stop_reason="refusal", refusal_category=category, has_content=has_content)
    cost = price_table().cost(used, model="claude-opus-5-5", at=on(day), report=report)

    assert free == (cost.total_nanousd == 0)
    assert free == (cost.counterfactual_nanousd == 0)


def test_trap_59_counts_searches_apart_from_tokens_and_fetches_not_at_all() -> None:
    """Container hours and session hours are in no usage; they are not in these books."""
    used = Usage(web_search_requests=1, web_fetch_requests=9, code_execution_requests=9, service_tier="batch")
    cost = price_table().cost(used, model="claude-opus-5-5", at=NOW)

    assert nanousd("0.01") == cost.server_tools_nanousd == cost.total_nanousd


def test_trap_63_reports_are_in_cents_and_prices_in_dollars() -> None:
    """A slip is a factor of a hundred."""
    assert cents("30.04") == nanousd("0.3004")
    assert cents("0.00001") == 100
    assert usd_per_million("0.20") * 1_000_000 == nanousd("0.2")


@pytest.mark.parametrize("text", ["-1", "abc", "", "1/0", "1e3"])
def test_refuses_what_is_no_price(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        usd_per_million(text)


@pytest.mark.parametrize("model", ["claude-opus-6", "", None])
def test_prices_an_unknown_model_as_stated_and_says_so(model: str | None) -> None:
    cost = price_table().cost(Usage(output_tokens=1_000_000), model=model, at=NOW)

    assert cost.fallback
    assert nanousd("75") == cost.total_nanousd


def test_no_model_of_the_file_is_dearer_than_an_unknown_one() -> None:
    unknown = price_table()._fallback
    for listed in (row for rows in price_table()._rows.values() for row in rows):
        for kind in ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read"):
            assert getattr(listed, kind) <= getattr(unknown, kind), listed.id


def test_prices_by_the_model_asked_for_where_the_reported_name_is_unknown_and_says_so() -> None:
    used = Usage(output_tokens=1_000_000, model="prod-opus")
    asked = price_table().cost(used, model="claude-opus-5-5", at=NOW)
    named = price_table().cost(
        replace(used, model=None), model="claude-opus-5-5", at=NOW, report=Report(model="claude-haiku-4-5")
    )

    assert (nanousd("20"), True) == (asked.total_nanousd, asked.fallback)
    assert (nanousd("5"), False) == (named.total_nanousd, named.fallback)


def test_an_iteration_of_another_unknown_model_is_priced_as_stated() -> None:
    """An advisor may be dearer than the model that was asked for."""
    entries = [{"type": "message", **usage(0, 10**6)}, {"type": "advisor_message", **usage(0, 10**6)}]
    used = read_usage(usage(0, 0, iterations=entries), model="prod-opus")
    strange = replace(used, iterations=(used.iterations[0], replace(used.iterations[1], model="brand-new")))
    table = price_table()

    assert nanousd("40") == table.cost(used, model="claude-opus-5-5", at=NOW).total_nanousd
    assert nanousd("95") == table.cost(strange, model="claude-opus-5-5", at=NOW).total_nanousd


def row(**changes: Any) -> PriceRow:
    flat = dict.fromkeys(
        ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read"), Fraction(1, 3)
    )
    return PriceRow(**{"id": "r", "model": "m", **flat, **changes})


def table(*rows: PriceRow) -> PriceTable:
    return PriceTable(rows, terms=[Terms()], fallback=row(id="fallback"), names=ModelNames({"m": []}))


def test_rounds_up_once_and_gives_the_rest_to_the_largest_fractions() -> None:
    cost = table(row()).cost(
        Usage(uncached_input_tokens=5, cache_read_tokens=1, output_tokens=1), model="m", at=0
    )

    assert cost.total_nanousd == 3  # 7/3
    assert (cost.uncached_input_nanousd, cost.cache_read_nanousd, cost.output_nanousd) == (2, 1, 0)


def test_prices_by_the_last_row_after_its_end_and_says_so() -> None:
    old = row(until_at=10.0)

    assert not table(old).cost(Usage(output_tokens=3), model="m", at=9.0).fallback
    late = table(old).cost(Usage(output_tokens=3), model="m", at=10.0)
    assert (late.fallback, late.total_nanousd) == (True, 1)


@pytest.mark.parametrize(
    "rows",
    [
        (row(), row(id="again")),
        (row(up_to_prompt_tokens=5),),
        (row(up_to_prompt_tokens=5), row(up_to_prompt_tokens=5), row()),
        (row(up_to_prompt_tokens=5, until_at=9.0), row()),
    ],
)
def test_refuses_rows_that_contradict_each_other(rows: tuple[PriceRow, ...]) -> None:
    with pytest.raises(ValueError, match="r"):
        table(*rows)


def test_remembers_a_bounded_number_of_names() -> None:
    prices = table(row())
    for number in range(10_000):
        prices.cost(Usage(), model=f"made-up-{number}", at=NOW)

    assert len(prices._remembered) <= 4096


def test_every_price_of_the_file_is_reached_on_its_first_day() -> None:
    prices = price_table()
    for rows in prices._rows.values():
        for listed in rows:
            at = max(listed.from_at, 0.0)
            used = Usage(uncached_input_tokens=listed.up_to_prompt_tokens or 900_000, speed=listed.speed)

            assert listed.id == prices.cost(used, model=listed.model, at=at).price_id


def test_knows_the_sizes_at_which_a_price_changes_as_it_prices() -> None:
    table = price_table()
    (edge,) = table.edges("claude-haiku-5-5", at=NOW)
    at, above = (
        table.cost(Usage(uncached_input_tokens=tokens), model="claude-haiku-5-5", at=NOW).total_nanousd
        for tokens in (edge, edge + 1)
    )

    assert above > 4 * at
    assert table.edges("claude-opus-5-5", at=NOW) == ()
    assert table.edges("claude-opus-5-5", at=NOW, speed="fast") == ()
    assert table.edges("never heard of", at=NOW) == ()


def test_knows_where_running_costs_more() -> None:
    assert price_table().places(NOW) == {"us": Fraction(11, 10)}
