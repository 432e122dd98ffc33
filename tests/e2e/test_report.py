"""`gateway report`: the figures of all replicas, exact for machines and readable for people."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.ledger import Ledger
from gateway.cli import app as gateway_app
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import Principal
from tests.support.records import a_record, a_refused_record

CALLER = Principal(workspace=WorkspaceId("search"), key_id=KeyId("k1"), key_name="app")


def _report(*arguments: str) -> str:
    run = CliRunner().invoke(gateway_app, ["report", *arguments], env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.output
    return run.stdout


@pytest.fixture
def ledgers(tmp_path: Path) -> list[str]:
    """Two replicas: two calls on one, one call and a refusal on the other."""
    refused = a_refused_record(principal=replace(CALLER, workspace=WorkspaceId("chat")))
    paths = [tmp_path / "a.sqlite3", tmp_path / "b.sqlite3"]
    for path, records in zip(
        paths,
        [[a_record(id="e1"), a_record(id="e2", model="=cmd()")], [a_record(id="e3"), refused]],
        strict=True,
    ):
        ledger = Ledger(path)
        for record in records:
            ledger.observe(record)
        ledger.close()
    return [argument for path in paths for argument in ("--ledger", str(path))]


def test_replicas_are_added_up_exactly(ledgers: list[str]) -> None:
    rows = json.loads(_report(*ledgers, "--by", "workspace", "--format", "json"))

    assert [row["workspace"] for row in rows] == ["search", "chat"]
    assert rows[0]["requests"] == 3
    assert rows[0]["cost_usd"] == "0.032625003"
    assert rows[0]["counterfactual_cost_usd"] == "0.103500000"
    assert rows[0]["saved_usd"] == "0.070874997"
    assert rows[0]["cache_read_ratio"] == 0.9
    assert (rows[1]["requests"], rows[1]["refused"], rows[1]["cost_usd"]) == (1, 1, "0.000000000")


def test_a_month_has_its_own_entries_only(ledgers: list[str]) -> None:
    november = json.loads(_report(*ledgers, "--by", "month", "--month", "2026-11", "--format", "json"))
    december = json.loads(_report(*ledgers, "--by", "month", "--month", "2026-12", "--format", "json"))

    assert [(row["month"], row["requests"]) for row in november] == [("2026-11", 4)]
    assert december == []


def test_csv_has_a_header_even_without_rows_and_no_formulas(ledgers: list[str]) -> None:
    empty = _report(*ledgers, "--month", "2020-01", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(_report(*ledgers, "--format", "csv"))))

    assert empty.startswith("workspace,model,requests,")
    assert len(empty.splitlines()) == 1
    assert {row["model"] for row in rows} == {"claude-test-1", "'=cmd()", "-"}


def test_the_table_is_for_people(ledgers: list[str]) -> None:
    text = _report(*ledgers, "--by", "workspace,model")

    (whole,) = (line for line in text.splitlines() if line.startswith("all"))
    assert whole.split() == ["all", "4", "30", "k", "90.0%", "900", "0.0326", "0.1035", "68.5%"]
    assert "search" in text
    assert "without caching" in text
    assert "No entries." in _report(*ledgers, "--month", "2020-01")


def test_a_models_name_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    ledger.observe(a_record(model="[red]\x1b[31m\u202emodel"))
    ledger.close()

    text = _report("--ledger", str(path), "--by", "model")
    assert "[red]\\x1b[31m\\u202emodel" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--by", "colour"], "colour"),
        (["--month", "2026-13"], "no month"),
        (["--ledger", "missing.sqlite3"], "cannot be read"),
    ],
)
def test_a_mistake_is_explained(ledgers: list[str], arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(gateway_app, ["report", *ledgers, *arguments], env={"COLUMNS": "200"})

    assert run.exit_code == 2
    assert words in run.output


def test_entries_in_the_log_are_put_back_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, log = tmp_path / "ledger.sqlite3", tmp_path / "gateway.log"
    closed = Ledger(path)
    closed.close()
    for n in range(3):
        closed.observe(a_record(id=f"late{n}"))
    log.write_text("\n".join(["started", *caplog.messages]))

    said = [
        CliRunner().invoke(gateway_app, ["ledger", "restore", str(log), "--ledger", str(path)]).output
        for _ in range(2)
    ]
    assert said == [f"3 entries put back into {path}\n", f"0 entries put back into {path}\n"]
    (row,) = json.loads(_report("--ledger", str(path), "--by", "workspace", "--format", "json"))
    assert row["requests"] == 3
