"""The files that are shipped for Prometheus, Alertmanager and Grafana, read as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gateway.adapters.prometheus import Metrics
from gateway.cli.reconcile_metrics import COMPARED_AT, DIFFERING, UNEXPLAINED
from tests.support.prometheus_server import metric_names

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/claude-cache-gateway/files/prometheus-rules.yaml"
DASHBOARDS = sorted((ROOT / "helm/claude-cache-gateway/files/dashboards").glob("*.json"))
RULE_TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
RUNBOOK = ROOT / "deploy/RUNBOOK.md"


@cache
def read_yaml(path: Path) -> Any:
    """Read once; nobody changes what it says."""
    return YAML(typ="safe").load(path)


def rules() -> list[dict[str, Any]]:
    """All of them, in order."""
    return [rule for group in read_yaml(RULES)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> dict[str, str]:
    """Expressions by the names of what they record."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def read_by(expression: str) -> set[str]:
    """Metrics that an expression reads, through what is recorded."""
    known, found = recorded(), set()
    for name in metric_names(expression):
        found |= read_by(known[name]) if name in known else {name}
    return found


@dataclass(frozen=True, slots=True)
class Panel:
    dashboard: str
    title: str
    expression: str

    @property
    def name(self) -> str:
        return f"{self.dashboard}: {self.title}"


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def panels() -> list[Panel]:
    """One for each expression."""
    return [
        Panel(path.stem, panel["title"], target["expr"])
        for path in DASHBOARDS
        for panel in dashboard(path)["panels"]
        for target in panel.get("targets", ())
    ]


def filled_in(expression: str) -> str:
    """As Grafana sends it, with all workspaces and models, over a minute."""
    for variable, value in {
        "$__rate_interval": "1m",
        "$__range": "1m",
        "$workspace": ".*",
        "$model": ".*",
    }.items():
        expression = expression.replace(variable, value)
    return expression


def exported() -> set[str]:
    """Names of all series that a gateway, Prometheus itself and `gateway reconcile` can make."""
    names = {"up", COMPARED_AT, DIFFERING, UNEXPLAINED}
    for spec in Metrics(canonical=lambda model: model, version="1").specs:
        names |= {spec.name + end for end in ("_bucket", "_sum", "_count")} if spec.buckets else {spec.name}
    return names | {
        f"process_{name}"
        for name in (
            "open_fds",
            "max_fds",
            "cpu_seconds_total",
            "resident_memory_bytes",
            "start_time_seconds",
        )
    }
