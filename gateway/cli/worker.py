"""`gateway worker`: one process of `gateway run --workers`, until its supervisor stops it, or is gone."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec
import typer

from gateway.adapters.garbage import spare_what_stays
from gateway.adapters.worker_process import WorkerSpec
from gateway.cli.config import settings_or_exit
from gateway.cli.run import Stopping, configure_logging, serve_until_asked, stop_on_signals, until_ended
from gateway.service import Service


def run_worker() -> None:
    """Be one worker of `gateway run --workers`, which starts it.

    What it is comes on standard input, which stays open for as long as the supervisor lives.
    """
    os.setpgid(0, 0)  # the terminal's Ctrl-C is for the supervisor, who passes it on
    try:
        spec = WorkerSpec.read(sys.stdin.buffer.readline())
    except msgspec.DecodeError:
        typer.echo("`gateway run --workers` starts workers; this command is of no use to people.", err=True)
        raise typer.Exit(2) from None
    until_ended(_work(spec))


async def _work(spec: WorkerSpec) -> int:
    settings = settings_or_exit(spec.config, os.environ)
    configure_logging(settings, spec.worker.number)
    service = Service(settings, more_keys=spec.more_keys, worker=spec.worker)
    stopping = stop_on_signals(service)
    _stop_with(sys.stdin.fileno(), stopping)
    await service.start()
    spare_what_stays()
    return await serve_until_asked(stopping, service)


def _stop_with(descriptor: int, stopping: Stopping) -> None:
    """Once the supervisor is gone, and the other end of this is closed."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(descriptor, 1):
            loop.remove_reader(descriptor)
            stopping.ask(by_hand=False)

    loop.add_reader(descriptor, look)
