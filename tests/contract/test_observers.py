"""Observers are told of every exchange, never raise, never wait, and agree with each other on the money."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.access_log import AccessLog
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_queries import read_losses, read_totals
from gateway.adapters.prometheus import Metrics
from gateway.core.budget_reading import BudgetReading
from gateway.core.exchange import Basis, ExchangeRecord, State, Timings
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.ledger import Dimension
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Placement
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.savings import Cohort, Savings
from gateway.core.thresholds import Crossing
from gateway.core.usage import Report, Usage
from gateway.ports import Observer
from tests.support.records import a_record, a_refused_record

TOKEN_KINDS = ("uncached_input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
COST_KINDS = (*TOKEN_KINDS, "server_tools")
HOSTILE = 'evil\r\n{"status":200}\x1b[31m\x00\x85\u2028\u202e'

KINDS = [
    a_record(),
    a_refused_record(),
    a_record(state=State.CUT_BY_CLIENT, basis=Basis.PARTIAL, status=200),
    a_record(state=State.CUT_BY_CLIENT, status=0, usage=None, cost=None, report=None, placement=None),
    a_record(state=State.FAILED, basis=Basis.ESTIMATED, status=504, error_code="upstream_timeout"),
    a_record(status=529, upstream_error_type="overloaded_error", usage=None, cost=None),
    a_record(upstream_error_type="api_error"),
    a_record(upstream_error_type=HOSTILE, model=HOSTILE, upstream_request_id=HOSTILE, method=HOSTILE),
    a_record(placement=Placement(reason="too short"), plan_failed=True, store_degraded=True),
    a_record(binding_limit="l1", error_code="budget_exhausted", shadow_refusals=("l2", "l3"), status=429),
    a_record(report=Report(parse_errors=3), cost=Cost(output_nanousd=1, fallback=True)),
    a_record(timings=Timings(total_seconds=0.0)),
    a_record(model="\udc80", route=None),
    a_record(usage=Usage(iterations=(Usage(output_tokens=1), Usage(output_tokens=2)))),
    a_record(savings=None, timings=Timings(total_seconds=2.0, held_seconds=1.5)),
    a_record(savings=Savings(cohort=Cohort.WARMING, plain_nanousd=5, paid_nanousd=9)),
]


def _metrics(**settings: object) -> Metrics:
    known = {"claude-test-1": "claude-test-1", "claude-test-1-alias": "claude-test-1"}
    return Metrics(canonical=known.get, version="1.2.3", revision="abc", **settings)  # type: ignore[arg-type]


def _samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, page = metrics.render("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _value(metrics: Metrics, name: str, **labels: str) -> float:
    return _samples(metrics)[name, tuple(sorted(labels.items()))]


@pytest.fixture(params=["metrics", "ledger", "access log", "access log for people"])
def observer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Observer]:
    if request.param == "metrics":
        yield _metrics()
    elif request.param == "ledger":
        ledger = Ledger(tmp_path / "ledger.sqlite3")
        yield ledger
        ledger.close()
    else:
        fd = os.open(os.devnull, os.O_WRONLY)
        log = AccessLog(fd, human=request.param.endswith("people"))
        yield log
        log.close()
        os.close(fd)


@pytest.mark.parametrize("record", KINDS)
def test_takes_any_exchange_without_raising(observer: Observer, record: ExchangeRecord) -> None:
    observer.observe(record)


def test_observing_takes_microseconds(observer: Observer) -> None:
    """A generous bound: what it really takes is measured in the benchmarks. Seen: 4 to 10 µs."""
    record = a_record()
    observer.observe(record)
    start = time.thread_time()
    for _ in range(1000):
        observer.observe(record)

    assert (time.thread_time() - start) / 1000 < 200e-6


def test_metrics_and_ledger_agree_on_the_money_to_the_last_digit(tmp_path: Path) -> None:
    chance = random.Random(3)
    metrics, ledger = _metrics(), Ledger(tmp_path / "ledger.sqlite3")
    for n in range(400):
        record = _a_random_record(f"e{n}", chance)
        metrics.observe(record)
        ledger.observe(record)
    ledger.close()

    path, always = tmp_path / "ledger.sqlite3", {"start_ms": 0, "end_ms": 2**62}
    for total in read_totals(path, [Dimension.WORKSPACE], **always):
        labels = {"workspace": total.group[0], "model": "claude-test-1"}
        for kind in COST_KINDS:
            expected = getattr(total, f"{kind}_nanousd") / 10**9
            assert _value(metrics, "gateway_cost_usd_total", kind=kind, **labels) == expected, kind
        for kind in TOKEN_KINDS:
            expected = getattr(total, f"{kind}_tokens")
            assert _value(metrics, "gateway_tokens_total", kind=kind, **labels) == expected, kind
        shadow = _value(metrics, "gateway_shadow_input_usd_total", **labels)
        assert shadow == total.shadow_nanousd / 10**9
        saved = _value(metrics, "gateway_hold_saved_usd_total", workspace=total.group[0])
        assert saved == total.held_saved_nanousd / 10**9
    for total in read_totals(path, [Dimension.WORKSPACE, Dimension.COHORT], **always):
        labels = {"workspace": total.group[0], "model": "claude-test-1", "cohort": total.group[1]}
        assert _value(metrics, "gateway_input_plain_usd_total", **labels) == total.plain_nanousd / 10**9
        assert _value(metrics, "gateway_input_paid_usd_total", **labels) == total.paid_nanousd / 10**9
    for loss in read_losses(path, [Dimension.WORKSPACE], **always):
        labels = {"workspace": loss.group[0], "cause": loss.cause}
        assert _value(metrics, "gateway_cache_missed_tokens_total", **labels) == loss.tokens
        assert _value(metrics, "gateway_cache_lost_usd_total", **labels) == loss.nanousd / 10**9


def _a_random_record(id: str, chance: random.Random) -> ExchangeRecord:
    costs: dict[str, Any] = {f"{kind}_nanousd": chance.randrange(10**13) for kind in COST_KINDS}
    tokens: dict[str, Any] = {f"{kind}_tokens": chance.randrange(10**7) for kind in TOKEN_KINDS}
    cost = Cost(**costs, counterfactual_nanousd=chance.randrange(10**13))
    fixed = cost.output_nanousd + cost.server_tools_nanousd
    cohort = chance.choice([Cohort.PLACED, Cohort.HOLDOUT, Cohort.SHADOW])
    cause = chance.choice(list(MissCause))
    return a_record(
        id=id,
        model="claude-test-1",
        principal=Principal(
            workspace=WorkspaceId(chance.choice(["search", "chat"])), key_id=KeyId("k"), key_name="n"
        ),
        placement=Placement(miss=Miss(1, cause, 5)),
        usage=Usage(**tokens),
        cost=cost,
        savings=Savings(
            cohort=cohort,
            plain_nanousd=cost.counterfactual_nanousd - fixed,
            paid_nanousd=cost.total_nanousd - fixed,
            shadow_nanousd=chance.randrange(10**12) if cohort is Cohort.SHADOW else None,
            miss_cause=cause,
            miss_tokens=chance.randrange(1, 10**6),
            miss_nanousd=chance.randrange(10**12),
            held_tokens=5,
            held_saved_nanousd=chance.randrange(10**12),
        ),
        overrun_nanousd=chance.randrange(10**9),
    )


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (a_record(), "answered"),
        (a_record(status=529, upstream_error_type="overloaded_error"), "rejected"),
        (a_record(upstream_error_type="overloaded_error"), "stream_error"),
        (a_record(state=State.FAILED, status=502), "failed"),
        (a_record(state=State.CUT_BY_CLIENT), "cut_by_client"),
        (a_record(state=State.CUT_BY_UPSTREAM), "cut_by_upstream"),
        (a_record(state=State.REFUSED, status=429), "refused"),
    ],
)
def test_requests_are_counted_by_what_became_of_them(record: ExchangeRecord, outcome: str) -> None:
    metrics = _metrics()
    metrics.observe(record)

    labels = {"workspace": "search", "model": "claude-test-1", "endpoint": "messages", "outcome": outcome}
    assert _value(metrics, "gateway_requests_total", **labels) == 1


def test_a_refused_call_of_a_spent_limit_is_counted_for_that_limit() -> None:
    metrics = _metrics()
    metrics.observe(KINDS[9])

    assert _value(metrics, "gateway_budget_refusals_total", limit="l1") == 1
    assert _value(metrics, "gateway_shadow_refusals_total", limit="l2") == 1
    assert _value(metrics, "gateway_errors_total", code="budget_exhausted") == 1


def test_thresholds_are_counted_without_whose_they_are() -> None:
    """Values of tags come from clients, and are no labels."""
    metrics = _metrics()
    metrics.observe(a_record(crossed=(Crossing("day", "ann", 0.5), Crossing("day", "ben", 0.5))))

    assert _value(metrics, "gateway_budget_thresholds_crossed_total", limit="day", threshold="0.5") == 2


def test_each_reservation_is_counted_once_by_how_it_closed() -> None:
    metrics = _metrics()
    for basis in Basis:
        metrics.observe(a_record(basis=basis))
    metrics.observe(a_record(reservation=None))
    metrics.reservations_expired(2)

    found = {
        labels[0][1]: value
        for (name, labels), value in _samples(metrics).items()
        if name == "gateway_reservations_total"
    }
    settled = ("reported", "partial", "estimated", "unmetered", "pending", "presumed")
    assert found == {**dict.fromkeys(settled, 1), "released": 1, "expired": 2}


def test_models_of_clients_never_become_labels() -> None:
    metrics = _metrics()
    for n in range(10_000):
        metrics.observe(a_record(model=f"claude-made-up-{n}", upstream_error_type=f"made_up_{n}"))
    metrics.observe(a_record(model="claude-test-1-alias"))

    _, page = metrics.render("")
    assert b"made" not in page
    assert b"alias" not in page
    assert len(page) < 40_000


def test_more_label_sets_than_allowed_are_counted_as_other() -> None:
    metrics = Metrics(canonical=lambda model: model, version="1", max_label_sets=10)
    for n in range(25):
        metrics.observe(a_record(model=f"m{n}"))

    samples = _samples(metrics)
    requests = [labels for name, labels in samples if name == "gateway_requests_total"]
    assert len(requests) == 11
    labels = {"workspace": "other", "model": "other", "kind": "output"}
    assert _value(metrics, "gateway_tokens_total", **labels) == 15 * 300
    assert _value(metrics, "gateway_metrics_label_overflow_total", metric="gateway_tokens_total") == 15


def test_each_metric_is_bounded_by_itself() -> None:
    metrics = _metrics(max_label_sets=10)
    for n in range(25):
        metrics.observe(a_record(shadow_refusals=(f"limit-{n}",)))

    found = {
        labels[0][1]: value
        for (name, labels), value in _samples(metrics).items()
        if name == "gateway_shadow_refusals_total"
    }
    assert len(found) == 11
    assert found["other"] == 15
    metric = "gateway_shadow_refusals_total"
    assert _value(metrics, "gateway_metrics_label_overflow_total", metric=metric) == 15


def test_labels_can_be_dropped() -> None:
    metrics = _metrics(drop=frozenset({"workspace"}))
    metrics.observe(a_record())

    labels = {"workspace": "", "model": "claude-test-1", "kind": "output"}
    assert _value(metrics, "gateway_tokens_total", **labels) == 300
    assert b"search" not in metrics.render("")[1]


def test_the_page_comes_as_prometheus_asks_for_it() -> None:
    metrics = _metrics()
    metrics.observe(a_record())

    content_type, page = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith(b"# EOF\n")
    content_type, page = metrics.render("*/*")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"_created" not in page


def test_budgets_show_the_last_readings_only() -> None:
    metrics = _metrics()
    reading = BudgetReading(
        limit="monthly", workspace="search", unit="nanousd", amount=5 * 10**9, used=2 * 10**9, reset_at=17.0
    )
    metrics.budgets([reading, replace(reading, limit="rate", unit="requests", amount=60, used=1)])
    where = {"limit": "monthly", "workspace": "search"}

    assert _value(metrics, "gateway_budget_limit_usd", **where) == 5.0
    assert _value(metrics, "gateway_budget_used_usd", **where) == 2.0
    assert _value(metrics, "gateway_budget_reset_timestamp_seconds", **where) == 17.0
    assert _value(metrics, "gateway_budget_used_requests", limit="rate", workspace="search") == 1
    metrics.budgets([])
    assert not any(name.startswith("gateway_budget_used") for name, _ in _samples(metrics))


def test_what_is_no_exchange_has_instruments_too() -> None:
    metrics = _metrics()
    metrics.draining(True)
    metrics.config_reloaded(generation=3, at=1000.5)
    metrics.config_refused()
    metrics.keyring(12)
    metrics.store_operation("reserve", 0.002)
    metrics.store_error("reserve", "timeout")
    metrics.store_degraded(True)
    metrics.observer_failed("Ledger")
    metrics.event_loop_lag(0.004)
    metrics.pull("gateway_ledger_lag_seconds", lambda: 1.5)

    expected = {
        ("gateway_draining", ()): 1,
        ("gateway_config_generation", ()): 3,
        ("gateway_config_last_reload_success_timestamp_seconds", ()): 1000.5,
        ("gateway_config_reloads_total", (("result", "failure"),)): 1,
        ("gateway_config_reloads_total", (("result", "success"),)): 1,
        ("gateway_keys", ()): 12,
        ("gateway_store_operation_duration_seconds_count", (("operation", "reserve"),)): 1,
        ("gateway_store_errors_total", (("kind", "timeout"), ("operation", "reserve"))): 1,
        ("gateway_store_degraded", ()): 1,
        ("gateway_observer_failures_total", (("observer", "Ledger"),)): 1,
        ("gateway_event_loop_lag_seconds_count", ()): 1,
        ("gateway_ledger_lag_seconds", ()): 1.5,
    }
    samples = _samples(metrics)
    assert {key: samples.get(key) for key in expected} == expected
    with pytest.raises(KeyError):
        metrics.pull("gateway_made_up", lambda: 0)
