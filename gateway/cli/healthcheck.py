"""`gateway healthcheck`: whether the gateway beside it is alive, for whoever starts and restarts containers.

It asks the admin plane's /livez, which says that the event loop turns and nothing else: what a restart cannot
mend (the store, upstream) must not cause one. Liveness only: readiness is /readyz, for load balancers.
Without options, and where a variable says where to ask, `liveness.py` answers before any of this is loaded.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gateway import liveness
from gateway.cli.config import ConfigOption, settings_or_exit
from gateway.liveness import ADMIN_VARIABLE, TIMEOUT_SECONDS, admin_url


def healthcheck(
    config: ConfigOption = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help=f"Admin plane to ask; else that of {ADMIN_VARIABLE} or the settings."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--timeout", min=0.1, help="How long to wait, in seconds.")
    ] = TIMEOUT_SECONDS,
) -> None:
    """Ask the gateway on this machine whether it is alive. Exit code 0: it is; 1: it is not, or not yet."""
    alive, sentence = ask(url or admin_url(_listens(config)), "/livez", seconds)
    typer.echo(sentence, err=not alive)
    if not alive:
        raise typer.Exit(1)


def ask(url: str, path: str, seconds: float) -> tuple[bool, str]:
    """Whether that probe of the admin plane at `url` answers 200 within the time, and a sentence about it.
    Raises `typer.BadParameter` where the URL is none."""
    try:
        return liveness.ask(url, path, seconds)
    except ValueError:
        raise typer.BadParameter("write it as http://127.0.0.1:9090", param_hint="--url") from None


def _listens(config: ConfigOption) -> str:
    # The variable wins over the file, so where it is set the files need not be read.
    return os.environ.get(ADMIN_VARIABLE) or settings_or_exit(config).gateway.listen.admin
