"""The commands. Each is in a module of its own; here is only the list, so that `--help` is quick and tells
the story. A command's module is loaded when that command is asked for, and no other.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any, NamedTuple

import typer
import typer.core

import gateway

SERVE, SEE, SPEND, CACHE, BOOKS = "Serve", "See what it does", "Who may spend what", "Caching", "The books"


class Listed(NamedTuple):
    """What is known of a command without loading it."""

    name: str
    panel: str | None
    """Under which heading it is told of; None: to nobody, since it is of no use to people."""
    sentence: str
    source: str
    """Module of this package, and its function or group of commands."""


COMMANDS = (
    Listed("demo", SERVE, "See caching save money in half a minute, without a key.", "demo:demo"),
    Listed("run", SERVE, "Start the gateway.", "run:run"),
    Listed("config", SERVE, "Check, explain and describe the settings.", "config:app"),
    Listed("doctor", SERVE, "Find out what is wrong, and what to do about it.", "doctor:doctor"),
    Listed(
        "healthcheck", SERVE, "Ask whether the gateway is alive, for containers.", "healthcheck:healthcheck"
    ),
    Listed("simulate", SERVE, "Run a simulated Claude API, to test against.", "simulate:simulate"),
    Listed("top", SEE, "Watch open calls, rates, caching and limits.", "top:top"),
    Listed("report", SEE, "Show what was spent, by whom, on what and why.", "report:report"),
    Listed("statement", SEE, "Print a month's statement for each cost centre.", "statement:statement"),
    Listed("alerts", SEE, "Show which alerts people got; send a sample.", "alerts:app"),
    Listed("keys", SPEND, "Make, list and revoke the keys of apps.", "keys:app"),
    Listed("budget", SPEND, "See what may be spent, and change it at once.", "budget:app"),
    Listed("explain", CACHE, "Show where breakpoints go in one request, and why.", "explain:explain"),
    Listed("prewarm", CACHE, "Put prompts into the cache before the first call.", "prewarm:prewarm"),
    Listed("replay", CACHE, "Price every caching policy on recorded traffic.", "replay:replay"),
    Listed("ledger", BOOKS, "Verify, restore, share and prune the ledger.", "ledger:app"),
    Listed(
        "reconcile", BOOKS, "Compare the ledger with the provider's reports.", "reconcile:reconcile_command"
    ),
    Listed("worker", None, "Be one worker of `gateway run --workers`.", "worker:run_worker"),
    Listed("planner", None, "Answer the planner protocol.", "planner:planner"),
)
"""In the order in which people need them."""


class Commands(typer.core.TyperGroup):
    """Knows each command by its line of the list, and loads it when it is to do something."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            each.name: typer.core.TyperCommand(
                each.name, help=each.sentence, hidden=each.panel is None, rich_help_panel=each.panel
            )
            for each in COMMANDS
        }

    def list_commands(self, ctx: Any) -> list[str]:  # typer gives its type no public name
        return [each.name for each in COMMANDS]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


def load(name: str) -> Any:
    """The command of that name itself, with its options. Raises KeyError."""
    module, _, attribute = {each.name: each.source for each in COMMANDS}[name].partition(":")
    found = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold prompts and credentials
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"claude-cache-gateway {gateway.__version__}")
        raise typer.Exit


@app.callback(
    epilog="`gateway run --demo` serves without a key of the provider's; `gateway COMMAND --help` says more."
)
def every(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A gateway between your apps and the Claude API: caching that pays, budgets that hold, exact books."""


def main() -> None:
    """The `gateway` command."""
    app()
