"""Dashboards: what Grafana and people need of them. That queries have answers is in test_prometheus.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.shipped import DASHBOARDS, dashboard, exported, filled_in, panels, read_yaml
from tests.deploy.shipped import ROOT as ROOT_FOLDER
from tests.support.prometheus_server import metric_names

PROVISIONING = ROOT_FOLDER / "deploy/grafana/provisioning"
UNITS = {
    "short", "reqps", "ops", "s", "bytes", "percentunit", "currencyUSD", "dateTimeFromNow", "dateTimeAsLocal",
}  # fmt: skip
BY_NAME = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_there_are_three() -> None:
    assert [path.stem for path in DASHBOARDS] == ["caching", "platform", "spend"]


@BY_NAME
def test_a_dashboard_can_be_provisioned_anywhere(path: Path) -> None:
    found = dashboard(path)

    assert found["uid"] == f"gateway-{path.stem}"
    assert found["id"] is None
    assert (found["version"], found["schemaVersion"]) == (1, 39)
    assert "__inputs" not in found
    variables = {each["name"]: each for each in found["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert set(variables) == {"datasource", "workspace", "model"}
    uids = set(re.findall(r'"uid": "([^"]+)"', path.read_text()))
    assert uids == {found["uid"], "${datasource}"}


@BY_NAME
def test_every_panel_says_what_it_shows_and_in_which_unit(path: Path) -> None:
    titles = []
    for panel in dashboard(path)["panels"]:
        if panel["type"] == "row":
            continue
        titles.append(panel["title"])
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["legendFormat"] or panel["type"] in ("stat", "table"), panel["title"]
    assert len(titles) == len(set(titles))


@BY_NAME
def test_panels_stand_side_by_side_without_gaps_that_hide_any(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    found: list[dict[str, Any]] = dashboard(path)["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_expressions_fit_any_installation() -> None:
    """No job, no fixed interval, only what is exported; nothing recorded, as rules may be left out."""
    known = exported()
    for panel in panels():
        expression = panel.expression
        assert not re.search(r"\bjob\s*[=!]", expression), panel
        assert metric_names(filled_in(expression)) - known == set(), panel
        for function, window in re.findall(r"\b(rate|increase)\([^\[]*\[([^\]]+)\]", expression):
            assert window in ("$__rate_interval", "$__range"), (function, panel)


def test_replicas_of_one_store_are_not_added_up() -> None:
    readings = [panel for panel in panels() if re.search("gateway_budget_(used|limit)", panel.expression)]

    assert len(readings) > 5
    for panel in readings:
        assert "max by (limit, workspace)" in panel.expression, panel
        assert "sum" not in panel.expression, panel


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    (source,) = read_yaml(PROVISIONING / "datasources/prometheus.yaml")["datasources"]
    (provider,) = read_yaml(PROVISIONING / "dashboards/gateway.yaml")["providers"]
    services = read_yaml(ROOT_FOLDER / "deploy/compose.yaml")["services"]

    assert source["url"] == "http://prometheus:9090"
    assert any(mount.split(":")[1] == provider["options"]["path"] for mount in services["grafana"]["volumes"])
    assert provider["allowUiUpdates"] is False
