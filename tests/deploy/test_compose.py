"""The compose file and what it mounts, without an engine: it is what its schema asks for, everything that it
names is there, the gateway understands its environment, and Redis and PostgreSQL as set up here serve it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.adapters.postgres_ledger import SCHEMA_NAME
from gateway.cli import app
from gateway.settings import Settings, load_settings
from gateway.settings.ledger import LedgerKind
from gateway.settings.secrets import (
    admin_token,
    ledger_key,
    ledger_url,
    metrics_token,
    prefix_secret,
    store_url,
)
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.stack import a_stack

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
ADMIN_PORT = "9090"
BODY = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
VERSION = {"anthropic-version": "2023-06-01"}
Document = dict[str, Any]


def read_yaml(path: Path) -> Document:
    found = YAML(typ="safe", pure=True).load(path)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def compose() -> Document:
    return read_yaml(COMPOSE)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make-secrets` makes them, without a key for the API."""
    folder = tmp_path_factory.mktemp("secrets")
    make_secrets(folder)
    return folder


def make_secrets(folder: Path, **environ: str) -> None:
    path = os.environ["PATH"]
    subprocess.run(
        [DEPLOY / "make-secrets", folder], env={"PATH": path, **environ}, check=True, capture_output=True
    )


def environment(compose: Document, service: str, secrets: Path, **given: str) -> dict[str, str]:
    """A service's variables as its container has them, with secrets where they lie here."""

    def filled(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":-")
        return given.get(name, default)

    return {
        name: re.sub(r"\$\{([^}]+)\}", filled, str(value)).replace("/run/secrets", str(secrets))
        for name, value in compose["services"][service]["environment"].items()
    }


def settings_of(compose: Document, service: str, secrets: Path, **given: str) -> Settings:
    return load_settings(ROOT / "config", environment(compose, service, secrets, **given))


def test_it_is_a_compose_file() -> None:
    checked = subprocess.run(
        [
            *(Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
            COMPOSE,
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout
    assert "version" not in read_yaml(COMPOSE)


def test_every_path_that_is_mounted_or_built_is_in_the_repository(compose: Document) -> None:
    named = []
    for service in compose["services"].values():
        named += [text.split(":")[0] for text in service.get("volumes", ())]
        named += [service["build"]["context"]] if "build" in service else []
    paths = [text for text in named if text.startswith(".")]

    assert len(paths) >= 9
    assert not [path for path in paths if not (DEPLOY / path).exists()]
    assert {name for name in named if not name.startswith(".")} == compose["volumes"].keys()


def test_make_secrets_makes_each_secret_once_and_takes_the_key_of_the_api(
    compose: Document, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder, ANTHROPIC_API_KEY="sk-test-upstream")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    make_secrets(folder)

    files = {name: secret["file"] for name, secret in compose["secrets"].items()}
    assert files == {name: f"secrets/{name}" for name in files}
    assert first.keys() == files.keys() | {"redis_password"}
    assert first["anthropic_api_key"] == b"sk-test-upstream"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert (folder.stat().st_mode & 0o777, (folder / "redis_url").stat().st_mode & 0o777) == (0o700, 0o444)


def test_a_key_that_is_given_later_takes_the_place_of_the_simulated_one(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    assert (folder / "anthropic_api_key").read_text() == "simulated"
    make_secrets(folder, ANTHROPIC_API_KEY="sk-test-upstream")
    make_secrets(folder, ANTHROPIC_API_KEY="sk-test-another")

    assert (folder / "anthropic_api_key").read_text() == "sk-test-upstream", "a real one stays"


def test_secrets_that_services_use_are_those_that_there_are(compose: Document) -> None:
    used = {name for service in compose["services"].values() for name in service.get("secrets", ())}
    text = COMPOSE.read_text()

    assert used == compose["secrets"].keys()
    for name, service in compose["services"].items():
        asked = set(re.findall(r"/run/secrets/(\w+)", str(service)))
        assert asked <= set(service.get("secrets", ())), name
    assert "sk-ant" not in text and not re.search(r"PASSWORD: ", text), "secrets are files"


def test_the_gateway_knows_every_variable_and_finds_every_secret(compose: Document, secrets: Path) -> None:
    settings = settings_of(compose, "gateway", secrets)
    file, environ = settings.gateway, settings.environ

    assert settings.warnings == ()
    assert file.ledger.kind is LedgerKind.POSTGRES
    assert file.upstreams["default"].base_url == "https://api.anthropic.com"
    assert store_url(file, environ).startswith("redis://gateway:") and "@redis:6379" in store_url(
        file, environ
    )
    assert ledger_url(file, environ).startswith("postgresql://gateway:")
    assert len(prefix_secret(file, environ)) == len(ledger_key(file, environ)) == 64
    assert admin_token(file, environ)
    assert metrics_token(file, environ) not in (None, admin_token(file, environ))


def test_the_owner_of_the_tables_is_another_than_the_gateway(compose: Document, secrets: Path) -> None:
    settings = settings_of(compose, "ledger", secrets)

    assert ledger_url(settings.gateway, settings.environ).startswith("postgresql://ledger:")


def test_open_streams_have_time_to_end_before_the_container_is_killed(
    compose: Document, secrets: Path
) -> None:
    service = compose["services"]["gateway"]
    file = settings_of(compose, "gateway", secrets).gateway

    assert int(service["stop_grace_period"].removesuffix("s")) > file.drain.announce + file.drain.timeout
    assert service["ulimits"]["nofile"] > file.capacity.connections + file.capacity.exchanges


def test_the_demo_puts_the_simulator_behind_the_gateway(compose: Document, secrets: Path) -> None:
    given = dict(
        line.split("=", 1) for line in (DEPLOY / "demo.env").read_text().splitlines() if "=" in line[:30]
    )
    simulator = compose["services"]["simulator"]
    settings = settings_of(compose, "gateway", secrets, **given)

    assert [given["COMPOSE_PROFILES"]] == simulator["profiles"]
    assert settings.gateway.upstreams["default"].base_url == "http://simulator:8900"
    assert (secrets / "anthropic_api_key").read_text() == "simulated"


def test_no_log_grows_until_the_disk_is_full(compose: Document) -> None:
    for name, service in compose["services"].items():
        log = service["logging"]
        # json-file, which is taken where nothing is said, does not rotate.
        assert log["driver"] == "local", name
        assert set(log["options"]) == {"max-size", "max-file"}, name


@pytest.mark.parametrize("service", ["gateway", "ledger", "simulator"])
def test_command_lines_are_known(compose: Document, service: str) -> None:
    command = compose["services"][service].get("command", ["run"])
    parsed = CliRunner().invoke(app, [*command, "--help"])
    unknown = CliRunner().invoke(app, [*command, "--no-such-option", "--help"])

    assert parsed.exit_code == 0, parsed.output
    # --help alone would be answered before a misspelt option is noticed.
    options = [word for word in command if word.startswith("--")]
    assert all(option in parsed.output for option in options)
    assert unknown.exit_code != 0 or not options


def test_nothing_can_be_reached_from_other_machines_or_written_to(compose: Document) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    assert compose["networks"]["stores"]["internal"]
    assert {name for name, service in compose["services"].items() if "stores" in service["networks"]} == {
        *("gateway", "ledger", "redis", "postgres")
    }


def test_services_wait_for_those_that_have_a_health_check(compose: Document) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            ends = condition["condition"] == "service_completed_successfully"
            assert ends == services[other].get("healthcheck", {}).get("disable", False), (name, other)


def test_prometheus_scrapes_the_admin_plane_with_its_token_and_reads_the_rules(compose: Document) -> None:
    service = compose["services"]["prometheus"]
    found = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")
    targets = {
        target: job
        for job in found["scrape_configs"]
        for each in job.get("static_configs", ())
        for target in each["targets"]
    }
    mounted = {text.split(":")[1] for text in service["volumes"]}
    alerting = found["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]

    job = targets[f"gateway:{ADMIN_PORT}"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token", (
        "not what changes budgets"
    )
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert set(found["rule_files"]) <= mounted
    assert alerting == ["alertmanager:9093"]


def test_grafana_finds_its_dashboards_and_prometheus(compose: Document) -> None:
    mounted = {text.split(":")[1] for text in compose["services"]["grafana"]["volumes"]}
    provisioning = DEPLOY / "grafana" / "provisioning"
    providers = [
        provider
        for path in (provisioning / "dashboards").glob("*.y*ml")
        for provider in read_yaml(path)["providers"]
    ]
    sources = [
        source
        for path in (provisioning / "datasources").glob("*.y*ml")
        for source in read_yaml(path)["datasources"]
    ]

    assert {provider["options"]["path"] for provider in providers} <= mounted
    assert [source["url"] for source in sources if source["type"] == "prometheus"] == [
        "http://prometheus:9090"
    ]


@pytest.fixture
def redis(secrets: Path, tmp_path: Path) -> Iterator[tuple[RedisServer, str]]:
    """With the configuration and the users as shipped, and one more who looks on; paths and port are those of
    this machine."""
    users = tmp_path / "users"
    users.write_text(f"{(secrets / 'redis_users').read_text()}user observer on nopass +@all\n")
    config = tmp_path / "redis.conf"
    shipped = (DEPLOY / "redis" / "redis.conf").read_text()
    config.write_text(re.sub(r"(?m)^(dir|bind|aclfile|save) .*$", "", shipped) + f"aclfile {users}\n")
    password = (secrets / "redis_password").read_text()
    with ConfiguredRedis(tmp_path / "data", config) as server:
        yield server, f"redis://gateway:{password}@127.0.0.1:{server.port}/0"


class ConfiguredRedis(RedisServer):
    """`redis-server` with a configuration file; who may only ping asks whether it is there."""

    def __init__(self, directory: Path, config: Path) -> None:
        super().__init__(directory, options={"include": str(config), "appendonly": "yes"})

    def command(self, *words: str) -> bytes:
        reply = super().command("AUTH", "health", "-")
        return b"+PONG\r\n" if reply == b"+OK\r\n" else reply


async def test_redis_as_it_is_set_up_serves_the_gateway_and_nobody_else(
    redis: tuple[RedisServer, str], tmp_path: Path
) -> None:
    import aiohttp
    import redis.asyncio as client  # the fixture has the module's name

    server, url = redis
    settings = """\
store: {kind: redis}
prefixes: {secret: {env: PREFIX_SECRET}}
"""
    environ = {"REDIS_URL": url, "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more"}
    async with (
        a_stack(tmp_path / "stack", settings=settings, environ=environ) as stack,
        aiohttp.ClientSession(headers={"x-api-key": stack.keys["demo"], **VERSION}) as session,
        session.post(f"{stack.url}/v1/messages", json=BODY) as answer,
        session.get(f"{stack.service.admin_url}/readyz") as ready,
    ):
        assert (answer.status, ready.status) == (200, 200), await answer.text()
    as_gateway: Any = client.Redis.from_url(url, decode_responses=True)
    as_anybody: Any = client.Redis(port=server.port, decode_responses=True)
    as_observer: Any = client.Redis(port=server.port, username="observer", password="-")
    refused_to_gateway = await as_observer.acl_log()
    await as_observer.aclose()
    info = await as_gateway.info("memory")
    refused = []
    for command in (("FLUSHALL",), ("CONFIG", "SET", "maxmemory", "1"), ("SET", "other", "1")):
        with pytest.raises(client.ResponseError) as error:
            await as_gateway.execute_command(*command)
        refused.append(str(error.value))
    with pytest.raises(client.AuthenticationError):
        await as_anybody.ping()
    await as_gateway.aclose()
    await as_anybody.aclose()

    assert (info["maxmemory_policy"], info["maxmemory_human"]) == ("noeviction", "512.00M")
    assert refused_to_gateway == [], "the gateway may do all that it does"
    assert all("permissions" in text for text in refused), refused


def test_the_gateways_role_in_postgres_may_add_to_the_books_and_change_nothing(
    compose: Document, secrets: Path
) -> None:
    script = DEPLOY / "postgres" / "roles.sh"
    with PostgresServer() as server:
        programs = Path(shutil.which("psql") or "").parent
        url = server.database()
        database = url.rpartition("/")[2]
        subprocess.run(
            [script],
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(server.port),
                "POSTGRES_USER": compose["services"]["postgres"]["environment"]["POSTGRES_USER"],
                "POSTGRES_DB": database,
                "GATEWAY_PASSWORD_FILE": str(secrets / "postgres_gateway_password"),
            },
            check=True,
            capture_output=True,
        )
        environ = environment(compose, "ledger", secrets)
        environ |= {
            "GATEWAY_LEDGER__URL": "{env: OWNER}",
            "OWNER": url,
            "GATEWAY_CONFIG": str(ROOT / "config"),
        }
        migrated = CliRunner().invoke(app, compose["services"]["ledger"]["command"], env=environ)
        assert migrated.exit_code == 0, migrated.output
        with psycopg.connect(server.url(database, "gateway"), autocommit=True) as connection:
            connection.execute(f"SET search_path = {SCHEMA_NAME}".encode())
            connection.execute("SELECT make_month(0)")
            connection.execute(
                "INSERT INTO anchors (chain, first, last, digest, key_id, uncovered, why, seal) "
                "VALUES ('c', 0, 0, '', 'k', 0, 'test', '')"
            )
            for forbidden in (
                b"UPDATE anchors SET why = ''",
                b"DELETE FROM entries",
                b"TRUNCATE entries_1970_01",
                b"DROP TABLE entries",
                b"CREATE TABLE mine (x int)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden)
