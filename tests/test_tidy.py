"""House rules that no linter knows. Each failure says what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.exchange import TRANSITIONS, Closing
from gateway.web.faults import FAULTS

ROOT = Path(__file__).parent.parent
PRODUCT = sorted((ROOT / "gateway").rglob("*.py"))
SOURCES = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py"))]
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

BANNED = re.compile(
    r"(Manager|Helper|Util|Handler|Processor|Tenant|Quota)s?$|^(tenant|quota|checkpoint)_|_(tenant|quota)$"
)
"""Endings and words for which the table of words in ARCHITECTURE.md has a better one."""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_are_short_enough_to_hold_one_noun() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in SOURCES
        if (n := len(p.read_text().splitlines())) > MAX_MODULE_LINES
    }

    assert long == {}


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES
    ]

    assert long == []


def test_every_module_opens_with_its_contract() -> None:
    silent = [
        str(p.relative_to(ROOT))
        for p in PRODUCT
        if p.read_text() and not ast.get_docstring(ast.parse(p.read_text()))
    ]

    assert silent == []


def test_every_core_module_has_its_unit_file() -> None:
    modules = {path.stem for path in (ROOT / "gateway/core").glob("*.py")} - {"__init__", "ids"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit").glob("test_*.py")}

    assert modules - tested == set()


def test_no_name_uses_a_banned_word() -> None:
    found = []
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "name", None)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and BANNED.search(
                str(name)
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")

    assert found == []


def test_the_diagram_of_an_exchange_is_the_table() -> None:
    """ARCHITECTURE.md shows the table of `core/exchange.py` itself; paste what this prints."""
    lines = ["stateDiagram-v2", "    [*] --> received"]
    for (state, event), step in TRANSITIONS.items():
        closing = {
            Closing.OPEN: "open",
            Closing.RELEASE: "release",
            Closing.COUNT: "count",
            Closing.SETTLE: f"settle, {step.basis.value}",
            Closing.NONE: "none",
        }[step.closing]
        lines.append(f"    {state.value} --> {step.next.value}: {event.value} ({closing})")
    diagram = "```mermaid\n" + "\n".join(lines) + "\n```"

    assert diagram in (ROOT / "ARCHITECTURE.md").read_text(), diagram


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_every_error_code_is_in_the_docs(code: str) -> None:
    text = (ROOT / "config/README.md").read_text()
    section = text.partition("## Error codes")[2].partition("\n## ")[0]

    assert f"| `{code}` | {FAULTS[code].status} |" in section


def test_the_docs_name_no_error_code_that_does_not_exist() -> None:
    text = (ROOT / "config/README.md").read_text()
    section = text.partition("## Error codes")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE))

    assert named == set(FAULTS)


def test_todos_say_where_they_are_tracked() -> None:
    loose = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in PRODUCT
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX)\b", line)
    ]

    assert loose == []
