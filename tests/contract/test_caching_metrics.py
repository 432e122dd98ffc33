"""Metrics of what caching does: exact sums, closed sets of labels, and instruments for the rest."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.prometheus import Metrics
from gateway.core.exchange import ExchangeRecord, Timings
from gateway.core.ids import WorkspaceId
from gateway.core.misses import MissCause
from gateway.core.placement import Placement
from gateway.core.plan import UNPLACED
from gateway.core.pricing import Cost
from gateway.core.principal import warming_principal
from gateway.core.savings import Cohort, Savings
from tests.support.records import a_record, a_refused_record

MODEL = "claude-test-1"
PLACED = Savings(cohort=Cohort.PLACED, plain_nanousd=40_000_000_000, paid_nanousd=10_000_000_000)


def metrics_of(*records: ExchangeRecord, drop: frozenset[str] = frozenset()) -> Metrics:
    metrics = Metrics(canonical=lambda model: model, version="1", drop=drop)
    for record in records:
        metrics.observe(record)
    return metrics


def shown(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Values of one metric by its label values, in the order of label names."""
    _, page = metrics.render("text/plain")
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == name
    }


def test_savings_are_the_difference_of_two_metrics_by_cohort() -> None:
    lost = replace(PLACED, cohort=Cohort.HOLDOUT, paid_nanousd=41_000_000_000)
    metrics = metrics_of(a_record(savings=PLACED), a_record(savings=PLACED), a_record(savings=lost))

    plain, paid = (shown(metrics, f"gateway_input_{kind}_usd_total") for kind in ("plain", "paid"))
    assert plain == {("placed", MODEL, "search"): 80, ("holdout", MODEL, "search"): 40}
    assert paid == {("placed", MODEL, "search"): 20, ("holdout", MODEL, "search"): 41}


def test_a_miss_is_counted_in_tokens_and_dollars_by_its_cause() -> None:
    missed = replace(PLACED, miss_cause=MissCause.CHANGED, miss_tokens=7, miss_nanousd=3_000_000_000)
    below = replace(PLACED, miss_cause=MissCause.BELOW_MINIMUM)
    metrics = metrics_of(a_record(savings=missed), a_record(savings=missed), a_record(savings=below))

    assert shown(metrics, "gateway_cache_missed_tokens_total") == {("changed", "search"): 14}
    assert shown(metrics, "gateway_cache_lost_usd_total") == {("changed", "search"): 6}


@pytest.mark.parametrize(
    ("savings", "outcome"),
    [
        (replace(PLACED, held_tokens=5, held_saved_nanousd=2_000_000_000), "read"),
        (PLACED, "released"),
        (None, "released"),
    ],
)
def test_a_hold_was_read_for_or_released(savings: Savings | None, outcome: str) -> None:
    held = a_record(savings=savings, timings=Timings(total_seconds=3.0, held_seconds=1.5))
    metrics = metrics_of(held, a_record())

    assert shown(metrics, "gateway_hold_seconds_sum") == {(outcome,): 1.5}
    saved = {("search",): 2.0} if outcome == "read" else {}
    assert shown(metrics, "gateway_hold_saved_usd_total") == saved


def test_warm_ups_have_a_profit_and_a_loss() -> None:
    warming = replace(PLACED, cohort=Cohort.WARMING)
    caller = warming_principal(WorkspaceId("search"), "default")
    metrics = metrics_of(a_record(principal=caller, savings=warming, cost=Cost(cache_read_nanousd=10**9)))
    metrics.warm_up("search", "schedule", "warmed")
    metrics.warming_saved("search", 4 * 10**9)
    metrics.warming_saved("search", 10**9)

    assert shown(metrics, "gateway_warm_ups_total") == {("schedule", "warmed", "search"): 1}
    assert shown(metrics, "gateway_warming_cost_usd_total") == {("search",): 1}
    assert shown(metrics, "gateway_warming_saved_usd_total") == {("search",): 5}
    assert shown(metrics, "gateway_placements_total") == {("warming",): 1}


def test_planned_calls_are_counted_by_cohort_billed_or_not() -> None:
    metrics = metrics_of(
        a_record(),
        a_record(status=529, usage=None, cost=None, savings=None),
        a_record(placement_applied=False),
        a_record(placement=UNPLACED),
        a_record(placement=Placement(reason="too short"), client_marks=2),
        a_record(endpoint="count_tokens", placement=UNPLACED),
        a_refused_record(),
    )

    assert shown(metrics, "gateway_placements_total") == {
        ("placed",): 2,
        ("shadow",): 1,
        ("off",): 1,
        ("client",): 1,
    }


def test_a_workspace_that_is_dropped_is_dropped_everywhere() -> None:
    missed = replace(PLACED, miss_cause=MissCause.CHANGED, miss_tokens=7, held_tokens=5)
    metrics = metrics_of(a_record(savings=missed), drop=frozenset({"workspace"}))
    metrics.warm_up("search", "schedule", "warmed")
    metrics.warming_saved("search", 1)

    assert b"search" not in metrics.render("")[1]


def test_what_replicas_do_together_is_counted() -> None:
    metrics = metrics_of()
    metrics.peer_news("sent", 3)
    metrics.peer_claim("won")
    metrics.peer_failed("claim")
    metrics.pull("gateway_planner_prefixes", lambda: 12)
    metrics.pull("gateway_planner_trust", lambda: 0.9)
    metrics.pull("gateway_snapshot_age_seconds", lambda: 30.5)

    assert shown(metrics, "gateway_peer_news_total") == {("sent",): 3}
    assert shown(metrics, "gateway_peer_claims_total") == {("won",): 1}
    assert shown(metrics, "gateway_peer_failures_total") == {("claim",): 1}
    assert shown(metrics, "gateway_planner_prefixes") == {(): 12}
    assert shown(metrics, "gateway_planner_trust") == {(): 0.9}
    assert shown(metrics, "gateway_snapshot_age_seconds") == {(): 30.5}
