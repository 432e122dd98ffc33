"""A Dockerfile as data, and a folder in which its instructions are carried out without an engine.

Absolute paths of the instructions become paths below the folder; the base image is the Python of this
machine. What an instruction does that is not understood here is an error, not left out.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pip

USER = 65532
_PATHS = ("src", "opt", "data")
"""Of the image's root, what its instructions may name."""
_ALLOWED = (*(f"/{name}" for name in _PATHS), "/root/.cache")


@dataclass(frozen=True)
class Instruction:
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def command(self) -> list[str]:
        """The exec form, which runs no shell."""
        command = json.loads(self.text[self.text.index("[") :])
        assert all(isinstance(word, str) for word in command)
        return list(command)


@dataclass(frozen=True)
class Stage:
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def only(self, keyword: str) -> Instruction:
        (found,) = (each for each in self.instructions if each.keyword == keyword)
        return found


def read_dockerfile(path: Path) -> list[Stage]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = []
    for line in filter(str.strip, joined.splitlines()):
        keyword, _, text = line.partition(" ")
        if keyword == "FROM":
            stages.append(Stage(text))
        elif stages:
            stages[-1].instructions.append(Instruction(keyword, text.strip()))
    return stages


def in_context(root: Path, name: str) -> bool:
    """Whether .dockerignore lets the file or folder into the build; the last pattern that fits decides."""
    kept = True
    for line in (root / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            fits = fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/")
            if pattern.startswith("**/"):
                fits = fnmatch.fnmatch(Path(name).name, pattern[3:])
            kept = line.startswith("!") if fits else kept
    return kept


class Image:
    """Where instructions are carried out, one after the other."""

    def __init__(self, folder: Path, context: Path) -> None:
        self.folder = folder
        self._context = context
        self._directory = folder / "src"
        self._python = a_python()
        self.environ = {"PATH": f"{self._shim()}:/usr/bin:/bin", "HOME": str(folder / "home")}
        # Where a machine finds its package index, and what it has fetched from there already.
        self._build = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))
        } | {"UV_CACHE_DIR": _uv_cache(), "UV_SYSTEM_CERTS": "true"}

    def here(self, text: str) -> str:
        """`text` with the image's paths as they are in the folder."""
        for found in re.findall(r"(?<![\w.*}/])/[\w./]+", text):
            assert found.startswith(_ALLOWED), f"{found} is no path that the image may use: {text}"
        return re.sub(rf"(?<![\w.*}}/])/({'|'.join(_PATHS)})\b", rf"{self.folder}/\1", text)

    def carry_out(self, instruction: Instruction) -> None:
        match instruction.keyword:
            case "RUN":
                self._run(re.sub(r"--mount=\S+ ", "", instruction.text))
            case "COPY":
                self._copy(instruction.words)
            case "ENV":
                for word in instruction.words:
                    name, _, value = word.partition("=")
                    self.environ[name] = self.here(value).replace("$PATH", self.environ["PATH"])
            case "WORKDIR":
                self._directory = Path(self.here(instruction.text))
                self._directory.mkdir(exist_ok=True, parents=True)
            case _:
                assert instruction.keyword in {
                    *("ARG", "LABEL", "VOLUME", "EXPOSE", "USER"),
                    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
                }, instruction

    def seal(self) -> None:
        """As a read-only root: nobody may write but to the state directory and /tmp."""
        for name in ("src", "home"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        subprocess.run(["chmod", "-R", "a-w", str(self.folder / "opt")], check=True)
        (self.folder / "tmp").mkdir(mode=0o777)
        (self.folder / "tmp").chmod(0o777)

    @property
    def directory(self) -> Path:
        return self._directory

    def _run(self, script: str) -> None:
        if os.geteuid() != 0:
            script = re.sub(rf" -[og] {USER}", "", script)
        done = subprocess.run(
            ["sh", "-ec", self.here(script)],
            cwd=self._directory,
            env=self._build | self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _copy(self, words: list[str]) -> None:
        if words[0].startswith("--from="):
            _, source, target = words
            assert source == target, "scripts of an environment name the place that they were made for"
            for other in (self.folder / "opt").iterdir():
                if str(other) != self.here(source):
                    shutil.rmtree(other)
            return
        *sources, target = words
        for source in sources:
            assert in_context(self._context, source), f".dockerignore leaves {source} out"
            origin = self._context / source
            place = self._directory / target
            if origin.is_dir():
                shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, place)

    def _shim(self) -> Path:
        """`python`, as the base image has it: with pip, and with nothing else."""
        shim, packages = self.folder / "shim", self.folder / "shim" / "packages"
        packages.mkdir(parents=True)
        (packages / "pip").symlink_to(Path(pip.__file__).parent)
        (shim / "python").write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {self._python} "$@"\n')
        (shim / "python").chmod(0o755)
        return shim


def a_python() -> Path:
    """An interpreter that somebody without rights can start: that of this environment, else the system's."""
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in (own, Path("/usr/bin/python3")):
        resolved = found.resolve()
        if os.geteuid() != 0:
            return resolved
        if resolved.exists() and all(parent.stat().st_mode & 0o001 for parent in resolved.parents):
            return resolved
    raise AssertionError("This test needs a Python that other users can start; on Debian: python3")


def unprivileged() -> dict[str, Any]:
    """Arguments of a process that make it the image's user, where this one may do so."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


def _uv_cache() -> str:
    return subprocess.run(
        [Path(sys.executable).parent / "uv", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
