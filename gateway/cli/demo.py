"""`gateway demo`: a gateway of its own before a simulated API, a workload played through it, and the bill.

Everything lives in a temporary folder and on free ports; nothing is left behind and no key is needed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger_queries import read_totals
from gateway.core.budget_reading import BudgetReading
from gateway.core.ids import WorkspaceId
from gateway.core.ledger import Dimension, Total, add_up
from gateway.core.principal import RANDOM_BYTES, KeyRecord, mint_key
from gateway.service import Service
from gateway.settings import Settings, load_settings, packaged_directory
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from gateway.workers.budget_gauges import read_budgets

SEED = 7
SPEED = 8.0
"""How many times faster than a real model the simulated one answers."""


def demo() -> None:
    """Play three workspaces through a gateway of its own and print what caching saved.

    It needs no key and costs nothing: a simulated Claude API answers. Exit code 1:
    the gateway's books and the simulator's bill differ.
    """
    try:
        import anthropic  # noqa: F401
    except ImportError:
        typer.echo(
            "The demo plays with the official SDK: pip install anthropic (make demo does it).", err=True
        )
        raise typer.Exit(1) from None
    console = Console()
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        agree = asyncio.run(_demo(Path(folder), console))
    raise typer.Exit(0 if agree else 1)


async def _demo(folder: Path, console: Console) -> bool:
    from gateway.cli.demo_workload import WORKLOADS

    async with AsyncExitStack() as stack:
        simulator = Simulator(pacing=Pacing.realistic(SPEED), seed=SEED)
        url = await simulator.start()
        stack.push_async_callback(simulator.stop)
        settings = _settings(folder, url)
        keys = {workload.workspace: _key(workload.workspace) for workload in WORKLOADS}
        service = Service(settings, more_keys=[record for _, record in keys.values()], quiet=True)
        await service.start()
        console.print(
            f"A gateway on {service.data_url}, a simulated Claude API behind it, the official SDK before it."
        )
        started = time.monotonic()
        await _play(service.data_url, {name: text for name, (text, _) in keys.items()}, console)
        took = time.monotonic() - started
        readings = await read_budgets(service.rules, service.spending.budgets, SystemClock().now())
        await service.stop()
        totals = read_totals(folder / "state" / LEDGER_FILE, [Dimension.WORKSPACE], start_ms=0, end_ms=2**62)
        billed = simulator.bill.total_nanousd
    return _print(console, {total.group[0]: total for total in totals}, readings, billed, took)


def _settings(folder: Path, upstream_url: str) -> Settings:
    """The shipped configuration, with the workspaces and budgets of the demo."""
    from gateway.cli.demo_workload import WORKLOADS

    config = folder / "config"
    shutil.copytree(packaged_directory(), config)
    workspaces = "".join(f"  {workload.workspace}: {{upstream: default}}\n" for workload in WORKLOADS)
    (config / "workspaces.yaml").write_text(f"workspaces:\n{workspaces}")
    overrides = "".join(
        f"  - {{limit: month, subject: {workload.workspace}, amount: {workload.budget}, comment: demo}}\n"
        for workload in WORKLOADS
    )
    (config / "limits.yaml").write_text(
        "defaults:\n"
        "  - {id: month, scope: workspace, unit: usd, amount: $1.00, per: month, comment: demo}\n"
        f"overrides:\n{overrides}"
    )
    environ: Mapping[str, str] = {
        "PATH": os.environ.get("PATH", ""),
        "ANTHROPIC_API_KEY": "simulated",
        "GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": upstream_url,
        "GATEWAY_LISTEN__DATA": "127.0.0.1:0",
        "GATEWAY_LISTEN__ADMIN": "127.0.0.1:0",
        "GATEWAY_STATE__DIRECTORY": str(folder / "state"),
    }
    return load_settings(config, environ)


def _key(workspace: str) -> tuple[str, KeyRecord]:
    return mint_key(
        random_bytes=secrets.token_bytes(RANDOM_BYTES),
        name="demo",
        workspace=WorkspaceId(workspace),
        created_at=0.0,
    )


async def _play(url: str, keys: Mapping[str, str], console: Console) -> None:
    from anthropic import AsyncAnthropic

    from gateway.cli.demo_workload import WORKLOADS, Workload, play

    columns = (TextColumn("{task.description:<42}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        async def one(workload: Workload) -> None:
            calls = workload.conversations * workload.turns
            bar = progress.add_task(f"{workload.workspace}: {workload.what}", total=calls)
            slots = asyncio.Semaphore(3)
            async with AsyncAnthropic(base_url=url, api_key=keys[workload.workspace]) as client:

                async def conversation(number: int) -> None:
                    async with slots:
                        await play(workload, number, client, SEED, lambda: progress.advance(bar))

                async with asyncio.TaskGroup() as group:
                    for number in range(workload.conversations):
                        group.create_task(conversation(number))

        async with asyncio.TaskGroup() as group:
            for workload in WORKLOADS:
                group.create_task(one(workload))


def _print(
    console: Console,
    totals: Mapping[str, Total],
    readings: list[BudgetReading],
    billed_nanousd: int,
    took_seconds: float,
) -> bool:
    budgets = {reading.workspace: reading for reading in readings if reading.unit == "nanousd"}
    title = "Spent, and what the same calls would have cost without caching"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = ("workspace", "calls", "tokens in", "from cache", "spent", "without", "saved", "of budget")
    for column in names:
        table.add_column(column, justify="left" if column == "workspace" else "right", no_wrap=True)
    for name, total in totals.items():
        table.add_row(name, *_figures(total), _budget(budgets.get(name)))
    everything = _sum(list(totals.values()))
    table.add_section()
    table.add_row("all", *_figures(everything), "")
    console.print(table)
    difference = everything.cost_nanousd - billed_nanousd
    verdict = (
        "the same to the nano-dollar"
        if difference == 0
        else f"[red]differs by {difference} nano-dollars[/red]"
    )
    console.print(
        f"The simulator's own bill: {_usd(billed_nanousd)}, {verdict}. Played in {took_seconds:.0f} s."
    )
    return difference == 0


def _figures(total: Total) -> list[str]:
    without = total.counterfactual_nanousd
    saved = (without - total.cost_nanousd) / without if without else 0.0
    read = total.cache_read_tokens / total.prompt_tokens if total.prompt_tokens else 0.0
    return [
        f"{total.requests:,}",
        f"{total.prompt_tokens:,}",
        f"{read:.0%}",
        _usd(total.cost_nanousd),
        _usd(without),
        f"{saved:.0%}",
    ]


def _sum(totals: list[Total]) -> Total:
    return add_up(replace(total, group=()) for total in totals)[0]


def _budget(reading: BudgetReading | None) -> str:
    if reading is None:
        return ""
    return f"{reading.used / reading.amount:.0%} of ${Decimal(reading.amount) / 10**9:g}"


def _usd(nanousd: int) -> str:
    return f"${Decimal(nanousd) / 10**9:.4f}"
