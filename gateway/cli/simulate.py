"""`gateway simulate`: a stand-in for the Claude API, to point a gateway or a client at."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from gateway.cli.config import is_url


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 8900,
    speed: Annotated[
        float, typer.Option(min=0.1, help="How many times faster than a real model it answers.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of answers, and of faults that come by chance.")] = 0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault to begin with, as status,status=529,times=3; may be repeated."),
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="By which clients reach it; results of batches are linked by it.")
    ] = None,
) -> None:
    """Run the Messages API's rules without a model: caching, billing, streams, errors. Costs nothing.

    Answers are deterministic; prompt caches follow the API's documented rules;
    a bill is kept. Look at GET /_sim/requests and /_sim/bill, and make it fail
    with POST /_sim/faults.
    """
    from gateway.sim.faults import parse_fault
    from gateway.sim.pacing import Pacing
    from gateway.sim.server import run_simulator

    if public_url is not None and not is_url(public_url):
        raise typer.BadParameter("write it as http://simulator:8900", param_hint="--public-url")
    try:
        faults = [parse_fault(text) for text in fault or ()]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    try:
        asyncio.run(
            run_simulator(
                host,
                port,
                pacing=Pacing.realistic(speed),
                seed=seed,
                faults=faults,
                public_url=public_url,
                started=_greet,
            )
        )
    except KeyboardInterrupt:
        raise typer.Exit from None
    except OSError as error:
        typer.echo(f"The simulator cannot listen: {error}", err=True)
        raise typer.Exit(1) from None


def _greet(url: str) -> None:
    typer.echo(f"A simulated Claude API listens on {url}. Any credential will do. Ctrl-C stops it.")
