"""Observers are told of every exchange, never raise, never wait, and agree with each other on the money."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.access_log import MAX_TEXT, AccessLog
from gateway.adapters.batch_writer import BatchWriter
from gateway.adapters.ledger import Ledger, read_totals
from gateway.adapters.prometheus import Metrics
from gateway.core.budget_reading import BudgetReading
from gateway.core.exchange import Basis, ExchangeRecord, State, Timings
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.ledger import Dimension
from gateway.core.placement import Placement
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.usage import Report, Usage
from gateway.ports import Observer
from tests.support.records import a_record, a_refused_record

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


def _log_lines(records: list[ExchangeRecord], *, human: bool = False) -> list[bytes]:
    read, write = os.pipe()
    try:
        log = AccessLog(write, human=human)
        for record in records:
            log.observe(record)
        assert log.close() == 0
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as stream:
        return stream.read().splitlines()


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
        record = a_record(
            id=f"e{n}",
            model="claude-test-1",
            principal=Principal(
                workspace=WorkspaceId(chance.choice(["search", "chat"])), key_id=KeyId("k"), key_name="n"
            ),
            cost=Cost(
                output_nanousd=chance.randrange(10**13),
                cache_read_nanousd=chance.randrange(10**5),
                counterfactual_nanousd=chance.randrange(10**13),
            ),
        )
        metrics.observe(record)
        ledger.observe(record)
    ledger.close()

    for total in read_totals(tmp_path / "ledger.sqlite3", [Dimension.WORKSPACE], start_ms=0, end_ms=2**62):
        labels = {"workspace": total.group[0], "model": "claude-test-1"}
        cost, tokens = "gateway_cost_usd_total", "gateway_tokens_total"
        assert _value(metrics, cost, kind="output", **labels) == total.output_nanousd / 10**9
        assert _value(metrics, cost, kind="cache_read", **labels) == total.cache_read_nanousd / 10**9
        assert _value(metrics, tokens, kind="cache_read", **labels) == total.cache_read_tokens
        counterfactual = _value(metrics, "gateway_counterfactual_cost_usd_total", **labels)
        assert counterfactual == total.counterfactual_nanousd / 10**9


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
    assert found == {"reported": 1, "partial": 1, "estimated": 1, "released": 1, "expired": 2}


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
    metrics.plan_failed()
    metrics.observer_failed("Ledger")
    metrics.fallback_priced()
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
        ("gateway_plan_failures_total", ()): 1,
        ("gateway_observer_failures_total", (("observer", "Ledger"),)): 1,
        ("gateway_fallback_prices_total", ()): 1,
        ("gateway_event_loop_lag_seconds_count", ()): 1,
        ("gateway_ledger_lag_seconds", ()): 1.5,
    }
    samples = _samples(metrics)
    assert {key: samples.get(key) for key in expected} == expected
    with pytest.raises(KeyError):
        metrics.pull("gateway_made_up", lambda: 0)


def test_an_exchange_is_one_line_of_json_whatever_its_texts_hold() -> None:
    (line,) = _log_lines([KINDS[7]])
    fields = json.loads(line)

    assert all(0x20 <= byte < 0x7F for byte in line)
    assert fields["status"] == 200
    assert fields["model"].startswith("evil\\r\\n")
    (long,) = _log_lines([a_record(model="m" * 100_000)])
    assert len(json.loads(long)["model"]) == MAX_TEXT


def test_a_line_for_people_cannot_act_on_their_terminal() -> None:
    (line,) = _log_lines([KINDS[7]], human=True)

    assert line.decode().isprintable()
    assert b" 200 messages search evil" in line


def test_the_log_holds_what_is_on_its_list_and_nothing_else() -> None:
    canary = "canary-7f3a"
    record = a_record(
        principal=Principal(workspace=WorkspaceId("search"), key_id=KeyId("k1"), key_name=canary),
        tags=(("ticket", canary),),
        placement=Placement(reason=canary),
        report=Report(message_id=canary, stop_reason=canary),
    )
    for human in (False, True):
        (line,) = _log_lines([record], human=human)
        assert canary.encode() not in line

    fields = json.loads(_log_lines([record])[0])
    assert fields["cost_nanousd"] == 10_875_001
    assert fields["at"] == "2026-11-18T11:06:40.250Z"
    assert (fields["workspace"], fields["key_id"], fields["endpoint"]) == ("search", "k1", "messages")


def test_a_log_that_nobody_reads_drops_lines_counts_them_and_blocks_nobody() -> None:
    read, write = os.pipe()  # holds 64 kB
    log = AccessLog(write, human=False, limit=100)
    start = time.monotonic()
    for _ in range(3000):
        log.observe(a_record())
    assert log.dropped > 2000
    assert time.monotonic() - start < 5

    lines: list[bytes] = []
    with os.fdopen(read, "rb") as stream:
        reader = threading.Thread(target=lambda: lines.extend(stream))
        reader.start()
        assert log.close(5) == 0
        os.close(write)
        reader.join(5)
    assert len(lines) + log.dropped == 3000
    assert all(json.loads(line) for line in lines)


def test_a_log_whose_reader_went_away_counts_what_is_lost() -> None:
    read, write = os.pipe()
    os.close(read)
    log = AccessLog(write, human=False)
    log.observe(a_record())
    log.close()
    os.close(write)

    assert log.dropped == 1


def test_a_writer_keeps_order_and_tries_again_what_failed() -> None:
    written: list[int] = []
    failing = [True, True, False]

    def write(items: list[int]) -> None:
        if failing and failing.pop(0):
            raise OSError("not now")
        written.extend(items)

    writer = BatchWriter(write, name="test", limit=1000, linger_seconds=0.0)
    for n in range(500):
        assert writer.put(n)

    assert writer.close(5) == []
    assert written == list(range(500))
    assert writer.failures == 2
    assert not writer.put(501), "it is closed"


def test_a_writer_that_hangs_does_not_keep_its_owner() -> None:
    hanging = threading.Event()

    def write(items: list[int]) -> None:
        hanging.wait(30)

    writer = BatchWriter(write, name="test", limit=10, linger_seconds=0.0)
    taken = [n for n in range(40) if writer.put(n)]
    start = time.monotonic()
    left = writer.close(0.1)

    assert time.monotonic() - start < 5
    assert left == taken
    assert len(taken) <= 22
    hanging.set()
