"""`gateway explain`: what the gateway would do with one request, and why; and why it would not read what
another one wrote. Sends nothing."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.config import ConfigOption, JsonOption, settings_or_exit
from gateway.cli.explained import Asking, Explained, explain_body
from gateway.core.errors import BadRequest
from gateway.core.ids import WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.placement import PlacementPolicy
from gateway.core.planner import PlannerOptions
from gateway.core.rule_policy import RulePolicy
from gateway.settings import Settings, build_keyring, build_rules
from gateway.settings.gateway import Policy

_KNOWN_PREFIXES = 1 << 16
"""Room enough for two prompts of any length that the API takes in practice."""

PreviousOption = Annotated[
    Path | None,
    typer.Option(
        metavar="OTHER.JSON",
        help="Say why the request would not read from the cache what this one wrote.",
        exists=True,
        dir_okay=False,
    ),
]


def explain(
    request: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST.JSON",
            help="Body of a /v1/messages call; - reads standard input.",
            exists=True,
            allow_dash=True,
            dir_okay=False,
        ),
    ],
    previous: PreviousOption = None,
    after: Annotated[float, typer.Option(min=0.0, help="Seconds since that one.")] = 60.0,
    policy: Annotated[
        Policy | None, typer.Option(help="Who places; else the configured one. `learned` begins afresh.")
    ] = None,
    workspace: Annotated[str, typer.Option(help="As whose call to look at it.")] = "demo",
    beta: Annotated[str, typer.Option(help="The call's anthropic-beta header.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print blocks, prefix keys, breakpoints with reasons, the estimate and the limits that bind.

    The same code decides as in the running gateway, which knows more: it has
    seen other requests. Prefix keys are keyed digests: they compare within one
    installation, and say nothing about content.

    gateway explain request.json

    gateway explain turn-2.json --previous turn-1.json --after 30
    """
    settings = settings_or_exit(config)
    rules = build_rules(settings, build_keyring(settings, ()), 1)
    if workspace not in rules.workspaces:
        known = ", ".join(sorted(rules.workspaces))
        raise typer.BadParameter(f"workspaces.yaml has no workspace {workspace!r}; it has: {known}")
    asking = Asking(
        rules=rules,
        workspace=rules.workspaces[WorkspaceId(workspace)],
        policy=_policy(policy or settings.gateway.placement.policy, settings),
        at=time.time(),  # noqa: TID251 - a command, run by a person, now
        headers=((b"anthropic-beta", beta.encode()),) if beta else (),
        seconds_after=after,
    )
    body = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
    try:
        explained = explain_body(body, asking, None if previous is None else previous.read_bytes())
    except BadRequest as error:
        typer.echo(f"The gateway would answer 400: {error.message}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(asdict(explained), indent=2))
    else:
        _print(explained)


def _policy(policy: Policy, settings: Settings) -> PlacementPolicy:
    """A fresh one, that warms nothing."""
    if policy is Policy.RULES:
        return RulePolicy()
    placement = settings.gateway.placement
    return LearnedPolicy(
        PlannerOptions(
            capacity=_KNOWN_PREFIXES,
            regret_share=placement.regret_share,
            layered_trust=placement.layered_trust,
            warming=False,
        )
    )


def _print(explained: Explained) -> None:
    console = Console()
    model, placement, estimate = explained.model, explained.placement, explained.estimate
    known = "" if model.known else " (not in the price table: the stated fallback holds)"
    least = model.minimum_cacheable_tokens
    console.print(f"[bold]{escape(model.asked)}[/bold]{known}, caches from {least} tokens on")
    console.print(_table(explained))
    for block in explained.blocks:
        if block.reason:
            console.print(f"Breakpoint on block {block.block}: {escape(block.reason)}")
    console.print(f"Placement ({placement.mode}): {escape(placement.reason)}")
    if placement.read_tokens:
        console.print(f"Expected to be read from the cache: {placement.read_tokens:,} tokens")
    for miss in explained.misses:
        console.print(f"Not read ({miss.cause}): {escape(miss.reason)}")
    if explained.compared and not explained.misses:
        console.print("Nothing in it keeps it from reading what the other one wrote")
    console.print(
        f"Set aside ({estimate.mode}): {estimate.input_tokens:,} input and "
        f"{estimate.output_tokens:,} output tokens, ${estimate.usd}"
    )
    for limit in explained.limits:
        console.print(f"Limit {limit.id} ({limit.scope}, {limit.mode}): {limit.amount}, {limit.period}")


def _table(explained: Explained) -> Table:
    names = ("", "level", "role", "type", "bytes", "tokens", "prefix", "mark")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for block in explained.blocks:
        table.add_row(
            str(block.block),
            block.level,
            escape(block.role),
            escape(block.type),
            f"{block.bytes:,}",
            f"{block.prefix_tokens:,}",
            block.prefix_key[:8],
            block.breakpoint or (f"client's {block.client_ttl}" if block.client_ttl else ""),
        )
    return table
