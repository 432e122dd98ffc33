"""helm/README.md shows what the chart does now."""

from __future__ import annotations

import re

from tests.deploy.chart import CHART, read_yaml, schema
from tests.deploy.update_examples import MAKERS, README, SCHEMA, updated, updated_schema, values_table


def test_the_readme_shows_what_the_chart_renders() -> None:
    text = README.read_text()

    used = set(re.findall(r"<!-- made: (\w+)", text))
    assert used == set(MAKERS)
    assert updated(text) == text, "run: python -m tests.deploy.update_examples"


def test_the_schema_of_values_knows_gateway_yaml_as_the_gateway_does() -> None:
    assert SCHEMA.read_text() == updated_schema(), "run: python -m tests.deploy.update_examples"


def test_an_example_that_is_out_of_date_is_written_anew() -> None:
    old = "<!-- made: grace_period defaults -->\nterminationGracePeriodSeconds: 30\n<!-- end -->"

    assert updated(old) == old.replace("30\n", "345\n")


def test_the_table_of_values_has_every_value() -> None:
    table = values_table("")
    values = read_yaml((CHART / "values.yaml").read_text())

    shown = {name.partition(".")[0] for name in re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)}
    assert shown == set(values)
    assert shown == set(schema()["properties"]) - {"global"}


def test_paths_that_the_readme_names_exist() -> None:
    text = README.read_text()

    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert linked
    assert [path for path in linked if not (README.parent / path).exists()] == []
