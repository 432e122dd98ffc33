"""The image, without an engine: its instructions are carried out in a folder, and what they made is started
as the image starts it, by a user without rights, on a tree that cannot be written."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.deploy.dockerfile import USER, Image, Instruction, Stage, in_context, read_dockerfile, unprivileged
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
STAGES = read_dockerfile(DOCKERFILE)
BUILD, FINAL = STAGES
BODY = {
    "model": "claude-haiku-4-5",
    "max_tokens": 60,
    "stream": True,
    "messages": [{"role": "user", "content": "Count to twenty."}],
}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Not under pytest's own directory, which nobody but its owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-image-"))
    folder.chmod(0o755)
    try:
        image = Image(folder, ROOT)
        for stage in STAGES:
            for instruction in stage.instructions:
                image.carry_out(instruction)
        image.seal()
        yield image
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_have_one_base_which_a_digest_can_pin() -> None:
    assert {stage.base.removesuffix(" AS build") for stage in STAGES} == {
        "python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"
    }


def test_every_package_is_checked_by_hash() -> None:
    steps = [step for each in BUILD.instructions if each.keyword == "RUN" for step in each.text.split("&&")]
    installs = [step for step in steps if " install " in step]

    assert len(installs) == 3
    assert all("--require-hashes -r" in step or "--no-deps /opt/wheel/*.whl" in step for step in installs)


def test_the_final_stage_runs_by_number_without_a_shell() -> None:
    assert FINAL.only("USER").text == f"{USER}:{USER}"
    assert FINAL.only("STOPSIGNAL").text == "SIGTERM"
    assert FINAL.only("ENTRYPOINT").command == ["gateway"]
    assert FINAL.only("CMD").command == ["run"]
    assert FINAL.only("HEALTHCHECK").command == ["gateway", "healthcheck"]
    assert {copied.words[0] for copied in _all(FINAL, "COPY")} == {"--from=build"}


def test_the_context_holds_no_more_than_the_image_is_made_from() -> None:
    copied = {word for each in _all(BUILD, "COPY") for word in each.words[:-1]}
    offered = {path.name for path in ROOT.iterdir() if in_context(ROOT, path.name)}

    assert offered == copied
    assert not in_context(ROOT, "gateway/core/__pycache__")
    assert in_context(ROOT, "gateway/core/plan.py")


@pytest.mark.timeout(300)
def test_the_image_holds_the_product_compiled_and_nothing_to_build_or_test_with(image: Image) -> None:
    packages = next((image.folder / "opt/gateway/lib").glob("python3.*/site-packages"))
    names = {path.name.partition("-")[0] for path in packages.glob("*.dist-info")}

    assert [path.name for path in (image.folder / "opt").iterdir()] == ["gateway"]
    assert {"claude_cache_gateway", "aiohttp", "psycopg", "pyjwt", "opentelemetry_proto"} <= names
    assert not {"pip", "uv", "hatchling", "pytest", "mypy"} & names
    assert (packages / "gateway/default_config/gateway.yaml").exists()
    assert not (packages / "tests").exists()
    assert list((packages / "gateway/__pycache__").glob("pipeline.*.pyc"))


@pytest.mark.timeout(300)
async def test_the_image_starts_serves_says_that_it_is_alive_and_drains(image: Image) -> None:
    simulator = Simulator(pacing=Pacing(first_byte_seconds=0.1, events_per_second=40))
    environ = image.environ | {
        "GATEWAY_LISTEN__DATA": f"127.0.0.1:{free_port()}",
        "GATEWAY_LISTEN__ADMIN": f"127.0.0.1:{free_port()}",
        "GATEWAY_DRAIN__ANNOUNCE": "0s",
        "GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": await simulator.start(),
        "ANTHROPIC_API_KEY": "sk-test-upstream",
        "TMPDIR": str(image.folder / "tmp"),
    }
    health = FINAL.only("HEALTHCHECK").command
    before = await _run(image, environ, *health)
    entry = FINAL.only("ENTRYPOINT").command
    made = await _run(image, environ, *entry, "keys", "create", "--workspace", "demo", "--name", "app")
    key = re.search(r"cgw_\w+", made[1])
    process = await _start(image, environ, *entry, *FINAL.only("CMD").command)
    try:
        await _until_it_says(process, "/readyz")
        alive = await _run(image, environ, *health)
        owner = os.stat(f"/proc/{process.pid}").st_uid
        assert key is not None, made
        stream = await _stream_and_stop(process, environ["GATEWAY_LISTEN__DATA"], key[0])
        code = await asyncio.wait_for(process.wait(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await simulator.stop()
    written = {path.name for path in (image.folder / "data").iterdir()}

    assert (before[0], before[1][:18]) == (1, "No gateway answers")
    assert alive[0] == 0 and alive[1].endswith("is alive.\n")
    assert owner == (USER if os.geteuid() == 0 else os.geteuid())
    assert b"message_stop" in stream, "the stream that was open at SIGTERM came to its end"
    assert code == 0
    assert {"ledger.sqlite3", "keys.sqlite3", "prefix.secret"} <= written


async def _stream_and_stop(process: asyncio.subprocess.Process, address: str, key: str) -> bytes:
    """What a call gets that was under way when the process was told to stop, in the image's way."""
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    stop = signal.Signals[FINAL.only("STOPSIGNAL").text]
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://{address}/v1/messages", json=BODY) as answer,
    ):
        assert answer.status == 200, await answer.text()
        first = await answer.content.readany()
        assert b"message_stop" not in first
        process.send_signal(stop)
        return first + await answer.read()


async def _start(image: Image, environ: dict[str, str], *command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=image.directory,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **unprivileged(),
    )


async def _run(image: Image, environ: dict[str, str], *command: str) -> tuple[int | None, str]:
    process = await _start(image, environ, *command)
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, said.decode()


async def _until_it_says(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        assert line, f"it ended: {said}"
        said += line.decode()


def _all(stage: Stage, keyword: str) -> list[Instruction]:
    return [each for each in stage.instructions if each.keyword == keyword]
