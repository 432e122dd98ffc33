"""A real Prometheus for one test: on a free loopback port, in a directory of its own. Where the binary is
missing, that is an error: a suite that skips proves nothing. Also which metrics an expression names."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from ruamel.yaml import YAML

from tests.support.ports import free_port

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
_COMMENT = re.compile(r"#[^\n]*")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\{[^}]*\}|\[[^\]]*\]")
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_CALL = re.compile(r"[A-Za-z_]+\s*\(")
_WORDS = frozenset(
    {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
)


def metric_names(expression: str) -> set[str]:
    """Of the series that a PromQL expression reads."""
    bare = _LABELS.sub(" ", _STRING.sub("", _COMMENT.sub("", expression)))
    bare = re.sub(r"\boffset\s+\w+", " ", _CALL.sub(" ( ", bare))
    return {name for name in _NAME.findall(bare) if name not in _WORDS and not name.isdigit()}


def checked(*command: str) -> str:
    """What promtool or amtool says; fails, with all of it, where it finds something wrong."""
    assert shutil.which(command[0]), f"{command[0]} is missing; on Debian: apt-get install prometheus"
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


class PrometheusServer:
    """Ask it. Times are its own: now."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str, **query: str) -> Any:
        """The `data` of an answer. Fails with Prometheus' own words where it does not like the question."""
        async with self._session.get(f"{self.url}/api/v1/{path}", params=query) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{query}: {answer.get('error')}"
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of each series, now."""
        result = (await self.get("query", query=expression))["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    async def until(self, expression: str, seconds: float = 40.0) -> None:
        """Return once it has a value; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while not await self.query(expression):
            assert time.monotonic() < deadline, f"no value in time: {expression}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def a_prometheus(folder: Path, config: Mapping[str, Any]) -> AsyncIterator[PrometheusServer]:
    """Started with this prometheus.yml, and ready."""
    process, url = _start(folder, config)
    try:
        async with aiohttp.ClientSession() as session:
            await _ready(session, f"{url}/-/ready", process, folder)
            yield PrometheusServer(url, session)
    finally:
        process.kill()
        process.wait(timeout=120)


def _start(folder: Path, config: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    binary = shutil.which("prometheus")
    assert binary, "this test needs a real Prometheus; on Debian: apt-get install prometheus"
    folder.mkdir()
    YAML(typ="safe").dump(dict(config), folder / "prometheus.yml")
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log), f"http://{address}"


async def _ready(
    session: aiohttp.ClientSession, url: str, process: subprocess.Popen[bytes], folder: Path
) -> None:
    deadline = time.monotonic() + 40
    while True:
        assert process.poll() is None, _log(folder)
        assert time.monotonic() < deadline, _log(folder)
        with suppress(aiohttp.ClientConnectionError):
            async with session.get(url) as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.05)


def _log(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")
