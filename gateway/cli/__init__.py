"""The commands. Each is in a file of its own; here is only the list, so that `--help` is quick and tells the
story. Commands import what they need when they run.
"""

from __future__ import annotations

from typing import Any

import typer
import typer.core

from gateway.cli import (
    alerts,
    budget,
    config,
    doctor,
    explain,
    healthcheck,
    keys,
    ledger,
    prewarm,
    reconcile,
    replay,
    report,
    run,
    simulate,
    statement,
    top,
)

SERVE, SEE, SPEND, CACHE, BOOKS = "Serve", "See what it does", "Who may spend what", "Caching", "The books"
"""In the order in which people need them."""
ORDER = (
    *("demo", "run", "config", "doctor", "healthcheck", "simulate"),
    *("top", "report", "statement", "alerts"),
    *("keys", "budget"),
    *("explain", "prewarm", "replay"),
    *("ledger", "reconcile"),
)


class Told(typer.core.TyperGroup):
    """The commands in the order in which `--help` tells of them, and not all groups after all commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # typer gives its type no public name
        places = {name: place for place, name in enumerate(ORDER)}
        return sorted(super().list_commands(ctx), key=lambda name: places.get(name, len(ORDER)))


app = typer.Typer(
    cls=Told,
    help="A gateway between your apps and the Claude API: caching that pays, budgets that hold, exact books.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold prompts and credentials
)
app.command("run", rich_help_panel=SERVE)(run.run)
app.add_typer(
    config.app, name="config", rich_help_panel=SERVE, short_help="Check, explain and describe the settings."
)
app.command("doctor", rich_help_panel=SERVE)(doctor.doctor)
app.command("healthcheck", rich_help_panel=SERVE)(healthcheck.healthcheck)
app.command("simulate", rich_help_panel=SERVE)(simulate.simulate)
app.command("top", rich_help_panel=SEE)(top.top)
app.add_typer(
    alerts.app, name="alerts", rich_help_panel=SEE, short_help="Show what people were told; send a sample."
)
app.add_typer(
    report.app,
    name="report",
    rich_help_panel=SEE,
    short_help="What was spent, by whom, on what and when; and why.",
)
app.command("statement", rich_help_panel=SEE)(statement.statement)
app.add_typer(
    keys.app, name="keys", rich_help_panel=SPEND, short_help="Make, list and revoke the keys of apps."
)
app.add_typer(
    budget.app,
    name="budget",
    rich_help_panel=SPEND,
    short_help="See what may be spent, and change it at once.",
)
app.command("explain", rich_help_panel=CACHE)(explain.explain)
app.command("prewarm", rich_help_panel=CACHE)(prewarm.prewarm)
app.command("replay", rich_help_panel=CACHE)(replay.replay)
app.add_typer(
    ledger.app, name="ledger", rich_help_panel=BOOKS, short_help="Verify, keep and share the ledger."
)
app.command("reconcile", rich_help_panel=BOOKS)(reconcile.reconcile_command)


@app.command(rich_help_panel=SERVE)
def demo() -> None:
    """Play a workload of three workspaces through a gateway of its own and print what caching saved."""
    from gateway.cli.demo import run_demo

    run_demo()


@app.command(hidden=True)
def worker() -> None:
    """Be one worker of `gateway run --workers`, which starts it."""
    from gateway.cli.worker import run_worker

    run_worker()


@app.command(hidden=True)
def planner() -> None:
    """Answer the planner protocol, JSON lines on standard input and output: for pricing it on traces."""
    from gateway.cli.planner import main as answer

    answer()


def main() -> None:
    """The `gateway` command."""
    app()
