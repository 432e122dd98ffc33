"""`gateway ledger`: look after the books. What each command does to them is in its adapter.

Exit code 1: the books are not as they were written, or what was to be put back is damaged; 2: the command
could not be carried out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger import SPILLED
from gateway.adapters.ledger import restore as restore_entries
from gateway.adapters.ledger_prune import prune as prune_file
from gateway.adapters.ledger_shipping import shipped_up_to
from gateway.adapters.ledger_source import LedgerSource, PostgresUrl, reading
from gateway.adapters.ledger_verify import verify as verify_ledger
from gateway.cli.config import ConfigOption, owner_only, settings_or_exit
from gateway.cli.days import read_day
from gateway.core.chain import ChainKey, read_head
from gateway.core.chain_walk import Walk
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.settings import Settings
from gateway.settings.gateway import LEDGER_FILE, LEDGER_KEY_FILE
from gateway.settings.secrets import ledger_key
from gateway.settings.units import read_seconds
from gateway.stores import ledger_source

app = typer.Typer(help="Look after the ledger: verify, keep, share.", no_args_is_help=True)

LedgerOption = Annotated[
    Path | None, typer.Option(help="The ledger file. Else what the configuration names.")
]
KeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", metavar="FILE", help="Another key that chains were written with; repeat it for each."
    ),
]


@app.command()
def restore(
    log: Annotated[typer.FileText, typer.Argument(help="The gateway's log; - for standard input.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Put entries back that were written to the log because the ledger had no room.

    May run beside the gateway, and more than once: an entry that is there
    already is left alone. Exit code 1 where the log holds none.
    """
    settings = settings_or_exit(config)
    path = ledger or settings.gateway.state_path(LEDGER_FILE)
    with _errors():
        with reading(path):
            pass  # one that is made here would be in the wrong place
        try:
            lines = [line for line in log if SPILLED in line]
            beside = None if ledger is None else _beside(ledger)
            stored = restore_entries(path, lines, beside or ledger_key(settings.gateway, settings.environ))
        except (ValueError, TypeError) as error:
            typer.echo(
                f"{log.name} holds an entry that was cut or altered: {error}. Nothing was put back.", err=True
            )
            raise typer.Exit(1) from error
    if not lines:
        typer.echo(f"{log.name} holds no spilled entries; is it the gateway's log?", err=True)
        raise typer.Exit(1)
    typer.echo(f"{stored} entries put back into {path}")


@app.command()
def verify(
    ledger: LedgerOption = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Such as 2026-11-01, UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Not including this day.")] = None,
    head: Annotated[
        typer.FileText | None,
        typer.Option(help="What this command printed earlier: each of its heads must still be in its chain."),
    ] = None,
    key: KeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Say which entries were changed, removed, put in or moved since they were written.

    Ends with the head of each chain. Note them somewhere else: with --head they
    show later that nothing was taken off the end. May run beside the gateways.
    """
    settings = settings_or_exit(config)
    try:
        noted = [one for one in map(read_head, head or ()) if one is not None]
        span = _span(since, until)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if span is not None and noted:
        raise typer.BadParameter("--head is about whole chains; leave --from and --to out")
    if head is not None and not noted:
        raise typer.BadParameter(f"{head.name} holds no head")
    with _errors():
        source: LedgerSource = ledger or ledger_source(settings.gateway, settings)
        found = verify_ledger(source, _keys(settings, key, ledger), noted=noted, span_ms=span)
    _print_walk(found, as_json)
    if found.findings:
        raise typer.Exit(1)


@app.command()
def migrate(config: ConfigOption = None) -> None:
    """Make the tables of the shared ledger in PostgreSQL, or bring them up to date.

    For their owner; safe to repeat, and to run by several at once.
    """
    settings = settings_or_exit(config)
    with _errors():
        source = ledger_source(settings.gateway, settings)
        if not isinstance(source, PostgresUrl):
            raise ConfigError(
                "There is nothing to migrate: ledger.kind is sqlite, which does so at each start."
            )
        from gateway.adapters.postgres_ledger_schema import migrate as migrate_tables

        version = migrate_tables(source)
    typer.echo(f"The tables of the shared ledger are those of schema {version}.")


@app.command()
def prune(
    keep: Annotated[
        str | None, typer.Option(help="How much to keep, as 400d; else `ledger.keep` of the configuration.")
    ] = None,
    key: KeyOption = None,
    config: ConfigOption = None,
) -> None:
    """Leave entries behind that are older than is to be kept: whole months, by arrival in UTC.

    In the shared ledger, where there is one, and in this host's own; there,
    nothing that is still to be shipped. What remains can be verified as before.
    Everything is verified first; books that were changed are not pruned.
    """
    settings = settings_or_exit(config)
    try:
        seconds = read_seconds(keep) if keep else settings.gateway.ledger.keep
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if seconds is None:
        raise typer.BadParameter("say how much to keep, here or as ledger.keep")
    before = _month_of(SystemClock().now() - seconds)
    with _errors():
        keys = _keys(settings, key)
        source = ledger_source(settings.gateway, settings)
        path = settings.gateway.state_path(LEDGER_FILE)
        up_to = None
        if isinstance(source, PostgresUrl):
            _refuse_changed(source, keys)
            up_to = _prune_shared(source, keys, before, path)
        if path.exists():
            _refuse_changed(path, keys)
            why = f"pruned before {before:%Y-%m}"
            count = prune_file(path, keys, before_ms=_ms(before), why=why, up_to=up_to)
            typer.echo(f"{path}: {count:,} entries from before {before:%Y-%m} left behind.")


def _prune_shared(source: PostgresUrl, keys: Sequence[ChainKey], before: datetime, path: Path) -> int:
    """Drop months; up to which sequence of the outbox the shared ledger has everything."""
    from gateway.adapters.postgres_ledger import PostgresLedger
    from gateway.adapters.postgres_ledger_schema import prune_months

    months = prune_months(source, keys, before_ms=_ms(before))
    typer.echo(f"The shared ledger: {', '.join(months) or 'nothing'} dropped.")
    if not path.exists():
        return 0
    with closing(PostgresLedger(source)) as shared:
        return shipped_up_to(path, shared)


def _refuse_changed(source: LedgerSource, keys: Sequence[ChainKey]) -> None:
    found = verify_ledger(source, keys)
    if found.findings:
        _print_walk(found, as_json=False)
        typer.echo("Nothing was pruned: what was changed should be looked into before it is gone.", err=True)
        raise typer.Exit(1)


def _print_walk(found: Walk, as_json: bool) -> None:
    if as_json:
        findings = [finding._asdict() | {"kind": finding.kind.value} for finding in found.findings]
        heads = [{"chain": h.chain, "position": h.position, "digest": h.digest.hex()} for h in found.heads]
        shown = {"entries": found.entries, "findings": findings, "unlisted": found.unlisted, "heads": heads}
        typer.echo(json.dumps(shown, indent=2))
        return
    for finding in found.findings:
        typer.echo(f"{finding.kind.value}: {finding.sentence}")
    if found.unlisted:
        typer.echo(f"... and {found.unlisted:,} more")
    wrong = len(found.findings) + found.unlisted
    outcome = "all as they were written" if not wrong else f"{wrong:,} findings"
    chains = f"{len(found.heads):,} {'chain' if len(found.heads) == 1 else 'chains'}"
    typer.echo(f"{found.entries:,} entries in {chains}: {outcome}.")
    for head in found.heads:
        typer.echo(str(head))


def _keys(settings: Settings, files: Sequence[Path] | None, ledger: Path | None = None) -> list[ChainKey]:
    """That of the configuration, that beside a ledger which was named, and others by file; none is made.
    Raises `ConfigError`."""
    file = settings.gateway
    keys: list[bytes | None] = [None if ledger is None else _beside(ledger)]
    if file.ledger.key is not None or file.state_path(LEDGER_KEY_FILE).exists():
        keys.append(ledger_key(file, settings.environ))
    try:
        keys += [path.read_bytes().strip() for path in files or ()]
    except OSError as error:
        raise ConfigError(f"A key cannot be read: {error}.") from error
    return [ChainKey(key) for key in keys if key]


def _beside(ledger: Path) -> bytes | None:
    path = ledger.with_name(LEDGER_KEY_FILE)
    return path.read_bytes().strip() if path.exists() else None


def _span(since: str | None, until: str | None) -> tuple[int, int] | None:
    if since is None and until is None:
        return None
    return (_ms(_midnight(since)) if since else 0, _ms(_midnight(until)) if until else 2**62)


def _midnight(day: str) -> datetime:
    return datetime.combine(read_day(day), time(), UTC)


def _month_of(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        with owner_only():
            yield
    except (ConfigError, StoreUnavailable, sqlite3.Error) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
