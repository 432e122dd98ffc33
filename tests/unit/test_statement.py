"""The lines of a statement sum to what was spent, and nobody's spend is on another's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ledger import SUMMED, Dimension, Tag, Total
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.month_end import MonthEnd
from gateway.core.statement import month_budgets, statements

_totals = st.lists(
    st.builds(
        lambda name, model, values: Total(group=(name, model), **dict(zip(SUMMED, values, strict=True))),
        st.sampled_from(["search", "chat", "-"]),
        st.sampled_from(["opus", "haiku"]),
        st.lists(st.integers(0, 2**60), min_size=len(SUMMED), max_size=len(SUMMED)),
    ),
    max_size=8,
)


@given(_totals)
def test_lines_sum_to_the_cost_and_statements_to_the_ledger(totals: list[Total]) -> None:
    found = statements(totals, {}, {})

    for each in found:
        assert sum(line.nanousd for line in each.lines) == each.total.cost_nanousd
        assert each.total.cost_nanousd == sum(t.cost_nanousd for t in totals if t.group[0] == each.name)
    assert {each.name for each in found} == {total.group[0] for total in totals}


def test_a_statement_by_hand() -> None:
    opus = Total(
        group=("search", "opus"),
        requests=2,
        uncached_input_tokens=100,
        output_tokens=20,
        uncached_input_nanousd=1_000,
        output_nanousd=500,
        web_search_requests=3,
        server_tools_nanousd=600,
    )
    haiku = Total(group=("search", "haiku"), requests=1, cache_read_tokens=50, cache_read_nanousd=400)
    end = MonthEnd(spent_nanousd=2_500, forecast_nanousd=5_000, days_known=20)
    (each,) = statements([haiku, opus], {"search": 10_000, "chat": 1}, {"search": end})

    assert [(line.model, line.kind, line.quantity, line.unit, line.nanousd) for line in each.lines] == [
        ("opus", "uncached_input", 100, "Tokens", 1_000),
        ("opus", "web_search", 3, "Requests", 600),
        ("opus", "output", 20, "Tokens", 500),
        ("haiku", "cache_read", 50, "Tokens", 400),
    ]
    assert (each.total.requests, each.share, each.month_end) == (3, 0.25, end)


def test_without_a_budget_there_is_no_share() -> None:
    (each,) = statements([Total(group=("-", "opus"), output_nanousd=1)], {}, {})

    assert (each.budget_nanousd, each.share, each.month_end) == (None, None, None)


def test_the_budget_of_a_month_is_the_least_that_counts_all_models_of_one_alone() -> None:
    def limit(id: str, scope: Scope, amount: int, **more: Any) -> Limit:
        return Limit(
            id=id, scope=scope, unit=Unit.NANOUSD, amount=amount, period=Period.CALENDAR_MONTH, **more
        )

    limits = Limits(
        (
            limit("a", Scope.WORKSPACE, 90),
            limit("b", Scope.WORKSPACE, 40, models=("m",)),
            limit("c", Scope.WORKSPACE, 30, shared=True),
            limit("d", Scope.WORKSPACE, 70, subjects=("search",)),
            limit("e", Scope.ORGANISATION, 500),
            limit("f", Scope.TAG, 20, tag="x-cost-centre"),
        )
    )

    workspaces = month_budgets(limits, Dimension.WORKSPACE, ["search", "chat", "-"], {})
    assert workspaces == {"search": 70, "chat": 90}
    assert month_budgets(limits, Dimension.ORGANISATION, ["default"], {}) == {"default": 500}
    assert month_budgets(limits, Dimension.TEAM, ["t"], {}) == {}
    assert month_budgets(limits, Tag("x-cost-centre"), ["7"], {}) == {"7": 20}
