"""`gateway ledger`: look after the ledger's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.ledger import restore as restore_entries
from gateway.cli.config import ConfigOption
from gateway.cli.report import configured_ledger
from gateway.core.errors import ConfigError

app = typer.Typer(help="Look after the ledger.", no_args_is_help=True)


@app.command()
def restore(
    log: Annotated[typer.FileText, typer.Argument(help="The gateway's log; - for standard input.")],
    ledger: Annotated[
        Path | None, typer.Option(help="The ledger file. Else that of the configuration.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Put entries back that were written to the log because the ledger had no room.

    May run beside the gateway, and more than once: an entry that is there already is left alone.
    """
    path = ledger or configured_ledger(config)
    try:
        stored = restore_entries(path, log)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    except (ValueError, TypeError) as error:
        typer.echo(
            f"{log.name} holds an entry that was cut or altered: {error}. Nothing was put back.", err=True
        )
        raise typer.Exit(1) from error
    typer.echo(f"{stored} entries put back into {path}")
