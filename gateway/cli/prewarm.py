"""`gateway prewarm`: put prompts into the cache before anybody asks for them, through a running gateway.

Made for deploy hooks: lines without a terminal, and an exit code. What is printed is in `prewarm_report.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.admin_client import (
    DEFAULT_URL,
    TOKEN_VARIABLE,
    AdminClient,
    AdminUnusable,
    JsonObject,
    TokenOption,
    UrlOption,
)
from gateway.cli.config import JsonOption
from gateway.core.prompt_lines import MAX_PROMPTS_BYTES, PromptLine, as_line, read_prompt_lines


def prewarm(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="JSON lines, a prompt on each; - for standard input.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Workspace whose prompts they are, and who pays.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="By which reports know these prompts; the file's name without it.")
    ] = None,
    beta: Annotated[
        str | None,
        typer.Option(help="The anthropic-beta header that the app sends, for lines that name none."),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Warm nothing; show what warming has cost and brought so far.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Warm prompts through a running gateway, and say of each what became of it.

    FILE holds a request body on each line, exactly as the app will send it,
    or {"headers": {"anthropic-beta": "..."}, "body": {...}}. End a prompt in a
    placeholder where the user's question will stand: what comes before it is
    warmed. Each is sent once with max_tokens 0, which generates nothing, and is
    paid from the workspace's warming_per_day. What is warm already is only
    read, which prolongs it.

    Exit code 0: all are warm. 1: some are not, or the gateway did not answer.
    2: the command or FILE is wrong, and nothing was sent.

    As a deploy hook:
    gateway prewarm prompts.jsonl --workspace demo || echo "starting cold"
    """
    client = AdminClient.from_options(url, token_env)
    if status:
        if file is not None:
            raise typer.BadParameter("--status takes no FILE")
        _show_status(client, as_json)
        return
    if file is None or workspace is None:
        raise typer.BadParameter("say which prompts, and whose: gateway prewarm FILE --workspace NAME")
    prompts = _with_beta(_read(file), beta)
    query = {"workspace": workspace, "name": name or _name_of(file)}
    try:
        results = asyncio.run(_warm(client, query, prompts, as_json))
    except AdminUnusable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if not all(result["warm"] for result in results):
        raise typer.Exit(1)


def _read(file: str) -> tuple[PromptLine, ...]:
    """The prompts of a file; prints all that is wrong, by line, and exits with 2."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_PROMPTS_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_PROMPTS_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    prompts, problems = read_prompt_lines(data)
    for problem in problems:
        place = f"{file}:{problem.number}" if problem.number else file
        typer.echo(f"{place}: {problem.message}", err=True)
    if problems:
        raise typer.Exit(2)
    return prompts


def _with_beta(prompts: tuple[PromptLine, ...], beta: str | None) -> tuple[PromptLine, ...]:
    if beta is None:
        return prompts
    if not beta.isascii() or not beta.isprintable() or not beta.strip():
        raise typer.BadParameter("holds characters that a header must not", param_hint="--beta")
    line = (b"anthropic-beta", beta.strip().encode())
    return tuple(
        prompt
        if any(header == line[0] for header, _ in prompt.headers)
        else replace(prompt, headers=(line, *prompt.headers))
        for prompt in prompts
    )


def _name_of(file: str) -> str:
    """A name that the admin API takes, from the file's own."""
    letters = [c if c.isascii() and c.isalnum() else "-" for c in Path(file).stem.lower()]
    return "".join(letters).strip("-")[:63] or "asked"


async def _warm(
    client: AdminClient, query: dict[str, str], prompts: tuple[PromptLine, ...], as_json: bool
) -> list[JsonObject]:
    """What became of each, after it was shown."""
    from gateway.cli.prewarm_report import Progress, print_results

    data = b"\n".join(as_line(prompt) for prompt in prompts)
    results: list[JsonObject] = []
    summary: JsonObject | None = None
    with Progress(len(prompts), quiet=as_json) as progress:
        async for line in client.post_lines("/v1/prewarm", query, data):
            if (result := line.get("prompt")) is not None:
                # The gateway counts the lines that it was sent; people count those of their file.
                result["line"] = prompts[result["line"] - 1].number
                results.append(result)
                progress.done(result)
            summary = line.get("summary", summary)
    if as_json:
        print(json.dumps({"prompts": results, "summary": summary}, indent=2))
    elif results:
        print_results(results)
    if summary is None:
        raise AdminUnusable(f"The gateway stopped after {len(results)} of {len(prompts)} prompts.")
    return results


def _show_status(client: AdminClient, as_json: bool) -> None:
    from gateway.cli.prewarm_report import print_status

    try:
        status = asyncio.run(client.get("/v1/warming"))
    except AdminUnusable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(status, indent=2))
    else:
        print_status(status)
