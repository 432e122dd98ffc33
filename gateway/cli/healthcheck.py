"""`gateway healthcheck`: whether the gateway beside it is alive, for whoever starts and restarts containers.

It asks the admin plane's /livez, which says that the event loop turns and nothing else: what a restart cannot
mend (the store, upstream) must not cause one. Liveness only: readiness is /readyz, for load balancers.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Annotated
from urllib.parse import urlsplit

import typer

from gateway.cli.config import ConfigOption, settings_or_exit

ADMIN_VARIABLE = "GATEWAY_LISTEN__ADMIN"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104 - read, not bound


def healthcheck(
    config: ConfigOption = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help=f"Admin plane to ask; else that of {ADMIN_VARIABLE} or the settings."),
    ] = None,
    seconds: Annotated[float, typer.Option("--timeout", min=0.1, help="How long to wait, in seconds.")] = 3.0,
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
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if host is None or parts.scheme != "http":
        raise typer.BadParameter("write it as http://127.0.0.1:9090", param_hint="--url")
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(4096)
    except (OSError, http.client.HTTPException) as error:
        return False, f"No gateway answers at {url}{path}: {error or type(error).__name__}."
    finally:
        connection.close()
    if answer.status != 200:
        return False, f"{url}{path} answers with status {answer.status}{_why(body)}."
    return True, f"The gateway at {url} is {'alive' if path == '/livez' else 'ready'}."


def admin_url(address: str) -> str:
    """The URL at which a process of the same machine reaches a listener on `address`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listens(config: ConfigOption) -> str:
    # The variable wins over the file, so where it is set the files need not be read.
    return os.environ.get(ADMIN_VARIABLE) or settings_or_exit(config).gateway.listen.admin


def _why(body: bytes) -> str:
    """What a probe gives as its reasons."""
    try:
        failing = json.loads(body)["failing"]
        return f" ({', '.join(str(reason) for reason in failing)})"
    except (ValueError, KeyError, TypeError):
        return ""
