"""`gateway reconcile`: the ledger against the provider's own usage and cost reports, read-only on both sides.

What the sides are compared by, and why they may differ, is `core/reconcile.py`'s; here is only what to ask
and whom. Exit code 0: they agree; 1: they differ; 2: there is no telling.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.booked import read_booked
from gateway.adapters.claude_report_shapes import Generation, ProviderReports, ReportsUnavailable
from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger_source import LedgerSource
from gateway.cli.config import ConfigOption, JsonOption
from gateway.cli.days import day_given
from gateway.cli.reconcile_metrics import write_metrics
from gateway.cli.reconcile_tables import print_csv, print_json, print_table
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.reconcile import Reconciliation, Verdict, reconcile
from gateway.core.reconcile_cells import Account
from gateway.settings import Settings, find_directory, load_settings
from gateway.settings.gateway import CredentialHeader, Upstream
from gateway.settings.secrets import upstream_credential
from gateway.settings.shared import SecretRef
from gateway.settings.units import read_nanousd
from gateway.stores import ledger_source

LATE = timedelta(minutes=15)
"""What ended less than this long ago may be missing from the reports, which are usually 5 minutes late (usage
and cost API page, 2026-08-21)."""
DAYS = 7
MOST_DAYS = 366
_EXIT = {Verdict.AGREES: 0, Verdict.DIFFERS: 1, Verdict.CANNOT_TELL: 2}


FromOption = Annotated[
    date | None,
    typer.Option(
        "--from", parser=day_given, metavar="DATE", help="First day (UTC); else six days before the last."
    ),
]
ToOption = Annotated[
    date | None, typer.Option("--to", parser=day_given, metavar="DATE", help="Last day; else yesterday.")
]
AccountOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="UPSTREAM=ID",
        help="Which of the provider's workspaces (wrkspc_...) or API keys (apikey_...) an upstream's "
        "credential belongs to, where its workspace_id does not say so; may be repeated.",
    ),
]
LedgerOption = Annotated[
    list[Path] | None,
    typer.Option(help="A ledger file; repeat it for each replica. Else that of the configuration."),
]


def reconcile_command(
    from_day: FromOption = None,
    to_day: ToOption = None,
    upstream: Annotated[
        str | None, typer.Option(help="Compare this upstream of gateway.yaml only; else all of them.")
    ] = None,
    account: AccountOption = None,
    admin_key_env: Annotated[
        str, typer.Option(help="Variable that holds a key of the Admin API.")
    ] = "ANTHROPIC_ADMIN_KEY",
    reports: Annotated[
        Generation | None, typer.Option(help="Which reports to read; else the newer ones if there are any.")
    ] = None,
    ledger: LedgerOption = None,
    tolerance: Annotated[
        str, typer.Option(help="How many dollars a row may be off. Tokens never may.")
    ] = "$0.01",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    metrics_file: Annotated[
        Path | None,
        typer.Option(help="Also write gauges to this file, *.prom, for node_exporter's textfile collector."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Compare the ledger with the provider's usage and cost reports, and say why they differ.

    It asks for the seven days that ended yesterday, with a key of the Admin API:

    ANTHROPIC_ADMIN_KEY=... gateway reconcile

    Exit code 0: they agree, once known causes are taken into account. 1: they
    differ. 2: no telling.
    """
    now = datetime.fromtimestamp(SystemClock().now(), UTC)
    try:
        tolerance_nanousd = read_nanousd(tolerance)
        days = _days(from_day, to_day, now.date())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        settings = load_settings(find_directory(config, os.environ), os.environ)
        accounts, upstreams = _accounts(settings, upstream, account or ())
        fetching = _fetch(settings, upstreams, admin_key_env, days, reports, accounts, now.date())
        provider = asyncio.run(fetching)
        ledgers: list[LedgerSource] = [*ledger] if ledger else [ledger_source(settings.gateway, settings)]
        others = upstream is None
        found = _compare(settings, ledgers, provider, accounts, days, now, tolerance_nanousd, others)
        if metrics_file is not None:
            write_metrics(metrics_file, found, now.timestamp())
    except (ConfigError, GatewayError, ReportsUnavailable, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    (print_json if as_json else print_csv if as_csv else print_table)(found)
    raise typer.Exit(_EXIT[found.verdict])


def _days(first: date | None, last: date | None, today: date) -> list[date]:
    """Whole days. Raises ValueError."""
    end = last or today - timedelta(days=1)
    start = first or end - timedelta(days=DAYS - 1)
    if not start <= end <= today:
        raise ValueError(f"{start} to {end} is no span of days up to today")
    if (end - start).days >= MOST_DAYS:
        raise ValueError(f"{start} to {end} is more than {MOST_DAYS} days")
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]


def _accounts(
    settings: Settings, only: str | None, given: Sequence[str]
) -> tuple[list[Account], Mapping[str, Upstream]]:
    """What is compared with what, and the upstreams concerned. Upstreams of one workspace or key are one
    account, and so are those of which nobody said whose they are. Raises `ConfigError`."""
    upstreams = settings.gateway.upstreams
    ids = {name: upstream.workspace_id for name, upstream in upstreams.items()}
    for text in given:
        name, _, id_ = text.partition("=")
        if name not in upstreams or not id_:
            raise ConfigError(f"--account {text!r}: write UPSTREAM=ID with one of {', '.join(upstreams)}.")
        ids[name] = id_
    if only is not None and only not in upstreams:
        raise ConfigError(f"There is no upstream {only!r}; there are {', '.join(upstreams)}.")
    together: dict[str | None, list[str]] = {}
    for name, known in ids.items():
        together.setdefault(known, []).append(name)
    accounts = [
        Account(name="+".join(names), routes=frozenset(names), ids=None if id_ is None else frozenset([id_]))
        for id_, names in together.items()
        if only is None or only in names
    ]
    if only is not None and accounts[0].ids is None and len(upstreams) > 1:
        raise ConfigError(
            f"Nobody says which workspace or key upstream {only!r} is for the provider: set its workspace_id "
            f"in gateway.yaml, or --account {only}=wrkspc_..."
        )
    names = [name for account in accounts for name in account.routes]
    return accounts, {name: upstreams[name] for name in names}


async def _fetch(
    settings: Settings,
    upstreams: Mapping[str, Upstream],
    admin_key_env: str,
    days: Sequence[date],
    generation: Generation | None,
    accounts: Sequence[Account],
    today: date,
) -> ProviderReports:
    """The reports of the days, and of the day before and after. Raises `ReportsUnavailable`, `ConfigError`.

    The client is imported here: it takes a while to load."""
    from gateway.adapters.claude_reports import ClaudeReports

    ways = {(upstream.base_url, upstream.proxy) for upstream in upstreams.values()}
    if len(ways) > 1:
        raise ConfigError("The upstreams lead to different places; name one of them with --upstream.")
    ((base_url, proxy),) = ways
    try:
        admin = Upstream(credential=SecretRef(env=admin_key_env), header=CredentialHeader.X_API_KEY)
    except ValueError:
        raise ConfigError(f"{admin_key_env!r} cannot be the name of a variable.") from None
    if not settings.environ.get(admin_key_env):
        raise ConfigError(
            f"The variable {admin_key_env} is not set. Put a key of the Admin API there, or name another "
            "variable with --admin-key-env; an app's key opens no reports."
        )
    ids = [id_ for account in accounts for id_ in account.ids or ()]
    async with ClaudeReports(
        base_url,
        credential=upstream_credential("Admin API", admin, settings.environ),
        clock=SystemClock(),
        proxy=proxy,
    ) as client:
        return await client.fetch(
            days[0] - timedelta(days=1),
            min(days[-1] + timedelta(days=1), today),
            generation=generation,
            by_key=any(id_.startswith("apikey_") for id_ in ids),
        )


def _compare(
    settings: Settings,
    ledgers: Sequence[LedgerSource],
    provider: ProviderReports,
    accounts: Sequence[Account],
    days: Sequence[date],
    now: datetime,
    tolerance_nanousd: int,
    others: bool,
) -> Reconciliation:
    """Raises `ConfigError` where a ledger cannot be read."""
    models = settings.prices.model_table()

    def model_of(name: str) -> str:
        return models.canonical(name) or name

    read = [
        read_booked(
            path,
            start_ms=_epoch_ms(days[0] - timedelta(days=1)),
            end_ms=_epoch_ms(days[-1] + timedelta(days=2)),
            recent_ms=round((now - LATE).timestamp() * 1000),
            model_of=model_of,
        )
        for path in ledgers
    ]
    return reconcile(
        (booked for part in read for booked in part.booked),
        (relayed for part in read for relayed in part.relayed),
        (replace(figure, model=model_of(figure.model)) for figure in provider.billed),
        accounts=accounts,
        days=days,
        smallest_nanousd=provider.smallest_nanousd,
        tolerance_nanousd=tolerance_nanousd,
        others=others,
    )


def _epoch_ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
