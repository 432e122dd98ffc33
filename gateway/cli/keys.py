"""`gateway keys`: make, list and revoke the virtual keys that apps call with.

A key's text is printed once and kept nowhere. What is done here holds on every replica within five seconds.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from gateway.adapters.clock import SystemClock
from gateway.cli.config import ConfigOption, JsonOption, owner_only, settings_or_exit
from gateway.cli.printing import console_for, plain
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import RANDOM_BYTES, KeyRecord, mint_key
from gateway.ports import KeyStore
from gateway.settings import Settings, declared_keys
from gateway.settings.gateway import StoreKind
from gateway.settings.units import read_seconds
from gateway.stores import open_keys

app = typer.Typer(help="Make, list and revoke the keys that apps call with.", no_args_is_help=True)

T = TypeVar("T")

HOLDS_WITHIN = "five seconds"
"""On every replica: they read the keys every three."""


@app.command()
def create(
    workspace: Annotated[str, typer.Option(help="Workspace of workspaces.yaml that the key belongs to.")],
    name: Annotated[str, typer.Option(help="For whom or what it is, as billing-bot.")],
    expires: Annotated[
        str | None, typer.Option(help="After how long it stops working, as 90d; never without it.")
    ] = None,
    declare: Annotated[
        bool,
        typer.Option("--declare", help="Do not store it: print an entry for workspaces.yaml instead."),
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once.

    The key alone goes to standard output, so that it can be piped to where
    secrets are kept:

    gateway keys create --workspace demo --name billing-bot --expires 90d
    """
    settings = settings_or_exit(config)
    if workspace not in settings.workspaces.workspaces:
        known = ", ".join(sorted(settings.workspaces.workspaces))
        raise typer.BadParameter(f"workspaces.yaml has no workspace {workspace!r}; it has: {known}")
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise typer.BadParameter("a name has 1 to 100 printable characters")
    now = SystemClock().now()
    text, record = mint_key(
        random_bytes=secrets.token_bytes(RANDOM_BYTES),
        name=name,
        workspace=WorkspaceId(workspace),
        created_at=now,
        created_by=_user(),
        expires_at=None if expires is None else now + _lifetime(expires),
    )
    if not declare:
        _with_store(settings, lambda store: store.put(record))
    if as_json:
        typer.echo(json.dumps({"key": text, **_fields(record, now)}, indent=2))
        return
    typer.echo(text)
    typer.echo(
        f"Key {record.id} of workspace {workspace}. It is shown this once; keep it where secrets are kept.",
        err=True,
    )
    if not declare:
        typer.echo(f"Gateways that run take it within {HOLDS_WITHIN}.", err=True)
    else:
        typer.echo(f"Under workspaces.{workspace}.keys in workspaces.yaml:", err=True)
        typer.echo(_declaration(record), err=True)


@app.command("list")
def list_keys(
    workspace: Annotated[str | None, typer.Option(help="Only the keys of this workspace.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all keys, never their text: those of the store and those that workspaces.yaml declares."""
    settings = settings_or_exit(config)
    now = SystemClock().now()
    records = {record.id: record for record in declared_keys(settings)}
    records.update({record.id: record for record in _with_store(settings, lambda store: store.load())})
    shown = [record for record in records.values() if workspace in (None, record.workspace)]
    if as_json:
        typer.echo(json.dumps([_fields(record, now) for record in shown], indent=2))
        return
    if not shown:
        typer.echo("No keys. `gateway keys create --workspace NAME --name NAME` makes one.", err=True)
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for heading in ("id", "name", "workspace", "ends in", "created", "by", "expires", "state"):
        table.add_column(heading, no_wrap=True)
    for record in shown:
        fields = {name: escape(plain(value or "")) for name, value in _fields(record, now).items()}
        fields |= {
            name: fields[name][:10] for name in ("created_at", "expires_at")
        }  # the day; --json has all
        table.add_row(*(fields[column] for column in _COLUMNS), style=_STYLES.get(fields["state"], ""))
    console_for(table).print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's public part, as `list` shows it.")],
    config: ConfigOption = None,
) -> None:
    """Stop a key for good. Holds on every replica within five seconds."""
    settings = settings_or_exit(config)
    now = SystemClock().now()
    declared = next((record for record in declared_keys(settings) if record.id == key_id), None)

    async def work(store: KeyStore) -> bool:
        if await store.revoke(KeyId(key_id), now, _user()):
            return True
        if declared is None:
            return False
        await store.put(replace(declared, revoked_at=now, revoked_by=_user()))
        return True

    if not _with_store(settings, work):
        typer.echo(f"There is no key {key_id!r}; `gateway keys list` shows those there are.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Key {key_id} is revoked.")
    if declared is not None:
        typer.echo("workspaces.yaml declares it too: take it out there.", err=True)


_COLUMNS = ("id", "name", "workspace", "last4", "created_at", "created_by", "expires_at", "state")
_STYLES = {"revoked": "dim", "expired": "dim"}


def _with_store(settings: Settings, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = _open_store(settings)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        with owner_only():
            return asyncio.run(run())
    except (StoreUnavailable, ConfigError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _open_store(settings: Settings) -> KeyStore:
    if settings.gateway.store.kind is StoreKind.MEMORY:
        raise ConfigError(
            "store.kind is memory: keys would be forgotten at once. Use sqlite or redis, or make the key "
            "with --declare and put it into workspaces.yaml."
        )
    return open_keys(settings.gateway, settings)


def _fields(record: KeyRecord, now: float) -> dict[str, str | None]:
    return {
        "id": record.id,
        "name": record.name,
        "workspace": record.workspace,
        "last4": record.last4,
        "created_at": _instant(record.created_at),
        "created_by": record.created_by,
        "expires_at": _instant(record.expires_at),
        "revoked_at": _instant(record.revoked_at),
        "state": _state(record, now),
    }


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked_at is not None:
        return "revoked"
    return "active" if record.is_active(now) else "expired"


def _declaration(record: KeyRecord) -> str:
    lines = [
        f"- id: {json.dumps(record.id)}",
        f"  name: {json.dumps(record.name)}",
        f"  digest: sha256:{record.digest.hex()}",
        f"  created: {_instant(record.created_at)}",
        f"  last4: {json.dumps(record.last4)}",
    ]
    if record.expires_at is not None:
        lines.append(f"  expires: {_instant(record.expires_at)}")
    return "\n".join(lines)


def _instant(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lifetime(text: str) -> float:
    try:
        seconds = read_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"--expires is {error}") from error
    if not 60 <= seconds <= 10 * 365 * 86_400:
        raise typer.BadParameter("--expires must be between a minute and ten years")
    return seconds


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return os.environ.get("HOSTNAME", "")
