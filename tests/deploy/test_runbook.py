"""The runbook: a section for each alert and no other, commands that exist, queries that can be asked, tests
that are there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gateway.adapters.ledger import Ledger
from gateway.cli import app
from tests.deploy.shipped import ROOT, RUNBOOK, alerts, exported, recorded
from tests.e2e.whole.calls import ASK
from tests.support.prometheus_server import checked, metric_names

TEXT = RUNBOOK.read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
QUERIES = re.findall(r"^```promql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    spans = re.findall(
        r"(?<!`)`([^`]+)`(?!`)", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    )
    return sorted({" ".join(span.split()) for span in spans if re.match(r"gateway\s+\w", span)})


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    assert sorted(SECTIONS) == sorted(alerts())


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_a_section_says_how_bad_it_is_what_to_do_and_when_it_is_over(alert: str) -> None:
    section = SECTIONS[alert]

    assert section.strip().startswith(alerts()[alert]["labels"]["severity"] + ". ")
    assert re.search(r"\bOver\b|alert\s+ends", section), "how to tell that it is over"
    assert len(section.split()) >= 25


def test_every_command_that_is_quoted_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "request.json").write_text("{}")
    wrong = {}
    assert len(commands()) > 15
    for command in commands():
        if command in ("gateway budget", "gateway prewarm", "gateway reconcile", "gateway replay"):
            continue  # named, not quoted
        try:
            _parse(shlex.split(command)[1:])
        except Exception as error:
            wrong[command] = f"{type(error).__name__}: {error}"

    assert wrong == {}


def test_every_command_that_reads_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only checked once it is done, as which options go together."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_CONFIG", str(ROOT / "config"))
    (tmp_path / "var").mkdir()
    Ledger(tmp_path / "var/ledger.sqlite3").close()
    (tmp_path / "request.json").write_text(json.dumps(ASK))
    reading = ("gateway report", "gateway ledger prune", "gateway ledger verify", "gateway explain")
    done = {
        command: CliRunner().invoke(app, shlex.split(command)[1:])
        for command in commands()
        if command.startswith((*reading, "gateway config check"))
    }

    assert len(done) > 8
    assert {command: run.output for command, run in done.items() if run.exit_code} == {}


def _parse(arguments: list[str]) -> None:
    """As the command line does, without doing it. Raises where it would."""
    command = typer.main.get_command(app)
    context = command.make_context("gateway", list(arguments))
    while isinstance(command, typer.core.TyperGroup):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, found, left = command.resolve_command(context, rest)
        assert found is not None, name
        command = found
        context = command.make_context(name, left, parent=context)


def test_every_query_names_what_is_exported_or_recorded() -> None:
    known = exported() | set(recorded())

    assert len(QUERIES) > 10
    for query in QUERIES:
        assert metric_names(query) - known == set(), query


def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    rules = "".join(
        f"      - record: q{number}\n        expr: |\n{_indented(query)}\n"
        for number, query in enumerate(QUERIES)
    )
    (tmp_path / "queries.yaml").write_text(f"groups:\n  - name: queries\n    rules:\n{rules}")

    checked("promtool", "check", "rules", str(tmp_path / "queries.yaml"))


def _indented(query: str) -> str:
    return "\n".join(f"          {line}" for line in query.splitlines())


def test_links_lead_to_files_and_headings() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        name, _, anchor = target.partition("#")
        path = (RUNBOOK.parent / name).resolve() if name else RUNBOOK
        assert path.is_file(), target
        assert not anchor or anchor in set(_anchors(path)), target


def _anchors(path: Path) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_each_alert_fired_in_the_tests_that_are_named() -> None:
    rows = {
        alert: re.findall(r"`(test_\w+)`", tests)
        for alert, tests in re.findall(r"^\| (Gateway\w+) \|.+\| (.+) \|$", TEXT, re.MULTILINE)
    }
    where = {
        name: text
        for text in (path.read_text(encoding="utf-8") for path in (ROOT / "tests/deploy").rglob("test_*.py"))
        for name in re.findall(r"^async def (test_\w+)", text, re.MULTILINE)
    }

    assert sorted(rows) == sorted(alerts())
    for alert, named in rows.items():
        assert named, alert
        for name in named:
            assert f'"{alert}"' in where[name], (alert, name)
