"""`gateway run`: one replica, until it is told to stop; in one process, or in several under a supervisor.

SIGTERM and Ctrl-C drain it, a second one stops it at once, SIGHUP reloads the configuration.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import signal
import sys
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Protocol

import typer

from gateway import descriptors
from gateway.adapters.clock import SystemClock
from gateway.adapters.garbage import give_way_soon, spare_what_stays
from gateway.adapters.process_log import JsonLines
from gateway.cli.config import ConfigOption, settings_or_exit
from gateway.cli.demo_mark import (
    CREDENTIAL_VARIABLE,
    STATE_VARIABLE,
    UPSTREAM_VARIABLE,
    marked,
    simulated_state,
)
from gateway.core.errors import ConfigError
from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, KeyRecord, mint_key
from gateway.core.worker import MOST_WORKERS
from gateway.service import Service
from gateway.settings import Settings
from gateway.settings.gateway import LogFormat
from gateway.supervisor import Supervisor
from gateway.web.malloc import keep_freed_memory

log = logging.getLogger(__name__)

DEMO_WORKSPACE = WorkspaceId("demo")
DEMO_MODEL = "claude-opus-5-5"
SIMULATED_CREDENTIAL = "simulated"
DRAINING = "Draining; a second Ctrl-C stops at once."
SPILLED = (
    "The ledger could not be written: entries that are in the log only: {}. Keep the log, and put them back "
    "with `gateway ledger restore`."
)


def run(
    config: ConfigOption = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Print a key for the workspace `demo`, good until this process ends; without "
            f"{CREDENTIAL_VARIABLE} in the environment, answer from a simulated Claude API.",
        ),
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Processes that share the address and the state directory; `auto`: one for each core. "
            "Otherwise `workers.count` of gateway.yaml, which is 1.",
        ),
    ] = None,
) -> None:
    """Start the gateway: data plane for apps, admin plane for metrics and health.

    SIGTERM and Ctrl-C drain it, a second one stops it at once, SIGHUP reloads the
    configuration. To try it without a key of the provider's, and with one:

    gateway run --demo

    ANTHROPIC_API_KEY=... gateway run --config config
    """
    until_ended(_run(config, demo, _count(workers)))


def until_ended(work: Coroutine[object, object, int]) -> None:
    """Run it to its end, in the shape in which a gateway runs best. Raises `typer.Exit` where it failed."""
    keep_freed_memory()
    give_way_soon()
    descriptors.raise_limit()
    os.umask(0o077)  # what is kept is for this user alone; workers inherit it
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        try:
            code = runner.run(work)
        except ConfigError as error:
            _say(f"The gateway cannot start:\n{error}", logging.CRITICAL)
            raise typer.Exit(1) from None
        except OSError as error:
            _say(f"The gateway cannot listen: {error.strerror or error}.{_hint(error)}", logging.CRITICAL)
            raise typer.Exit(1) from None
    if code:
        raise typer.Exit(code)


def _hint(error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        return ""
    return (
        " Does another gateway run here? Other addresses are set by `listen` of gateway.yaml, or by "
        "GATEWAY_LISTEN__DATA and GATEWAY_LISTEN__ADMIN, as 127.0.0.1:8081."
    )


def _count(workers: str | None) -> int | None:
    """As the option says it; 0 for one for each core, None where it says nothing."""
    if workers is None or workers == "auto":
        return None if workers is None else 0
    if not workers.isdecimal() or int(workers) > MOST_WORKERS:
        raise typer.BadParameter(f"a number up to {MOST_WORKERS}, or auto", param_hint="--workers")
    return int(workers)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


async def _run(config: Path | None, demo: bool, asked: int | None) -> int:
    async with AsyncExitStack() as stack:
        environ: Mapping[str, str] = os.environ
        simulated = demo and not environ.get(CREDENTIAL_VARIABLE)
        if simulated:
            environ = await _simulate(stack)
        settings = settings_or_exit(config, environ)
        configure_logging(settings)
        if missing := descriptors.shortage(settings.gateway):
            log.warning("%s", missing)
        key, records = _demo_key() if demo else ("", ())
        workers = settings.gateway.workers.count if asked is None else asked
        if (workers or _cores()) > 1:
            supervisor = Supervisor(
                settings,
                count=workers or _cores(),
                config=config,
                environ=environ,
                more_keys=records,
                clock=SystemClock(),
            )
            await supervisor.start()
            stopping = stop_on_signals(supervisor)
            if simulated:
                stack.enter_context(marked(environ))
            _greet(supervisor, key, simulated, settings, workers=workers or _cores())
            return await _until_over(stopping, supervisor)
        service = Service(settings, more_keys=records)
        await service.start()
        spare_what_stays()
        stopping = stop_on_signals(service)
        if simulated:
            stack.enter_context(marked(environ))
        _greet(service, key, simulated, settings)
        return await serve_until_asked(stopping, service)


async def serve_until_asked(stopping: Stopping, service: Service) -> int:
    """Until it is asked to stop, and has; the exit code: 1 where the ledger lacks entries."""
    await stopping.asked.wait()
    if service.worker is None:
        _say(DRAINING)
    stopping.asked.clear()
    await _drain_unless(stopping, service)
    if spilled := await service.stop():
        _say(SPILLED.format(spilled), logging.CRITICAL)
    return 1 if spilled else 0


async def _until_over(stopping: Stopping, supervisor: Supervisor) -> int:
    """Until all workers have ended, asked to or not; the exit code."""
    async with asyncio.TaskGroup() as group:
        ending = group.create_task(supervisor.ended())
        told = False
        while not ending.done():
            waiting = group.create_task(stopping.asked.wait())
            await asyncio.wait((ending, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if stopping.asked.is_set():
                stopping.asked.clear()
                if not told:
                    _say(DRAINING)
                told = True
                supervisor.drain(announce=not stopping.by_hand)
    return ending.result()


def _cores() -> int:
    """That this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


async def _simulate(stack: AsyncExitStack) -> Mapping[str, str]:
    """Start a simulated API; the environment that makes it the upstream `default`."""
    from gateway.sim.pacing import Pacing
    from gateway.sim.server import Simulator

    simulator = Simulator(pacing=Pacing.realistic())
    url = await simulator.start()
    stack.push_async_callback(simulator.stop)
    return {
        **os.environ,
        CREDENTIAL_VARIABLE: SIMULATED_CREDENTIAL,
        UPSTREAM_VARIABLE: url,
        STATE_VARIABLE: str(simulated_state(os.environ)),
    }


def _demo_key() -> tuple[str, tuple[KeyRecord, ...]]:
    key, record = mint_key(
        random_bytes=secrets.token_bytes(RANDOM_BYTES),
        name="demo, until the process ends",
        workspace=DEMO_WORKSPACE,
        created_at=0.0,
        created_by="gateway run --demo",
    )
    return key, (record,)


class Reloading(Protocol):
    """A service, or what stands for several."""

    def reload_soon(self) -> None: ...


class Stopping:
    """That the process was asked to stop, and whether by a person at the keyboard."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.by_hand = False

    def ask(self, *, by_hand: bool) -> None:
        self.by_hand = by_hand
        self.asked.set()


def stop_on_signals(service: Reloading) -> Stopping:
    """From now on signals do what they should."""
    stopping = Stopping()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: stopping.ask(by_hand=False))
    loop.add_signal_handler(signal.SIGINT, lambda: stopping.ask(by_hand=True))
    loop.add_signal_handler(signal.SIGHUP, service.reload_soon)
    return stopping


async def _drain_unless(stopping: Stopping, service: Service) -> None:
    """Drain until done, or until asked to stop once more. A person is not made to wait for load balancers."""
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(service.drain(announce=not stopping.by_hand))
        waiting = group.create_task(stopping.asked.wait())
        await asyncio.wait((draining, waiting), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        waiting.cancel()


def configure_logging(settings: Settings, worker: int | None = None) -> None:
    """The process's own log, to standard error; exchanges have their log on standard output. Lines of one of
    several processes say which `worker` it is."""
    people = settings.gateway.logging.format is LogFormat.TEXT or sys.stderr.isatty()
    lines = logging.StreamHandler()
    who = "" if worker is None else f"[{worker}] "
    text = logging.Formatter(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")
    lines.setFormatter(text if people else JsonLines(worker))
    level = settings.gateway.logging.level.value.upper()
    logging.basicConfig(level=level, handlers=[lines], force=True)


def _say(text: str, level: int = logging.INFO) -> None:
    """On standard error: a line of the log where that is JSON, since a program reads it; else as it is."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        log.log(level, "%s", text)
    else:
        typer.echo(text, err=True)


class Serving(Protocol):
    """What listens."""

    @property
    def data_url(self) -> str: ...

    @property
    def admin_url(self) -> str: ...


def _greet(service: Serving, key: str, simulated: bool, settings: Settings, *, workers: int = 1) -> None:
    """On standard output for people: at a terminal, in text, or with a `key` that they asked for, which must
    not be in a log. Else in the process's log: a program reads standard output, one JSON object a line."""
    lines = [f"Workers         {workers}"] if workers > 1 else []
    lines.append(f"Apps call       {service.data_url}")
    lines.append(f"Metrics, health {service.admin_url}/metrics, {service.admin_url}/readyz")
    if settings.gateway.page.enabled:
        lines.append(f"Page            {service.admin_url}/page")
    if not key and settings.gateway.logging.format is LogFormat.JSON and not sys.stdout.isatty():
        for line in lines:
            log.info("%s", " ".join(line.split()))
        return
    if simulated:
        lines.insert(
            0,
            f"No {CREDENTIAL_VARIABLE} in the environment: a simulated Claude API answers, at no cost.\n"
            "Keys and books are kept apart; `gateway report`, `keys` and others look there with\n"
            f"{STATE_VARIABLE}={settings.gateway.state.directory} in their environment.",
        )
    if key:
        lines.append(_EXAMPLE.format(url=service.data_url, key=key, model=DEMO_MODEL))
    typer.echo("\n".join(lines))
    sys.stdout.flush()


_EXAMPLE = """
A key of workspace `demo`, good until this process ends:

  {key}

Try it:

  curl {url}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' \\
    -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "max_tokens": 100, "messages": [{{"role": "user", "content": "Hello"}}]}}'

or in Python, with the official SDK (pip install anthropic):

  from anthropic import Anthropic
  client = Anthropic(base_url="{url}", api_key="{key}")
  question = [{{"role": "user", "content": "Hello"}}]
  print(client.messages.create(model="{model}", max_tokens=100, messages=question))

Ctrl-C drains and stops.
"""
