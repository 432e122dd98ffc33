"""The commands as a whole: what `--help` tells, that programs read what people do, that shells complete."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import COMMANDS, Listed, app, load

NO_JSON = {
    "run": "runs until it is stopped; its log is JSON",
    "simulate": "runs until it is stopped; its log is of the simulated API",
    "demo": "a show for people",
    "healthcheck": "answers by its exit code",
    "config schema": "prints JSON schemas anyhow",
    "keys revoke": "changes one thing, and says so",
    "ledger migrate": "changes the file, and says how far it came",
    "ledger prune": "changes the file, and says how far it came",
    "ledger restore": "a count; writes what a log holds",
    "worker": "is started by `run`",
    "planner": "speaks JSON lines anyhow",
}
"""Commands without `--json`, and why."""


def commands(command: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """All of them by path. A group is one where it does something by itself."""
    within = (
        getattr(command, "commands", {}) if command else {each.name: load(each.name) for each in COMMANDS}
    )
    for name, each in within.items():
        yield from commands(each, f"{path} {name}".strip())
    if command and (not within or command.invoke_without_command):
        yield path, command


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL)
def test_every_command_can_print_json_or_has_a_reason_not_to(path: str) -> None:
    options = {option for parameter in ALL[path].params for option in parameter.opts}

    assert ("--json" in options) != (path in NO_JSON), options


def test_no_reason_is_left_of_a_command_that_is_gone() -> None:
    assert set(NO_JSON) <= set(ALL)


@pytest.mark.parametrize("path", ALL)
def test_every_command_says_in_one_short_sentence_what_it_does(path: str) -> None:
    first = " ".join((ALL[path].help or "").split("\n\n")[0].split())

    assert first.endswith("."), first
    assert len(first) <= 110, first


@pytest.mark.parametrize("listed", COMMANDS, ids=lambda each: each.name)
def test_the_list_says_of_each_command_in_a_line_what_it_does(listed: Listed) -> None:
    assert listed.sentence.endswith(".")
    assert len(listed.sentence) <= 64, "so that it fits beside its name on 80 columns"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["healthcheck"]])
def test_what_is_asked_often_loads_next_to_nothing(arguments: list[str]) -> None:
    """Not the models of the settings, not the stores, not what serves."""
    code = (
        "import sys\n"
        "from gateway.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "GATEWAY_LISTEN__ADMIN": "127.0.0.1:1"},
        check=True,
        timeout=120,
    ).stdout
    loaded = told.partition("LOADED")[2].split()

    assert "gateway" in loaded
    assert {"pydantic", "aiohttp", "redis", "ruamel", "msgspec", "prometheus_client"} & {*loaded} == set()


def test_help_has_its_groups_in_the_order_in_which_people_need_them() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "--help"], capture_output=True, text=True, check=True, timeout=50
    ).stdout
    groups = ["Serve", "See what it does", "Who may spend what", "Caching", "The books"]
    found = [line.strip("╭─╮ ") for line in told.splitlines() if line.startswith("╭─")]

    assert found[1:] == groups
    assert "planner" not in told
    assert "worker" not in told


def test_a_shell_completes_commands_and_options() -> None:
    def complete(words: str) -> list[str]:
        environ = {**os.environ, "_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environ["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        command = "import sys; sys.argv = ['gateway']; from gateway.cli import app; app(prog_name='gateway')"
        told = subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True,
            text=True,
            env=environ,
            check=False,
            timeout=120,
        )
        return told.stdout.split()

    assert {"replay", "report", "reconcile"} <= set(complete("gateway re"))
    assert "--workers" in complete("gateway run --w")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "--port", "99999"], "65535"),
        (["simulate", "--port", "-1"], "greater than or equal to 0"),
        (["simulate", "--public-url", "foo"], "write it as http://simulator:8900"),
        *(
            ([*command, "--url", url], "write it as http://127.0.0.1:9090")
            for command in (["top"], ["budget", "show"], ["healthcheck"])
            for url in (
                "http://127.0.0.1:999999",
                "http://[::1",
                "http://",
                "ftp://127.0.0.1",
                "127.0.0.1:9090",
            )
        ),
    ],
)
def test_an_address_that_is_none_is_explained(arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})

    assert run.exit_code == 2, run.output
    assert words in run.output
