"""A configuration directory that loads, to be broken in one place at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError, ConfigProblem
from gateway.settings.load import Settings, load_settings

GATEWAY = """\
upstreams:
  default:
    base_url: https://upstream.example
    credential: {env: UPSTREAM_KEY}
"""
LIMITS = """\
defaults:
  - id: month
    scope: workspace
    unit: usd
    amount: $25.00
    per: month
    comment: for all
"""
WORKSPACES = """\
workspaces:
  demo: {}
"""


class Directory:
    """Files that are written, loaded and complained about."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ: dict[str, str] = {"UPSTREAM_KEY": "sk-test-upstream"}
        self.write("gateway.yaml", GATEWAY)
        self.write("limits.yaml", LIMITS)
        self.write("workspaces.yaml", WORKSPACES)

    def write(self, name: str, text: str | bytes) -> None:
        (self.path / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    def load(self, environ: Mapping[str, str] | None = None) -> Settings:
        return load_settings(self.path, {**self.environ, **(environ or {})})

    def problems(self, environ: Mapping[str, str] | None = None) -> tuple[ConfigProblem, ...]:
        with pytest.raises(ConfigError) as error:
            self.load(environ)
        assert all(str(problem) in str(error.value) for problem in error.value.problems)
        return error.value.problems

    def lines(self, environ: Mapping[str, str] | None = None) -> list[str]:
        """Every problem as people read it, without the directory."""
        return [str(problem).removeprefix(f"{self.path}/") for problem in self.problems(environ)]


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)
