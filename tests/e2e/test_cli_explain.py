"""`gateway explain`: the decisions of the running gateway, for one body, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.support.fakes import a_body


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GATEWAY_STATE__DIRECTORY", str(tmp_path))

    def run(body: bytes, *options: str) -> Any:
        file = tmp_path / "request.json"
        file.write_bytes(body)
        return CliRunner().invoke(app, ["explain", str(file), *options])

    return run


def test_says_what_it_would_place_set_aside_and_which_limits_bind(explain: Any) -> None:
    result = explain(json.dumps(a_body()).encode(), "--json")
    explained = json.loads(result.stdout)

    assert result.exit_code == 0
    marked = [block for block in explained["blocks"] if block["breakpoint"]]
    assert marked
    assert all(len(block["reason"]) > 20 for block in marked)
    assert explained["placement"]["added_bytes"] > 0
    assert float(explained["estimate"]["usd"]) > 0
    assert {limit["id"] for limit in explained["limits"]} >= {"workspace-month", "key-minute"}
    assert all(len(block["prefix_key"]) == 32 for block in explained["blocks"])


def test_reads_well_for_people(explain: Any) -> None:
    result = explain(json.dumps(a_body()).encode())

    assert result.exit_code == 0
    for words in (
        "caches from 512 tokens on",
        "Breakpoint on block",
        "Set aside (estimate)",
        "Limit workspace-month",
    ):
        assert words in result.stdout


def test_says_what_the_gateway_would_answer_to_a_bad_body(explain: Any) -> None:
    result = explain(b"{")

    assert result.exit_code == 1
    assert "would answer 400" in result.stderr


def test_names_the_workspaces_that_there_are(explain: Any) -> None:
    result = explain(json.dumps(a_body()).encode(), "--workspace", "nope")

    assert result.exit_code == 2
    assert "demo" in result.output


def test_a_file_that_is_not_there_is_no_traceback() -> None:
    result = CliRunner().invoke(app, ["explain", "/nowhere/request.json"])

    assert result.exit_code == 2
    assert "Traceback" not in result.output
