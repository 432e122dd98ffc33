"""`gateway healthcheck` is asked every few seconds by whoever runs containers."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from gateway.liveness import ADMIN_VARIABLE, at_once


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["healthcheck"], {}),
        (["healthcheck", "--timeout", "1"], {ADMIN_VARIABLE: "127.0.0.1:9090"}),
        (["run"], {ADMIN_VARIABLE: "127.0.0.1:9090"}),
        (["healthcheck"], {ADMIN_VARIABLE: "127.0.0.1:port"}),
    ],
)
def test_all_that_needs_the_settings_or_has_options_is_for_the_command(
    arguments: list[str], environ: dict[str, str]
) -> None:
    assert at_once(arguments, environ) is None


def test_nobody_there_is_not_alive() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        answer = at_once(["healthcheck"], {ADMIN_VARIABLE: f"127.0.0.1:{taken.getsockname()[1]}"})

    assert answer is not None
    alive, sentence = answer
    assert not alive
    assert "No gateway answers" in sentence


def test_it_loads_none_of_the_commands() -> None:
    """With them it takes more of a core than the gateway does at rest."""
    script = (
        "import sys; sys.argv = ['gateway', 'healthcheck']\n"
        "from gateway.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
        "loaded = {'typer', 'pydantic', 'aiohttp', 'gateway.cli'} & sys.modules.keys()\n"
        "print(sorted(loaded))"
    )
    environ = {ADMIN_VARIABLE: "127.0.0.1:1", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True
    )

    assert ran.stdout.splitlines() == ["1", "[]"]
