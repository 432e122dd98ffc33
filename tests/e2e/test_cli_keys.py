"""`gateway keys`, from making a key to revoking it, over the real stores."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from gateway.adapters.key_store import SqliteKeyStore
from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.cli.keys import app
from gateway.core.errors import Unauthenticated
from gateway.core.principal import KeyRecord
from gateway.ports import KeyStore
from gateway.settings import build_keyring, load_settings
from tests.support.redis_server import RedisServer

CONFIG = Path(__file__).parents[2] / "config"
NOW = 1_900_000_000.0


class Desk:
    """A configuration, a store, and the command."""

    def __init__(self, config: Path, environ: dict[str, str]) -> None:
        self.config = config
        self.environ = environ

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(self.config)], env=self.environ)

    def store(self) -> KeyStore:
        if "REDIS_URL" in self.environ:
            return RedisKeyStore(self.environ["REDIS_URL"])
        return SqliteKeyStore(Path(self.environ["GATEWAY_STATE__DIRECTORY"]) / "keys.sqlite3")

    def records(self) -> tuple[KeyRecord, ...]:
        async def load() -> tuple[KeyRecord, ...]:
            store = self.store()
            try:
                return await store.load()
            finally:
                await store.close()

        return asyncio.run(load())

    def opens(self, text: str, now: float = NOW) -> bool:
        """Whether a gateway that reads files and store now would let this key in."""
        keyring = build_keyring(load_settings(self.config, self.environ), self.records())
        try:
            keyring.identify(text, now)
        except Unauthenticated:
            return False
        return True


@pytest.fixture(params=["sqlite", "redis"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    for path in CONFIG.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    environ = {"GATEWAY_STATE__DIRECTORY": str(tmp_path / "var")}
    if request.param == "sqlite":
        yield Desk(tmp_path, environ)
        return
    with RedisServer(tmp_path / "redis") as server:
        yield Desk(tmp_path, environ | {"GATEWAY_STORE__KIND": "redis", "REDIS_URL": server.url})


def test_a_new_key_comes_with_when_it_holds_and_what_is_kept_is_for_its_owner_only(desk: Desk) -> None:
    before = os.umask(0o022)
    try:
        made = desk.run("create", "--workspace", "demo", "--name", "bot")
        assert os.umask(0o022) == 0o022, "as it was: what comes after may be for others"
    finally:
        os.umask(before)

    assert "Gateways that run take it within five seconds." in made.stderr
    assert made.stdout.count("\n") == 1
    state = Path(desk.environ["GATEWAY_STATE__DIRECTORY"])
    if "REDIS_URL" not in desk.environ:
        assert all(path.stat().st_mode & 0o077 == 0 for path in (state, *state.iterdir()))


def test_a_key_works_from_making_to_revoking(desk: Desk) -> None:
    made = desk.run("create", "--workspace", "demo", "--name", "billing-bot")
    text = made.stdout.strip()
    (record,) = desk.records()

    assert text.startswith(f"cgw_{record.id}_")
    assert "shown this once" in made.stderr
    assert desk.opens(text)

    revoked = desk.run("revoke", record.id)

    assert revoked.exit_code == 0
    assert not desk.opens(text)


def test_the_text_of_a_key_is_kept_nowhere(desk: Desk) -> None:
    text = desk.run("create", "--workspace", "demo", "--name", "app").stdout.strip()
    secret = text.split("_")[2]

    listed = desk.run("list").output + desk.run("list", "--json").output
    files = b"".join(path.read_bytes() for path in desk.config.rglob("*") if path.is_file())

    assert secret not in listed
    assert secret.encode() not in files
    assert text[-4:] in listed


def test_a_key_stops_when_it_expires(desk: Desk) -> None:
    made = json.loads(
        desk.run("create", "--workspace", "demo", "--name", "app", "--expires", "90d", "--json").stdout
    )
    (record,) = desk.records()

    assert record.expires_at is not None
    assert record.expires_at - record.created_at == pytest.approx(90 * 86_400)
    assert desk.opens(made["key"], record.expires_at - 1)
    assert not desk.opens(made["key"], record.expires_at)


def test_the_list_is_for_people_and_programs(desk: Desk) -> None:
    desk.run("create", "--workspace", "demo", "--name", "first")
    desk.run("create", "--workspace", "demo", "--name", "second")
    desk.run("revoke", desk.records()[0].id)

    table = desk.run("list")
    rows = json.loads(desk.run("list", "--json").stdout)

    assert table.exit_code == 0
    assert [(row["name"], row["state"]) for row in rows] == [("first", "revoked"), ("second", "active")]
    assert json.loads(desk.run("list", "--json", "--workspace", "other").stdout) == []
    assert "digest" not in rows[0]


def test_a_declared_key_is_not_stored_and_can_be_revoked_all_the_same(desk: Desk) -> None:
    made = desk.run(
        "create", "--workspace", "demo", "--name", 'odd "name": #1', "--expires", "1h", "--declare"
    )
    text = made.stdout.strip()
    entries = made.stderr[made.stderr.index("- id:") :]
    (entry,) = YAML(typ="safe").load(entries)
    assert desk.records() == ()
    indented = "".join(f"      {line}\n" for line in entries.splitlines())
    (desk.config / "workspaces.yaml").write_text(f"workspaces:\n  demo:\n    keys:\n{indented}")

    assert entry["name"] == 'odd "name": #1'
    assert desk.opens(text, 0.0)
    assert [row["id"] for row in json.loads(desk.run("list", "--json").stdout)] == [entry["id"]]

    revoked = desk.run("revoke", entry["id"])

    assert "take it out there" in revoked.output
    assert not desk.opens(text, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--workspace", "absent", "--name", "x"], "it has: demo"),
        (["create", "--workspace", "demo", "--name", ""], "printable"),
        (["create", "--workspace", "demo", "--name", "a\nb"], "printable"),
        (["create", "--workspace", "demo", "--name", "x", "--expires", "90"], "90d"),
        (["create", "--workspace", "demo", "--name", "x", "--expires", "1s"], "between a minute"),
        (["revoke", "unknown0"], "no key"),
    ],
)
def test_mistakes_are_named_and_make_nothing(desk: Desk, arguments: list[str], message: str) -> None:
    result = desk.run(*arguments)

    assert result.exit_code != 0
    assert message in " ".join(result.output.replace("│", " ").split())
    assert desk.records() == ()


def test_a_store_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    for path in CONFIG.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    desk = Desk(
        tmp_path, {"GATEWAY_STORE__KIND": "redis", "REDIS_URL": "redis://:hidden-password@127.0.0.1:1/0"}
    )

    result = desk.run("list")

    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert "hidden-password" not in result.output


def test_a_memory_store_says_how_to_make_keys_all_the_same(tmp_path: Path) -> None:
    for path in CONFIG.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    desk = Desk(tmp_path, {"GATEWAY_STORE__KIND": "memory"})

    result = desk.run("create", "--workspace", "demo", "--name", "x")

    assert result.exit_code == 1
    assert "--declare" in result.output
    assert result.stdout == ""
