"""`gateway simulate`: a stand-in for the Claude API, to point a gateway or a client at."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8900,
    speed: Annotated[
        float, typer.Option(min=0.1, help="How many times faster than a real model it answers.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the faults that come by chance.")] = 0,
) -> None:
    """Run the Messages API's rules without a model: caching, billing, streams, errors. Costs nothing.

    It answers deterministic text, counts tokens, keeps prompt caches by the API's documented rules and a bill
    of its own: see GET /_sim/requests, GET /_sim/bill, POST /_sim/faults.
    """
    from gateway.sim.pacing import Pacing
    from gateway.sim.server import run_simulator

    typer.echo(
        f"A simulated Claude API listens on http://{host}:{port}; any credential will do. Ctrl-C stops it."
    )
    try:
        asyncio.run(run_simulator(host, port, pacing=Pacing.realistic(speed), seed=seed))
    except KeyboardInterrupt:
        raise typer.Exit from None
