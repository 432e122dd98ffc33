"""Sums over items that are booked together."""

from __future__ import annotations

from gateway.core.batch_shares import ShareSum, sorted_shares, total_cost, total_usage
from gateway.core.pricing import Cost
from gateway.core.usage import Usage


def a_sum(model: str, *nanousd: int) -> ShareSum:
    sums = ShareSum(model)
    for each in nanousd:
        sums.add(
            Usage(output_tokens=each, inference_geo="us"),
            Cost(output_nanousd=each, price_id=f"{model} price"),
        )
    return sums


def test_adds_items_under_the_names_of_the_first() -> None:
    share = a_sum("a", 1, 2).share()
    assert (share.items, share.usage.output_tokens, share.cost.total_nanousd) == (2, 3, 3)
    assert (share.usage.model, share.usage.inference_geo, share.cost.price_id) == ("a", "us", "a price")


def test_adds_what_is_billed_where_there_are_iterations() -> None:
    parts = (Usage(output_tokens=5), Usage(output_tokens=6))
    sums = ShareSum("a")
    sums.add(Usage(output_tokens=5, web_search_requests=2, iterations=parts), Cost())
    assert (sums.usage.output_tokens, sums.usage.web_search_requests) == (11, 2)


def test_totals_are_of_all_under_the_dearest_ones_price() -> None:
    shares = sorted_shares([a_sum("a", 1), a_sum("b", 5), a_sum("c", 1)])
    assert [share.model for share in shares] == ["b", "a", "c"]
    assert (total_cost(shares).total_nanousd, total_cost(shares).price_id) == (7, "b price")
    assert total_usage(shares).output_tokens == 7
    assert total_cost(()).total_nanousd == 0
