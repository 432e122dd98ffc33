"""Recording and alerting rules: promtool takes them, each alert is tried firing and silent and explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.shipped import (
    ALERTMANAGER,
    PROMETHEUS,
    ROOT,
    RULE_TESTS,
    RULES,
    alerts,
    exported,
    read_by,
    read_yaml,
    recorded,
    rules,
)
from tests.support.prometheus_server import checked

ALERTS = alerts()
SEVERITIES = {"critical", "warning", "info"}


def test_promtool_accepts_the_rules() -> None:
    said = checked("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(RULES))

    assert f"{len(rules())} rules found" in said


def test_promtool_accepts_the_configuration() -> None:
    checked("promtool", "check", "config", "--syntax-only", str(PROMETHEUS))


def test_amtool_accepts_the_alertmanager_s_configuration() -> None:
    checked("amtool", "check-config", str(ALERTMANAGER))


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_else_do_not(path: Path) -> None:
    tests = read_yaml(path)
    assert [(path.parent / each).resolve() for each in tests["rule_files"]] == [RULES]
    # promtool takes a group that is not named as if it were the first.
    assert tests["group_eval_order"] == [group["name"] for group in read_yaml(RULES)["groups"]]
    checked("promtool", "test", "rules", str(path))


def _cases() -> Iterator[tuple[str, bool, set[str]]]:
    """Name of an alert, whether it is expected, and the metrics that the case has: of each expectation."""
    for path in RULE_TESTS:
        for case in read_yaml(path)["tests"]:
            series = {re.split(r"[{\s]", each["series"])[0] for each in case["input_series"]}
            for expected in case.get("promql_expr_test", ()):
                for name in _named(expected["expr"]):
                    yield name, bool(expected["exp_samples"]), series


def _named(expression: str) -> set[str]:
    """The one alert that an expectation is about; those by pattern are extras and prove nothing of one."""
    return set(re.findall(r'ALERTS\{alertname="(\w+)"', expression))


@pytest.mark.parametrize("alert", sorted(ALERTS))
@pytest.mark.parametrize("firing", [True, False], ids=["firing", "silent"])
def test_every_alert_is_tried_firing_and_silent_on_its_own_metrics(alert: str, firing: bool) -> None:
    """Silence proves something only where the metrics that the alert looks at are there."""
    needed = read_by(ALERTS[alert]["expr"])
    if alert == "GatewayAbsent":
        needed = {"up"}  # it fires where its metric is not there
    tried = [series for name, fires, series in _cases() if name == alert and fires is firing]

    assert any(series & needed for series in tried), (
        f"no case in tests/deploy/rules where {alert} is {firing=}"
    )


def test_no_case_is_about_an_alert_that_does_not_exist() -> None:
    assert {name for name, _, _ in _cases()} == set(ALERTS)


def test_rules_read_only_metrics_that_are_exported() -> None:
    unknown = {
        rule.get("alert") or rule["record"]: names
        for rule in rules()
        if (names := read_by(rule["expr"]) - exported())
    }

    assert unknown == {}


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_alerts_say_what_and_how_bad_it_is_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]

    assert alert.startswith("Gateway")
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert not rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith((".", "{{ end }}"))
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (ROOT / path).is_file()
    assert anchor == alert.lower()


def test_what_is_recorded_is_named_by_level_metric_and_operation() -> None:
    for name in recorded():
        assert re.fullmatch(r"[a-z_]+:gateway_[a-z_]+:[a-z0-9_]+|gateway:[a-z_]+:[a-z0-9_]+", name), name


def test_no_rule_names_a_job_or_a_replica() -> None:
    for rule in rules():
        assert not re.search(r"\b(?:job|instance|pod|namespace)\s*=", rule["expr"])
