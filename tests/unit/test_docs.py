"""What the documents name is there: files, headings, commands and their options, make targets, tests,
metrics, settings.

Whether what they say is true is for whoever writes them; these are the parts that rot unseen.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.core
from pydantic import BaseModel

from gateway.cli import COMMANDS, load
from gateway.settings.gateway import GatewayFile
from tests.deploy.shipped import exported
from tests.support.prometheus_server import metric_names

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for folder in ("config", "deploy", "docs", "gateway", "helm", "tests")
            for page in (ROOT / folder).rglob("*.md")
        ),
    ]
)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text()))
        if not target.startswith(("https://", "http://127.0.0.1")) and not leads_somewhere(page, target)
    ]

    assert broken == []


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    named = [
        span
        for span in spans(page)
        if re.fullmatch(r"(gateway|tests|config|deploy|helm|docs)/[\w*./-]*\w/?", span)
    ]
    made = ("deploy/secrets",)  # by deploy/make-secrets

    assert [name for name in named if not name.startswith(made) and not any(ROOT.glob(name))] == []


@each_page
def test_commands_that_are_quoted_exist_with_their_options(page: Path) -> None:
    wrong = {command: trouble for command in commands(page) if (trouble := trouble_with(command))}

    assert wrong == {}


@each_page
def test_make_targets_exist(page: Path) -> None:
    there_are = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    quoted = [*spans(page), *(line.strip() for line in blocks(page))]
    named = {target for text in quoted for target in re.findall(r"^make ([a-z][\w-]*)", text)}

    assert named - there_are == set()


@each_page
def test_modules_that_are_to_be_run_exist(page: Path) -> None:
    named = set(re.findall(r"python -m (tests\.[\w.]*\w)", page.read_text()))

    assert {
        name for name in named if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    } == set()


@each_page
def test_tests_that_are_named_exist(page: Path) -> None:
    named = {name for span in spans(page) for name in re.findall(r"^test_\w+$", span)}

    assert named - every_test() == set()


@each_page
def test_metrics_that_are_named_exist(page: Path) -> None:
    of_supervisor = re.findall(r'name="(gateway_\w+)"', (ROOT / "gateway/supervisor.py").read_text())
    known = {re.sub(r"_(bucket|count|sum)$", "", name) for name in (*exported(), *of_supervisor)}
    named = {
        name
        for span in spans(page)
        if re.fullmatch(r"gateway_\w+(\{[^}]*\})?", span)
        for name in metric_names(span)
    }
    gone = {"gateway_counterfactual_cost_usd_total", "gateway_ledger"}  # of the past; a schema of PostgreSQL

    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} - known - gone == set()


@each_page
def test_settings_of_gateway_yaml_that_are_named_exist(page: Path) -> None:
    sections = "|".join(GatewayFile.model_fields)
    named = {
        span.split(":")[0] for span in spans(page) if re.fullmatch(rf"({sections})\.[a-z_.]+(: .*)?", span)
    }
    files = re.compile(r"\.(md|py|yaml|sqlite3|bin|svg)$")
    if page.parent.name == "helm":
        named = set()  # its values are the chart's, and a test makes their table

    assert {name for name in named if not files.search(name) and not is_setting(name)} == set()


def test_the_readme_gives_the_measured_savings() -> None:
    """Its shares are those of the table in docs/caching.md that they are drawn from."""
    measured = (
        (ROOT / "docs/caching.md").read_text().partition("Reads at 0.1:\n")[2].partition("Reads at 0.025")[0]
    )
    shares = {}
    for row in re.findall(r"^\| ([a-zA-Z].*) \|$", measured, re.MULTILINE):
        trace, requests, none, automatic, *_, learned = row.split(" | ")
        if requests.replace(",", "").isdecimal():
            cost = float(learned.strip("*"))
            shares[trace.lower(), requests] = [share(cost / float(rule)) for rule in (none, automatic)]
    table = re.findall(
        r"^\| (\w.*) \| ([\d,]+) \| (\S+) \| (\S+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )

    assert len(shares) > 5
    assert {(trace.lower(), requests): [*drawn] for trace, requests, *drawn in table} == shares


def share(ratio: float) -> str:
    """As people write how much less it is: "-26%", and a decimal where it is less than one per cent."""
    less = (ratio - 1) * 100
    return f"{less:.1f}%" if 0 < abs(less) < 0.5 else f"{less:.0f}%"


def leads_somewhere(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    return path.exists() and (not anchor or anchor in set(anchors(path)))


def anchors(path: Path) -> Iterator[str]:
    """As GitHub makes them of headings."""
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def spans(page: Path) -> tuple[str, ...]:
    """What stands between single backticks, outside of blocks."""
    found = re.findall(r"(?<!`)`([^`]+)`(?!`)", FENCE.sub("", page.read_text()))
    return tuple(" ".join(span.replace(r"\|", "|").split()) for span in found)


def blocks(page: Path) -> Iterator[str]:
    """Lines of blocks, fenced or indented."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        yield from block[0].replace("\\\n", " ").splitlines()[1:-1]
    yield from re.findall(r"^    (.+)$", FENCE.sub("", text), re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """Command lines of the gateway: spans, and lines of blocks without what stands before the command."""
    for span in spans(page):
        if re.match(r"gateway [a-z-]", span):
            yield span
    for line in blocks(page):
        yield from re.findall(r"(?:^|\s|\.venv/bin/)(gateway (?!gateway )[a-z-][^#|>&]*)", line)


def trouble_with(command: str) -> str:
    """Why the command cannot be given, or nothing. Arguments are not looked at: many stand for others."""
    words = command.split()[1:]
    if words[0].startswith("-"):
        return "" if words[0] in ("--help", "--version") else f"no option {words[0]}"
    return "; ".join(filter(None, (trouble_of(name, words[1:]) for name in words[0].split("|"))))


def trouble_of(name: str, words: list[str]) -> str:
    if name not in {each.name for each in COMMANDS}:
        return f"no command {name}"
    found = load(name)
    if words and isinstance(found, typer.core.TyperGroup) and not words[0].startswith("-"):
        below = words[0].split("|")
        if unknown := sorted({*below} - {*found.commands}):
            return f"no command {name} {unknown}"
        options = set().union(*(options_of(found.commands[one]) for one in below))
    else:
        options = options_of(found)
    given = {word.strip(",.;").partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return ", ".join(f"no option {option}" for option in sorted(given - options - {"--help"}))


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@cache
def every_test() -> frozenset[str]:
    """And the files that they are in, by the same kind of name."""
    files = [*(ROOT / "tests").rglob("test_*.py")]
    names = {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M)
    }
    return frozenset(names | {file.stem for file in files})


def is_setting(name: str) -> bool:
    """Whether a path of names, with NAME for those that people choose, is one of gateway.yaml."""
    value: Any = GatewayFile
    for step in name.split("."):
        models = [model for model in models_of(value) if step in model.model_fields]
        if models:
            value = models[0].model_fields[step].annotation
        elif (named := next(dicts_of(value), None)) is not None:
            value = named  # the step is a name that people chose
        else:
            return False
    return True


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            yield from models_of(part)


def dicts_of(annotation: Any) -> Iterator[Any]:
    """What the values of a dict are, where the annotation is one or may be."""
    for one in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(one) is dict:
            yield typing.get_args(one)[1]
