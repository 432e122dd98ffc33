"""`gateway alerts`: what people were told by a running gateway, whether it arrived, and whether it would."""

from __future__ import annotations

import asyncio
import json
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
from gateway.cli.printing import plain

MOST = 500

app = typer.Typer(
    help="Show what people were told: budgets that run out, unusual spend, freezes; and send a test.",
    no_args_is_help=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="As the admin API answers.")]


@app.command("log")
def show_log(
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=MOST, help="How many alerts.")] = 50,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Show the last alerts of all replicas, newest first, and what became of each.

    Exit code 0: done. 1: the gateway did not answer, or refused. 2: the command
    is wrong.
    """
    answer = _ask(AdminClient.from_options(url, token_env), "GET", "/v1/alerts", {"limit": str(last)})
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    if not answer["alerts"]:
        print("No alerts. Where they go is said under `alerts.targets` of gateway.yaml.")
    for alert in answer["alerts"]:
        print("\n".join(_lines(alert)))


@app.command()
def test(
    target: Annotated[
        str, typer.Argument(metavar="[TARGET]", help="Name of one target; all of them without it.")
    ] = "",
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Send a sample to all targets, or to one, and say whether it arrived.

    Filters of the targets are not looked at, and nothing is tried twice.

    Exit code 0: it arrived everywhere. 1: it did not, or the gateway did not
    answer. 2: the command is wrong.
    """
    client = AdminClient.from_options(url, token_env)
    answer = _ask(client, "POST", "/v1/alerts/test", {"target": target} if target else {})
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(_deliveries(answer)))
    if any(each["state"] != "delivered" for each in answer["deliveries"]):
        raise typer.Exit(1)


def _ask(client: AdminClient, method: str, path: str, query: dict[str, str]) -> JsonObject:
    try:
        return asyncio.run(client.send(method, path, query))
    except AdminUnusable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _lines(alert: JsonObject) -> list[str]:
    facts = [f"  {name}: {plain(text)}" for name, text in alert["facts"].items()]
    command = [f"  {plain(alert['command'])}"] if alert["command"] else []
    return [
        f"{alert['at']}  {alert['kind']}  {plain(alert['headline'])}",
        *facts,
        *command,
        *_deliveries(alert),
    ]


def _deliveries(alert: JsonObject) -> list[str]:
    again = f"; again at {alert['next_attempt_at']}" if alert["next_attempt_at"] else ""
    return [
        f"  -> {each['target']}: {each['state']} after {each['attempts']} "
        f"{'attempt' if each['attempts'] == 1 else 'attempts'} ({plain(each['said']) or 'not tried yet'})"
        f"{again if each['state'] == 'waiting' else ''}"
        for each in alert["deliveries"]
    ]
