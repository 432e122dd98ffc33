"""Pages of several workers as one: no sample is lost or mixed up, and no counter of a worker goes down."""

from __future__ import annotations

import pytest

from gateway.web import merged_metrics
from gateway.web.merged_metrics import WorkersMetrics, labelled, parse

PAGE = """\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{model="a b",what="say \\"}\\""} 3.0
calls_total{model="c",what=""} 1.0
# HELP open Open now.
# TYPE open gauge
open 2.0
# HELP seconds How long.
# TYPE seconds histogram
seconds_bucket{le="1.0"} 3.0
seconds_bucket{le="+Inf"} 4.0
seconds_count 4.0
seconds_sum 5.5
"""
LATER = """\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{model="c",what=""} 2.0
# HELP open Open now.
# TYPE open gauge
open 1.0
# HELP seconds How long.
# TYPE seconds histogram
seconds_bucket{le="1.0"} 0.0
seconds_bucket{le="+Inf"} 1.0
seconds_count 1.0
seconds_sum 2.25
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture
def workers() -> WorkersMetrics:
    workers = WorkersMetrics()
    workers.began(0, 100)
    workers.began(1, 101)
    return workers


def test_each_sample_says_whose_it_is_and_each_metric_is_described_once(workers: WorkersMetrics) -> None:
    workers.read(0, 100, PAGE)
    workers.read(1, 101, LATER)
    text = workers.render({0, 1})

    assert lines(text)[:3] == [
        'calls_total{worker="0",model="a b",what="say \\"}\\""} 3.0',
        'calls_total{worker="0",model="c",what=""} 1.0',
        'calls_total{worker="1",model="c",what=""} 2.0',
    ]
    assert 'open{worker="0"} 2.0' in text
    assert 'open{worker="1"} 1.0' in text
    assert text.count("# TYPE calls_total counter") == text.count("# HELP calls_total Calls.") == 1


def test_a_successor_counts_on_where_the_dead_one_was_last_seen(workers: WorkersMetrics) -> None:
    workers.read(0, 100, PAGE)
    workers.began(0, 200)
    workers.read(0, 200, LATER)
    text = workers.render({0})

    assert 'calls_total{worker="0",model="c",what=""} 3.0' in text
    assert 'calls_total{worker="0",model="a b",what="say \\"}\\""} 3.0' in text
    assert 'seconds_bucket{worker="0",le="+Inf"} 5.0' in text
    assert 'seconds_sum{worker="0"} 7.75' in text
    assert 'open{worker="0"} 1.0' in text, "a gauge is of now"


def test_while_a_worker_is_away_its_counters_stay_and_its_gauges_go(workers: WorkersMetrics) -> None:
    workers.read(0, 100, PAGE)
    away = workers.render({1})
    workers.began(0, 200)
    between = workers.render(set())

    for text in (away, between):
        assert 'calls_total{worker="0",model="c",what=""} 1.0' in text
        assert "open{" not in text


def test_every_death_is_counted(workers: WorkersMetrics) -> None:
    for process in (200, 300, 400):
        workers.began(0, process)
        workers.read(0, process, LATER)

    assert 'calls_total{worker="0",model="c",what=""} 6.0' in workers.render({0})


def test_a_page_that_comes_after_its_process_was_replaced_is_not_counted(workers: WorkersMetrics) -> None:
    workers.read(0, 100, LATER)
    workers.began(0, 200)
    workers.read(0, 100, PAGE)

    assert 'calls_total{worker="0",model="c",what=""} 2.0' in workers.render({0})


def test_a_page_whose_process_is_replaced_while_it_is_parsed_is_not_counted_twice(
    workers: WorkersMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are parsed in a thread; the loop notices a death meanwhile."""
    workers.read(0, 100, LATER)

    def slow(text: str) -> merged_metrics.Page:
        workers.began(0, 200)
        return parse(text)

    monkeypatch.setattr(merged_metrics, "parse", slow)
    workers.read(0, 100, LATER)

    assert 'calls_total{worker="0",model="c",what=""} 2.0' in workers.render({0})


def test_openmetrics_keeps_exemplars_and_shares_counts_with_the_text_format(workers: WorkersMetrics) -> None:
    workers.read(0, 100, LATER)
    workers.began(0, 200)
    open_metrics = LATER.replace("calls_total Calls", "calls Calls").replace("TYPE calls_total", "TYPE calls")
    exemplar = ' # {trace_id="ab"} 0.5 1.0'
    workers.read(0, 200, open_metrics.replace('le="+Inf"} 1.0', f'le="+Inf"}} 1.0{exemplar}') + "# EOF\n")
    text = workers.render({0})

    assert f'seconds_bucket{{worker="0",le="+Inf"}} 2.0{exemplar}' in text
    assert 'calls_total{worker="0",model="c",what=""} 4.0' in text
    assert "# TYPE calls counter" in text
    assert "EOF" not in text


def test_samples_without_labels_and_with_empty_ones_get_the_label_alone() -> None:
    assert labelled("up", 3) == labelled("up{}", 3) == 'up{worker="3"}'


def test_what_is_no_sample_is_left_out() -> None:
    assert parse("nonsense\n\n# a comment\n") == {}
