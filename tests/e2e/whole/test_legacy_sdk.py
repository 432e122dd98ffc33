"""An older SDK, on the other API version and the other key header, at the same gateway at the same time."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from gateway.core.headers import value_of
from tests.support.stack import Stack

PYTHON = Path(__file__).parents[3] / ".venv-legacy/bin/python"


async def test_an_older_sdk_works_unchanged(stack: Stack) -> None:
    if not PYTHON.exists():
        pytest.fail("the environment of the older SDK is missing: `make test` makes it")
    environ = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "APP_URL": stack.url,
        "APP_KEY": stack.keys["demo"],
        "BAD_KEY": stack.keys["unknown"],
    }
    process = await asyncio.create_subprocess_exec(
        PYTHON, Path(__file__).with_name("legacy_app.py"), env=environ, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    seen = json.loads(out)

    assert process.returncode == 0
    assert seen["version"].startswith("0.")
    assert seen["text"]
    assert (seen["streamed"] > 0, seen["counted"] > 0, seen["models"], seen["async"]) == (
        True,
        True,
        3,
        "message",
    )
    assert seen["refused"]["status"] == 401
    assert seen["refused"]["request_id"].startswith("gw_")
    first = stack.simulator.requests[0]
    assert (
        value_of([(name.lower(), value) for name, value in first.headers], b"anthropic-version")
        == b"2023-06-01"
    )
    assert json.loads(first.body)["temperature"] == 0.5
    targets = [request.target for request in stack.simulator.requests]
    assert "/v1/messages?beta=true" in targets
