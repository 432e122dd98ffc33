"""`gateway explain`: what the gateway would do with one request, and why. Sends nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.config import ConfigOption, JsonOption, settings_or_exit
from gateway.core.errors import BadRequest
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.placement import block_tokens
from gateway.core.plan import Plan, estimate_plan, place_call, read_call, wants_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.principal import Principal
from gateway.core.refusal import show_amount
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Rules, Workspace
from gateway.settings import build_keyring, build_rules


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
    workspace: Annotated[str, typer.Option(help="As whose call to look at it.")] = "demo",
    beta: Annotated[str, typer.Option(help="The call's anthropic-beta header.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print blocks, prefix keys, breakpoints with reasons, the estimate and the limits that bind.

    The same code decides as in the running gateway. Prefix keys are keyed digests: they compare within one
    installation, and say nothing about content.
    """
    settings = settings_or_exit(config)
    rules = build_rules(settings, build_keyring(settings, ()), 1)
    if workspace not in rules.workspaces:
        known = ", ".join(sorted(rules.workspaces))
        raise typer.BadParameter(f"workspaces.yaml has no workspace {workspace!r}; it has: {known}")
    body = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
    try:
        explained = explain_body(body, rules, rules.workspaces[WorkspaceId(workspace)], beta)
    except BadRequest as error:
        typer.echo(f"The gateway would answer 400: {error.message}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(explained, indent=2))
    else:
        _print(explained)


def explain_body(body: bytes, rules: Rules, workspace: Workspace, beta: str = "") -> dict[str, Any]:
    """What `explain` prints, as plain values. Raises `BadRequest`."""
    headers = [(b"anthropic-beta", beta.encode())] if beta else []
    policy, at = RulePolicy(), time.time()  # noqa: TID251 - a command, run by a person, now
    wanted = wants_placement(headers, rules, workspace)
    reading = read_call(body, rules=rules, workspace=workspace, policy=policy, headers=headers, wanted=wanted)
    plan = place_call(
        reading, rules=rules, workspace=workspace, policy=policy, call_id="explain", at=at, wanted=wanted
    )
    estimate = estimate_plan(plan, rules=rules, workspace=workspace, at=at)
    nobody = Principal(
        workspace=workspace.id, key_id=KeyId("any"), key_name="", organisation=workspace.organisation
    )
    limits = rules.limits.binding(nobody, rules.models.canonical(plan.prompt.model) or plan.prompt.model)
    return {
        "workspace": workspace.id,
        "model": {
            "asked": plan.prompt.model,
            "known": plan.facts.known,
            "minimum_cacheable_tokens": plan.facts.minimum_cacheable_tokens,
        },
        "placement": {
            "mode": workspace.placement.value,
            "reason": plan.failure or plan.placement.reason,
            "client_breakpoints": plan.prompt.client_marks,
            "added_bytes": sum(map(len, plan.pieces)) - len(body),
        },
        "blocks": _blocks(plan, rules, workspace, headers),
        "estimate": {
            "mode": workspace.estimate.value,
            "input_tokens": estimate.input_tokens,
            "output_tokens": estimate.output_tokens,
            "usd": f"{estimate.nanousd / 1e9:.9f}",
        },
        "limits": [
            {
                "id": bound.limit.id,
                "scope": bound.limit.scope.value,
                "amount": show_amount(bound.limit.amount, bound.limit.unit),
                "period": bound.limit.period.value.removeprefix("calendar_"),
                "mode": bound.limit.mode.value,
            }
            for bound in limits
        ],
    }


def _blocks(
    plan: Plan, rules: Rules, workspace: Workspace, headers: list[tuple[bytes, bytes]]
) -> list[dict[str, Any]]:
    prompt = plan.prompt
    scope = cache_scope(secret=rules.prefix_secret, workspace=workspace.id, prompt=prompt, headers=headers)
    keys = prefix_keys(prompt, scope)
    tokens = block_tokens(prompt, plan.facts)
    points = {point.block: point for point in plan.placement.breakpoints}
    return [
        {
            "block": index,
            "level": block.level.value,
            "role": block.role,
            "type": block.type,
            "bytes": block.end - block.start,
            "prefix_tokens": tokens[index],
            "prefix_key": keys[index].hex(),
            "client_ttl": block.ttl.value if block.ttl else None,
            "breakpoint": points[index].ttl.value if index in points else None,
            "reason": points[index].reason if index in points else None,
        }
        for index, block in enumerate(prompt.blocks)
    ]


def _print(explained: dict[str, Any]) -> None:
    console = Console()
    model, placement, estimate = explained["model"], explained["placement"], explained["estimate"]
    known = "" if model["known"] else " (not in the price table: the stated fallback holds)"
    least = model["minimum_cacheable_tokens"]
    console.print(f"[bold]{escape(model['asked'])}[/bold]{known}, caches from {least} tokens on")
    names = ("", "level", "role", "type", "bytes", "tokens", "prefix", "mark")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in explained["blocks"]:
        mark = row["breakpoint"] or (f"client's {row['client_ttl']}" if row["client_ttl"] else "")
        table.add_row(
            str(row["block"]),
            row["level"],
            escape(row["role"]),
            escape(row["type"]),
            f"{row['bytes']:,}",
            f"{row['prefix_tokens']:,}",
            row["prefix_key"][:8],
            mark,
        )
    console.print(table)
    for row in explained["blocks"]:
        if row["reason"]:
            console.print(f"Breakpoint on block {row['block']}: {escape(row['reason'])}")
    console.print(f"Placement ({placement['mode']}): {escape(placement['reason'])}")
    console.print(
        f"Set aside ({estimate['mode']}): {estimate['input_tokens']:,} input and "
        f"{estimate['output_tokens']:,} output tokens, ${estimate['usd']}"
    )
    for limit in explained["limits"]:
        console.print(
            f"Limit {limit['id']} ({limit['scope']}, {limit['mode']}): {limit['amount']}, {limit['period']}"
        )
