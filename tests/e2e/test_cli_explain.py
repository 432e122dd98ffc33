"""`gateway explain`: the decisions of the running gateway, for one body, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.support.bodies import desk_body, dump
from tests.support.fakes import a_body


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GATEWAY_STATE__DIRECTORY", str(tmp_path))

    def run(body: bytes, *options: str, previous: bytes | None = None) -> Any:
        file, other = tmp_path / "request.json", tmp_path / "other.json"
        file.write_bytes(body)
        if previous is not None:
            other.write_bytes(previous)
            options = ("--previous", str(other), *options)
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


def test_says_why_one_would_not_read_what_the_other_wrote(explain: Any) -> None:
    before, after = (
        desk_body(turns=2, slot=f"The time is 2026-11-22T10:0{minute}:31Z.") for minute in (4, 5)
    )
    result = explain(dump(after), "--json", previous=dump(before))
    explained = json.loads(result.stdout)
    (miss,) = explained["misses"]
    byte = after["system"][1]["text"].index("5:31Z")

    assert (miss["cause"], miss["where"], miss["looks_like"]) == ("changed", "system[1]", "a timestamp")
    assert (miss["byte"], miss["exact"]) == (byte, True)
    printed = " ".join(explain(dump(after), previous=dump(before)).stdout.split())
    assert f"system[1] changed at byte {byte:,}, where a timestamp stands" in printed


def test_says_that_nothing_keeps_it_from_reading(explain: Any) -> None:
    result = explain(dump(desk_body(turns=3)), previous=dump(desk_body(turns=2)))

    assert "Nothing in it keeps it from reading what the other one wrote" in result.stdout


def test_shows_what_a_fresh_planner_would_do_and_read(explain: Any) -> None:
    turns = [dump(desk_body(turns=turns)) for turns in (2, 3)]
    read = json.loads(explain(turns[1], "--json", "--policy", "learned", previous=turns[0]).stdout)
    late = json.loads(
        explain(turns[1], "--json", "--policy", "learned", "--after", "4000", previous=turns[0]).stdout
    )

    assert read["placement"]["read_tokens"] > 1_000
    assert read["misses"] == []
    assert late["placement"]["read_tokens"] == 0
    assert [miss["cause"] for miss in late["misses"]] == ["expired"]
