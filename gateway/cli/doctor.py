"""`gateway doctor`: whether all that the gateway needs is there and in order, and what to do where it is not.

For before the first start, and for when something is wrong. It changes nothing and shows no secret. What is
on this machine is checked in `doctor_local.py`, what is reached from it in `doctor_remote.py`.

Exit code 1: something failed; warnings do not change it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from gateway.adapters.clock import SystemClock
from gateway.cli.config import ConfigOption, JsonOption
from gateway.cli.demo_mark import variables_of_demo
from gateway.cli.findings import Finding, Outcome, fail, ok, warn
from gateway.core.errors import ConfigError
from gateway.ports import Clock
from gateway.settings import Settings, find_directory, load_settings
from gateway.settings.checks import check_prompts

_COLOURS = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "bold red"}


def doctor(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    upstream: Annotated[
        bool, typer.Option(help="Ask each upstream for its list of models, which is free.")
    ] = True,
) -> None:
    """Check configuration, secrets, store, ledger, prices, upstreams, clock and ports, and say what to do.

    Each line is ok, warn or fail; exit code 1 where something failed. Run it as
    the gateway's user, with its configuration and environment; it may run
    beside the gateway.
    """
    directory = find_directory(config, os.environ)
    demo = variables_of_demo(os.environ)
    findings = examine(directory, {**os.environ, **demo}, SystemClock(), upstream=upstream)
    if demo:
        found = "`gateway run --demo` runs here, and is what is looked at: a simulated Claude API answers"
        findings = (ok("demo", found), *findings)
    if as_json:
        result = {
            "ok": not _failed(findings),
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print(findings)
    if _failed(findings):
        raise typer.Exit(1)


def examine(
    directory: Path, environ: Mapping[str, str], clock: Clock, *, upstream: bool = True
) -> tuple[Finding, ...]:
    """All findings, in the order in which to mend them; those of the configuration alone where it cannot be
    used. Never raises."""
    from gateway.cli.doctor_local import LOCAL_CHECKS
    from gateway.cli.doctor_remote import REMOTE_CHECKS, check_upstreams

    try:
        settings = load_settings(directory, environ)
    except ConfigError as error:
        return tuple(
            fail("config", str(problem), "mend it; gateway config check shows the same")
            for problem in error.problems
        )
    findings = _config(settings)
    for check in (*LOCAL_CHECKS, *REMOTE_CHECKS, *((check_upstreams,) if upstream else ())):
        try:
            findings += check(settings, clock)
        except Exception as error:  # one check that fails must not hide what the others find
            name = check.__name__.removeprefix("check_")
            findings.append(
                fail(name, f"could not be checked: {type(error).__name__}", "please report this as a fault")
            )
    return tuple(findings)


def _config(settings: Settings) -> list[Finding]:
    doubtful = [*settings.warnings, *check_prompts(settings)]
    if not doubtful:
        return [ok("config", f"{settings.directory} can be used")]
    return [warn("config", str(problem), "mend it, or know why it is so") for problem in doubtful]


def _failed(findings: Sequence[Finding]) -> bool:
    return any(finding.outcome is Outcome.FAIL for finding in findings)


def _print(findings: Sequence[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        colour, outcome = _COLOURS[finding.outcome], finding.outcome.value
        check = finding.check.ljust(width)
        console.print(f"[{colour}]{outcome:<4}[/]  {escape(check)}  {escape(finding.found)}")
        if finding.todo:
            console.print(f"{'':<{width + 8}}{escape(finding.todo)}")
    counts = Counter(finding.outcome for finding in findings)
    console.print(
        f"{counts[Outcome.OK]} in order, {counts[Outcome.WARN]} doubtful, {counts[Outcome.FAIL]} to mend."
    )
