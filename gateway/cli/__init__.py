"""The commands. Each is in a file of its own; here is only the list, so that `--help` is quick and tells the
story. Commands import what they need when they run.
"""

from __future__ import annotations

import typer

from gateway.cli import (
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
)

app = typer.Typer(
    help="A gateway between your apps and the Claude API: caching that pays, budgets that hold, exact books.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold prompts and credentials
    add_completion=False,
)
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)
app.command("explain")(explain.explain)
app.command("healthcheck")(healthcheck.healthcheck)
app.command("prewarm")(prewarm.prewarm)
app.add_typer(keys.app, name="keys")
app.add_typer(budget.app, name="budget")
app.add_typer(config.app, name="config")
app.add_typer(report.app, name="report")
app.add_typer(ledger.app, name="ledger")
app.command("reconcile")(reconcile.reconcile_command)
app.command("replay")(replay.replay)
app.command("simulate")(simulate.simulate)
app.command("statement")(statement.statement)


@app.command()
def demo() -> None:
    """Play a workload of three workspaces through a gateway of its own and print what caching saved."""
    from gateway.cli.demo import run_demo

    run_demo()


@app.command(hidden=True)
def planner() -> None:
    """Answer the planner protocol, JSON lines on standard input and output: for pricing it on traces."""
    from gateway.cli.planner import main as answer

    answer()


def main() -> None:
    """The `gateway` command."""
    app()
