"""`gateway config`, as an operator runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.config import app

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A copy of what is shipped."""
    for path in CONFIG.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def run(*arguments: str | Path, **environ: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environ)


def test_what_is_shipped_is_good(config: Path) -> None:
    result = run("check", "--config", config, ANTHROPIC_API_KEY="sk-test-x")

    assert result.exit_code == 0
    assert "can be used" in result.output
    assert "warning" not in result.output


def test_a_missing_credential_is_a_warning_only(config: Path) -> None:
    result = run("check", "--config", config, ANTHROPIC_API_KEY="")

    assert result.exit_code == 0
    assert "ANTHROPIC_API_KEY cannot be read" in result.output


def test_every_error_is_printed_with_its_place_and_the_exit_code_is_1(config: Path) -> None:
    (config / "gateway.yaml").write_text("timeouts:\n  upstream_conect: 5s\ndrain: {timeout: 30}\n")
    (config / "workspaces.yaml").write_text("workspaces: [[tag\n")

    result = run("check", "--config", config)

    assert result.exit_code == 1
    assert f"{config}/gateway.yaml:2:3: timeouts.upstream_conect: unknown key; did you mean" in result.output
    assert f"{config}/gateway.yaml:3:18: drain.timeout: not a duration" in result.output
    assert f"{config}/workspaces.yaml:" in result.output
    assert "3 to mend" in result.output


def test_check_speaks_json(config: Path) -> None:
    (config / "limits.yaml").write_text("defaults: 1\n")

    result = run("check", "--json", "--config", config)
    report = json.loads(result.stdout)

    assert result.exit_code == 1
    assert not report["ok"]
    assert report["errors"][0]["line"] == 1
    assert report["errors"][0]["key"] == "defaults"


def test_the_directory_may_come_from_the_environment(config: Path) -> None:
    result = run("check", "--json", GATEWAY_CONFIG=str(config))

    assert json.loads(result.stdout)["directory"] == str(config)


def test_explain_shows_what_is_in_force_and_secrets_as_references_only(config: Path) -> None:
    result = run(
        "explain",
        "--json",
        "--config",
        config,
        ANTHROPIC_API_KEY="sk-test-hidden",
        REDIS_URL="redis://:hidden@host/0",
        GATEWAY_STORE__KIND="redis",
    )
    explained = json.loads(result.stdout)

    assert result.exit_code == 0
    assert "hidden" not in result.output
    assert explained["gateway"]["upstreams"]["default"]["credential"] == {"env": "ANTHROPIC_API_KEY"}
    assert explained["gateway"]["store"]["kind"] == "redis"
    assert explained["gateway"]["timeouts"]["upstream_head"] == "15m"
    demo = [limit for limit in explained["limits"] if limit["subject"] == "demo"]
    assert [(limit["id"], limit["amount"]) for limit in demo] == [("workspace-month", "$50.00")]


def test_explain_is_readable_and_whole_without_a_terminal(config: Path) -> None:
    result = run("explain", "--config", config)

    assert result.exit_code == 0
    assert "upstream_head: 15m" in result.output
    assert "share at the provider" in " ".join(result.output.split())
    assert "public_url: null" in result.output


def test_commands_say_what_is_wrong_where_there_is_nothing_to_explain(tmp_path: Path) -> None:
    result = run("explain", "--config", tmp_path / "absent")

    assert result.exit_code == 1
    assert "absent: is no directory; --config DIR" in result.output


def test_schema_prints_one_object_or_writes_files(tmp_path: Path) -> None:
    printed = json.loads(run("schema").stdout)
    written = run("schema", "--out", tmp_path / "schema")

    assert set(printed) == {path.name for path in (tmp_path / "schema").iterdir()}
    assert written.stdout.splitlines() == [str(tmp_path / "schema" / name) for name in printed]
    assert printed["gateway.schema.json"]["additionalProperties"] is False


def test_an_address_in_use_is_told_with_what_to_set_instead(tmp_path: Path, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = subprocess.run(
            [sys.executable, "-m", "gateway", "run", "--config", config],
            env={
                **os.environ,
                "GATEWAY_LISTEN__DATA": f"127.0.0.1:{taken.getsockname()[1]}",
                "GATEWAY_LISTEN__ADMIN": "127.0.0.1:0",
                "GATEWAY_STATE__DIRECTORY": str(tmp_path / "state"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert ran.returncode == 1
    assert "The gateway cannot listen: " in ran.stderr
    assert "address already in use. Does another gateway run here?" in ran.stderr
    assert "GATEWAY_LISTEN__DATA" in ran.stderr
