"""Each metric is documented once, as the page itself puts it, and nothing else is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.adapters.prometheus import Metrics
from gateway.adapters.prometheus_catalogue import BUDGET_UNITS, PULLED, Spec, metrics_table
from gateway.core.budget_reading import BudgetReading
from tests.support.records import a_record

DOCUMENT = Path(__file__).parents[2] / "config" / "README.md"


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics(canonical=lambda model: model, version="1")


def test_the_document_has_the_table_of_the_catalogue(metrics: Metrics) -> None:
    """Run `gateway.adapters.prometheus_catalogue.metrics_table` over `Metrics.specs` for the new table."""
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.partition("\n## Metrics\n")[2].partition("\n## ")[0]

    assert metrics_table(metrics.specs) in section
    for spec in metrics.specs:
        assert len(re.findall(rf"^\| `{spec.name}` \|", text, re.MULTILINE)) == 1, spec.name


def test_the_catalogue_is_what_the_page_shows(metrics: Metrics) -> None:
    metrics.observe(a_record())
    for spec in PULLED:
        metrics.pull(spec.name, lambda: 0.0)
    metrics.budgets(
        [
            BudgetReading(limit="l", workspace="w", unit=unit, amount=2, used=1, reset_at=1.0)
            for unit in BUDGET_UNITS
        ]
    )
    page = metrics.render("")[1].decode()
    shown = {
        (name, kind)
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
        if name.startswith("gateway_")
    }

    assert shown == {(spec.name, spec.type) for spec in metrics.specs}
    labels = {
        name: set(re.findall(r'(\w+)="', found)) - {"le"}
        for name, found in re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\} \S+$", page, re.MULTILINE)
    }
    for spec in metrics.specs:
        assert labels.get(spec.name, set(spec.labels)) == set(spec.labels), spec.name


def _names(specs: list[Spec]) -> list[str]:
    return [spec.name for spec in specs]


def test_names_follow_the_conventions_of_prometheus(metrics: Metrics) -> None:
    names = _names(metrics.specs)

    assert len(names) == len(set(names))
    for spec in metrics.specs:
        assert re.fullmatch(r"gateway_[a-z0-9_]+", spec.name)
        assert spec.name.endswith("_total") == (spec.type == "counter"), spec.name
        assert not re.search(r"(?:_ms|_percent|_nanousd)\b", spec.name)
        assert (spec.type == "histogram") == bool(spec.buckets)
        assert list(spec.buckets) == sorted(set(spec.buckets))
        assert not {"key", "key_id", "user", "path", "id"} & set(spec.labels)


def test_the_meaning_says_what_to_do_with_several_replicas(metrics: Metrics) -> None:
    for spec in metrics.specs:
        assert re.search(r"\b(sum|max|min)\b|Always 1", spec.help, re.IGNORECASE), spec.name
