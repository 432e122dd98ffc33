"""`gateway config`: is the configuration right, what does it come to, what may stand in it. Read-only.

Everything is printed with secrets as references. Exit code 1: the configuration cannot be used.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from gateway.core.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:  # the models take a while to load, and every command has the options below
    from gateway.settings import Settings

app = typer.Typer(help="Check, explain and describe the configuration.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="DIR",
        help="Directory of the YAML files; else GATEWAY_CONFIG, else ./config, else the shipped defaults.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say everything that is wrong, with file, line and what to write instead.

    Exit code 0 means that a gateway would start with these files; warnings do not change it.
    """
    from gateway.settings import find_directory, load_settings
    from gateway.settings.checks import check_prompts

    directory = find_directory(config, os.environ)
    try:
        settings = load_settings(directory, os.environ)
    except ConfigError as error:
        _print_check(directory, error.problems, (), as_json)
        raise typer.Exit(1) from None
    _print_check(directory, (), (*settings.warnings, *check_prompts(settings)), as_json)


@app.command()
def explain(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print what is in force: files, defaults and environment together, every limit resolved.

    Secrets are shown as the references they are; nothing secret is read.
    """
    from rich.console import Console
    from rich.syntax import Syntax

    from gateway.settings.explain import explain_settings

    settings = settings_or_exit(config)
    text = json.dumps(explain_settings(settings), indent=2, ensure_ascii=False)
    if as_json:
        typer.echo(text)
    else:
        Console(soft_wrap=True).print(
            Syntax(_as_yaml(json.loads(text)), "yaml", background_color="default", word_wrap=True)
            if sys.stdout.isatty()
            else _as_yaml(json.loads(text)),
            highlight=False,
            markup=False,
        )


@app.command()
def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the files there, and print their names."),
    ] = None,
) -> None:
    """Print the JSON Schema of each file, for editors and for checks elsewhere."""
    from gateway.settings.schema import schema_texts

    texts = schema_texts()
    if out is None:
        typer.echo(json.dumps({name: json.loads(text) for name, text in texts.items()}, indent=2))
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
        typer.echo(str(out / name))


def settings_or_exit(config: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings that a command works with; prints what is wrong and exits with 1 where there are none."""
    from gateway.settings import find_directory, load_settings

    try:
        return load_settings(find_directory(config, environ), environ)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@contextmanager
def owner_only() -> Iterator[None]:
    """What is made meanwhile is for this user alone, as what `gateway run` makes is."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def is_url(text: str) -> bool:
    """Whether it leads to a server, by HTTP or HTTPS."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, an address with one bracket
        return False


def _print_check(
    directory: Path, errors: Sequence[ConfigProblem], warnings: Sequence[ConfigProblem], as_json: bool
) -> None:
    if as_json:
        result = {
            "directory": str(directory),
            "ok": not errors,
            "errors": [_fields(problem) for problem in errors],
            "warnings": [_fields(problem) for problem in warnings],
        }
        typer.echo(json.dumps(result, indent=2))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    for problem in errors:
        console.print(f"[bold red]error[/]    {escape(str(problem))}")
    for problem in warnings:
        console.print(f"[yellow]warning[/]  {escape(str(problem))}")
    if errors:
        console.print(f"[bold red]{len(errors)} to mend[/] before a gateway would start with {directory}.")
    else:
        console.print(f"[green]good[/]     {escape(str(directory))} can be used.")


def _fields(problem: ConfigProblem) -> dict[str, str | int]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
    }


def _as_yaml(value: object) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 1_000_000
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    out = StringIO()
    yaml.dump(value, out)
    return out.getvalue()
