"""Rows, advice and the chart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gateway.core.news import Billed
from gateway.core.planner import Prices
from gateway.replay.chart import chart
from gateway.replay.play import POLICIES, Choice, play, together
from gateway.replay.report import Report, show_cost
from gateway.replay.trace import Span, TraceError, TraceFile
from tests.unit.replay.test_trace import a_recording
from tests.unit.replay.test_verify import recorded
from tests.unit.replay.workloads import one_shot, public_rows, support, write_trace


def report_on_public(tmp_path: Path, rows: object = None, **choice: object) -> Report:
    path = write_trace(tmp_path / "t.gz", public_rows(support()) if rows is None else rows)  # type: ignore[arg-type]
    return play([TraceFile(path)], Choice(**choice), lambda count: None)  # type: ignore[arg-type]


def test_the_cheapest_fixed_rule_is_marked_and_advised(tmp_path: Path) -> None:
    report = report_on_public(tmp_path)
    fixed = [row for row in report.rows if row.name != "learned"]
    best = min(fixed, key=lambda row: row.cost)

    assert [row.name for row in report.rows if row.best_fixed] == [best.name]
    assert any(f"`{best.name}`" in sentence for sentence in report.advice)
    assert any("`learned` costs" in sentence and "less than none" in sentence for sentence in report.advice)
    assert all(row.of_bound is not None and row.of_bound >= 1.0 for row in report.rows)


def test_where_nothing_is_read_again_the_advice_says_so(tmp_path: Path) -> None:
    report = report_on_public(tmp_path, public_rows(one_shot()))

    assert "more than none" in report.advice[0]
    assert "not to cache is the best" in report.advice[1]
    assert next(row for row in report.rows if row.name == "none").best_fixed


def test_only_what_is_asked_for_is_shown(tmp_path: Path) -> None:
    report = report_on_public(tmp_path, policies=("automatic-5m",))

    assert [row.name for row in report.rows] == ["automatic-5m"]
    assert report.rows[0].saved > 0.5
    assert len(report.advice) == 1


def test_a_public_trace_does_not_say_what_was_sent(tmp_path: Path) -> None:
    assert "recorded" not in [row.name for row in report_on_public(tmp_path).rows]


def test_a_span_leaves_the_rest_out(tmp_path: Path) -> None:
    whole = report_on_public(tmp_path)
    part = report_on_public(tmp_path, span=Span(600.0, 1_200.0))

    assert 0 < part.requests < whole.requests
    assert part.seconds <= 600.0
    with pytest.raises(TraceError, match="holds no request"):
        report_on_public(tmp_path, span=Span(1e6))


def test_other_prices_are_for_traces_without_a_model(tmp_path: Path) -> None:
    dear = report_on_public(tmp_path, prices=Prices(read=0.1))
    cheap = report_on_public(tmp_path, prices=Prices(read=0.025))

    assert cheap.rows[1].cost < dear.rows[1].cost
    assert cheap.rows[0].cost == dear.rows[0].cost


def test_a_recording_is_in_dollars_and_close_to_its_usage_reports(tmp_path: Path) -> None:
    """The same cache rules on estimated block lengths: what was sent comes out as it was billed, nearly."""
    file = a_recording(tmp_path / "r.gz", recorded(tmp_path, support()))
    replay_report = play([file], Choice(), lambda count: None)
    rows = {row.name: row for row in replay_report.rows}

    assert replay_report.in_dollars
    assert set(rows) == set(POLICIES)
    assert replay_report.output_usd > 0.0
    (note,) = replay_report.notes
    off_by = float(note.rpartition("(")[2].rstrip("%)."))
    assert abs(off_by) < 3.0
    assert rows["recorded"].cost < rows["none"].cost


def test_prompts_are_as_long_as_upstream_reported(tmp_path: Path) -> None:
    """What no caching costs is exact, whatever the gateway had estimated."""
    news = recorded(tmp_path, one_shot(requests=9))
    report = play([a_recording(tmp_path / "r.gz", news)], Choice(), lambda count: None)
    totals = [
        one.uncached + one.read + one.write_5m + one.write_1h for one in news if isinstance(one, Billed)
    ]
    none = next(row for row in report.rows if row.name == "none")

    assert report.prompt_tokens == sum(totals)
    assert none.cost == pytest.approx(sum(totals) * 4.0 / 1e6)  # Opus 5.5


def test_workspaces_are_told_apart(tmp_path: Path) -> None:
    file = a_recording(tmp_path / "r.gz", recorded(tmp_path, support(sessions=3)))

    assert play([file], Choice(workspaces=("demo",)), lambda count: None).requests == 15
    with pytest.raises(TraceError, match="holds no request"):
        play([file], Choice(workspaces=("other",)), lambda count: None)


def test_recordings_count_as_one_and_public_traces_each_for_itself(tmp_path: Path) -> None:
    recordings = [a_recording(tmp_path / f"{number}.gz", []) for number in range(2)]
    public = [
        TraceFile(write_trace(tmp_path / f"p{number}.gz", public_rows(support()))) for number in range(2)
    ]

    assert together([public[0], *recordings, public[1]]) == [recordings, [public[0]], [public[1]]]


def test_a_recording_that_was_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.gz"
    a_recording(path, recorded(tmp_path, support(sessions=2)))
    path.write_bytes(path.read_bytes()[:-5])

    assert any(
        "ends in the middle" in note for note in play([TraceFile(path)], Choice(), lambda count: None).notes
    )


def test_json_has_no_surprises(tmp_path: Path) -> None:
    values = report_on_public(tmp_path).as_json()

    assert json.loads(json.dumps(values)) == values
    assert values["unit"] == "million_input_tokens"
    assert {row["policy"] for row in values["policies"]} == set(POLICIES) - {"recorded"}


def test_the_chart_is_a_picture_of_the_rows(tmp_path: Path) -> None:
    report = report_on_public(tmp_path)
    drawn = chart([report, report])
    root = ElementTree.fromstring(drawn)
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]

    assert all(sum(text == row.name for text in texts) >= 2 for row in report.rows)
    assert "prefers-color-scheme:dark" in drawn
    assert "script" not in drawn
    widths = [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(widths) == 2 * len(report.rows)
    assert widths[: len(report.rows)] == sorted(widths[: len(report.rows)])


def test_names_in_a_chart_are_text(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "a<b>&c.gz", public_rows(support(sessions=1)))
    drawn = chart([play([TraceFile(path)], Choice(), lambda count: None)])

    assert "a&lt;b&gt;&amp;c" in drawn


def test_costs_for_people() -> None:
    assert [show_cost(1.23456, True), show_cost(1234.5, True), show_cost(1.5, False)] == [
        "$1.2346", "$1,234.50", "1.500M",
    ]  # fmt: skip
