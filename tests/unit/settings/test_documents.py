"""What is shipped agrees with the models: samples, schemas, tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from gateway.page_books import ROLLUP_FILE
from gateway.settings import gateway as settings_of_gateway
from gateway.settings.gateway import LEDGER_FILE, RESTART_SECTIONS, GatewayFile
from gateway.settings.load import load_settings, packaged_directory
from gateway.settings.schema import FILE_MODELS, schema_texts, settings_table

CONFIG = Path(__file__).parents[3] / "config"


def test_the_shipped_gateway_file_holds_every_setting_at_its_default() -> None:
    written = YAML(typ="safe").load(CONFIG / "gateway.yaml")

    assert _as_written(GatewayFile()) == _as_written(GatewayFile.model_validate(written))
    assert _paths(_as_written(GatewayFile())) == _paths(written)


@pytest.mark.parametrize(
    "directory", [CONFIG, *sorted((CONFIG / "examples").iterdir())], ids=lambda p: p.name
)
def test_every_sample_loads(directory: Path) -> None:
    settings = load_settings(directory, {})

    assert settings.prices.models


def test_a_clone_finds_the_defaults_without_being_told() -> None:
    assert packaged_directory() == CONFIG


@pytest.mark.parametrize("name", sorted(schema_texts()))
def test_committed_schemas_are_those_of_the_models(name: str) -> None:
    assert (CONFIG / "schema" / name).read_text() == schema_texts()[name], "run `gateway config schema --out`"


@pytest.mark.parametrize("name", sorted(FILE_MODELS))
def test_the_readme_has_the_table_of_every_setting(name: str) -> None:
    readme = (CONFIG / "README.md").read_text()
    match = re.search(rf"<!-- settings: {name} -->\n(.*?)\n?<!-- end -->", readme, re.DOTALL)
    assert match is not None

    assert match[1] == settings_table(name), f"put this there:\n{settings_table(name)}"


@pytest.mark.parametrize("name", ["gateway", "limits", "workspaces"])
def test_every_setting_is_described(name: str) -> None:
    without = [line for line in settings_table(name).splitlines() if line.endswith("|  |")]

    assert without == []


def test_samples_name_their_schema() -> None:
    for path in CONFIG.rglob("*.yaml"):
        first = path.read_text().splitlines()[0]
        reference = first.partition("$schema=")[2]

        assert (path.parent / reference).resolve() == CONFIG / "schema" / f"{path.stem}.schema.json"


def test_sections_that_need_a_restart_are_marked_in_the_sample() -> None:
    text = (CONFIG / "gateway.yaml").read_text()
    for name in GatewayFile.model_fields:
        comment = re.search(rf"((?:^#.*\n)+){name}:", text, re.MULTILINE)
        assert comment is not None, name

        assert (name in RESTART_SECTIONS) == comment[1].startswith("# (restart)"), name


def test_the_sample_and_the_runbook_name_every_file_of_the_state_directory() -> None:
    files = {value for name, value in vars(settings_of_gateway).items() if name.endswith("_FILE")}
    files |= {ROLLUP_FILE, f"{LEDGER_FILE}.id"}
    runbook = (CONFIG.parent / "deploy/RUNBOOK.md").read_text().partition("## Backup and restore")[2]

    for text in ((CONFIG / "gateway.yaml").read_text(), runbook):
        assert {name for name in files if name not in text} == set()


def _as_written(model: BaseModel) -> dict[str, object]:
    return model.model_dump(mode="json")


def _paths(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {path for key, below in value.items() for path in _paths(below, f"{prefix}.{key}")} or {prefix}
