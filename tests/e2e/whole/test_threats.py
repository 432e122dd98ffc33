"""What SECURITY.md promises of the whole gateway and nothing narrower shows."""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp
import pytest

from gateway.core.endpoints import Endpoint, route
from tests.e2e.whole.calls import ASK, VERSION, call
from tests.support.process import a_gateway_process
from tests.support.stack import Stack, a_stack

HOSTILE = 'evil\r\n{"status":200}\x1b[31m\x00\u2028\u202e'


async def _metrics(stack: Stack) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(stack.service.admin_url + "/metrics") as page,
    ):
        return await page.text()


async def test_names_that_clients_choose_make_no_new_series(tmp_path: Path) -> None:
    """Models, paths, tags and user ids: hundreds of each, and as many lines as after the first dozen."""
    draw = Random(7)

    def name() -> str:
        return f"x-{draw.getrandbits(64):x}"

    async def many(stack: Stack, count: int) -> str:
        for _ in range(count):
            body = {**ASK, "model": name(), "metadata": {"user_id": name()}}
            await call(stack, body, path=f"/v1/messages?{name()}", headers=[("x-team", name())])
            await call(stack, method="GET", path=f"/v1/{name()}/{name()}")
            await call(stack, method=name().upper(), path=f"/{name()}")
        return await _metrics(stack)

    def series(page: str) -> set[str]:
        return {line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")}

    async with a_stack(tmp_path, limits="defaults: []\noverrides: []\n") as stack:
        few = series(await many(stack, 12))
        page = await many(stack, 60)

    assert series(page) == few
    assert "x-" not in re.sub(r'le="[^"]*"', "", "".join(series(page)))


def test_ten_thousand_paths_have_the_same_few_names() -> None:
    draw = Random(1)
    targets = (
        f"/{draw.choice(['v1', 'V1', '', '%76'])}/{draw.getrandbits(40):x}/%{draw.getrandbits(8):02x}"
        for _ in range(10_000)
    )

    assert {route("GET", target) for target in targets} <= set(Endpoint)


async def test_what_clients_write_stays_on_its_line_of_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with a_stack(tmp_path, quiet=False) as stack:
        body = {**ASK, "model": HOSTILE, "metadata": {"user_id": HOSTILE}}
        await call(stack, body, headers=[("x-team", "a\x85\x9b[31m"), ("user-agent", "\xa0evil")])
        await call(stack, method="GET", path="/v1/%0d%0a%7b%22status%22:200%7d%1b[31m")
        await stack.service.stop()
        lines = capfd.readouterr().out.splitlines()

    assert len(lines) == 2
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        json.loads(line)


async def test_a_failure_inside_is_logged_without_the_key_and_the_prompt_that_caused_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback shows lines of code, and no values of theirs."""

    def broken(*arguments: object, **more: object) -> None:
        raise RuntimeError("a fault of the gateway's own")

    caplog.set_level(logging.DEBUG)
    async with a_stack(tmp_path) as stack:
        monkeypatch.setattr("gateway.pipeline.find_credential", broken)
        said = "a secret that somebody told their assistant"
        answer = await call(stack, {**ASK, "messages": [{"role": "user", "content": said}]})
        shown = caplog.text + repr(stack.service) + repr(vars(stack.service)) + answer.body.decode()

    assert answer.status == 500
    assert "a fault of the gateway's own" in caplog.text
    assert "a fault" not in answer.body.decode()
    assert said not in shown
    assert not [name for name, key in stack.keys.items() if key in shown]
    assert "canary" not in shown


async def test_nobody_else_can_read_what_a_gateway_keeps(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with a_gateway_process(state, "--demo") as running:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                running.url + "/v1/messages",
                json=dict(ASK),
                headers={"x-api-key": running.key, **dict([VERSION])},
            ) as answer,
        ):
            assert answer.status == 200
        modes = {}
        for path in sorted(state.rglob("*")):
            with suppress(FileNotFoundError):  # it runs, and may put one in another's place
                if not path.is_dir():
                    modes[path.name] = path.stat().st_mode & 0o077

    assert len(modes) >= 3
    assert set(modes.values()) == {0}, modes
