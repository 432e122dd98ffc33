"""`gateway doctor`: each thing that can be wrong is made wrong, and found."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.postgres_ledger_schema import migrate
from gateway.cli import app
from gateway.cli.doctor import examine
from gateway.cli.findings import Finding, Outcome
from gateway.settings import load_settings
from gateway.settings.gateway import LEDGER_FILE
from tests.support.clock import ShiftedClock
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer
from tests.support.process import a_gateway_process
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

CALL = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
SETTINGS = """\
prefixes: {secret: {env: PREFIX_SECRET}}
capacity: {exchanges: 20, connections: 100}
"""
SECRETS = {"PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more"}


@dataclass(kw_only=True)
class Patient:
    """A gateway with all that belongs to it, and the doctor at its bed."""

    stack: Stack
    config: Path
    environ: dict[str, str]
    clock: ShiftedClock

    async def examined(self, **changes: str) -> Sequence[Finding]:
        """In a thread, as the command's loop is its own. `changes` are of the environment."""
        environ = self.environ | changes
        return await asyncio.to_thread(examine, self.config, environ, self.clock)

    async def wrong(self, **changes: str) -> list[tuple[Outcome, str, str]]:
        """What is wrong beside what the configuration alone shows, and beside a machine too busy for Redis to
        answer at once."""
        findings = [finding for finding in await self.examined(**changes) if finding.check != "config"]
        assert all(finding.todo for finding in findings if finding.outcome is not Outcome.OK)
        wrong = [(f.outcome, f.check, f.found) for f in findings if f.outcome is not Outcome.OK]
        return [each for each in wrong if each[0] is not Outcome.WARN or " answers in " not in each[2]]

    @property
    def ledger(self) -> Path:
        return self.stack.state / LEDGER_FILE

    async def call(self) -> None:
        headers = {"x-api-key": self.stack.keys["demo"], "anthropic-version": "2023-06-01"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{self.stack.url}/v1/messages", json=CALL) as answer,
        ):
            assert answer.status == 200, await answer.text()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", append_only=True) as server:
        yield server


@pytest.fixture
async def patient(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Patient]:
    """One of several replicas: with Redis."""
    async with _running(tmp_path, "store: {kind: redis}\n", {"REDIS_URL": redis.url}) as found:
        yield found


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Patient]:
    """A replica by itself: with SQLite."""
    async with _running(tmp_path, "", {}) as found:
        yield found


@asynccontextmanager
async def _running(folder: Path, settings: str, environ: dict[str, str]) -> AsyncIterator[Patient]:
    environ = SECRETS | environ
    async with a_stack(folder, settings=SETTINGS + settings, environ=environ) as stack:
        listen = {
            "GATEWAY_LISTEN__DATA": stack.service.data_url.removeprefix("http://"),
            "GATEWAY_LISTEN__ADMIN": stack.service.admin_url.removeprefix("http://"),
        }
        known = dict(load_settings(folder / "config", {}).environ)
        known |= {"UPSTREAM_KEY": "sk-test-upstream-canary", "OTHER_KEY": "sk-test-other"}
        yield Patient(
            stack=stack,
            config=folder / "config",
            environ=known | environ | listen,
            clock=ShiftedClock(),
        )


async def test_finds_nothing_wrong_beside_a_healthy_gateway_and_shows_no_secret(patient: Patient) -> None:
    await patient.call()
    found = await patient.examined()
    said = " ".join(f"{finding.found} {finding.todo}" for finding in found)

    assert {finding.outcome for finding in found} == {Outcome.OK}, found
    assert {finding.check for finding in found} == {
        *("config", "secrets", "state", "ledger", "prices", "descriptors", "store", "clock", "ports"),
        *("upstream default", "upstream other"),
    }
    assert f"The gateway at {patient.stack.service.admin_url} is ready." in said
    assert "sk-test" not in said


async def test_the_command_prints_lines_for_people_and_for_programs(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in patient.environ.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["doctor", "--config", str(patient.config), *arguments])
        return done.exit_code, done.output

    good, text = await asyncio.to_thread(run)
    monkeypatch.setenv("OTHER_KEY", "")
    bad, lines = await asyncio.to_thread(run, "--json", "--no-upstream")
    said = json.loads(lines)

    assert good == 0 and "0 to mend." in text and text.startswith("ok    config")
    assert bad == 1 and said["ok"] is False
    assert [finding["check"] for finding in said["findings"] if finding["outcome"] == "fail"] == ["secrets"]
    assert not [finding for finding in said["findings"] if finding["check"].startswith("upstream")]


async def test_beside_a_demo_nothing_is_to_mend_and_without_it_the_credential_is(tmp_path: Path) -> None:
    listen = {f"GATEWAY_LISTEN__{plane}": f"127.0.0.1:{free_port()}" for plane in ("DATA", "ADMIN")}
    state = tmp_path / "var"
    environ = {"GATEWAY_STATE__DIRECTORY": str(state), "ANTHROPIC_API_KEY": "", **listen}

    def run(**changes: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["doctor", "--json"], env=environ | changes)
        failed = [each["found"] for each in json.loads(done.output)["findings"] if each["outcome"] == "fail"]
        return done.exit_code, " ".join(failed)

    async with a_gateway_process(state, "--demo", environ=listen) as running:
        beside = await asyncio.to_thread(run)
        as_it_said = await asyncio.to_thread(run, GATEWAY_STATE__DIRECTORY=str(state / "simulated"))
        of_another = await asyncio.to_thread(run, ANTHROPIC_API_KEY="sk-test", GATEWAY_PAGE__ENABLED="maybe")
        mark = (state / "simulated" / "demo.json").read_bytes()
        running.signal(signal.SIGINT)
        assert await running.ended() == 0
    gone, left = await asyncio.to_thread(run), [path.name for path in (state / "simulated").iterdir()]
    (state / "simulated" / "demo.json").write_bytes(mark)  # as one leaves it that is killed
    killed = await asyncio.to_thread(run)

    assert beside == as_it_said == (0, "")
    assert of_another[0] == 1
    assert "demo.json" not in left
    assert gone[0] == killed[0] == 1
    assert "ANTHROPIC_API_KEY" in gone[1] and "ANTHROPIC_API_KEY" in killed[1]


async def test_a_configuration_that_cannot_be_used_is_all_that_is_said(lone: Patient) -> None:
    (lone.config / "limits.yaml").write_text("defaults: [{id: month}]\n")
    found = await lone.examined()

    assert {(finding.check, finding.outcome) for finding in found} == {("config", Outcome.FAIL)}
    assert all("limits.yaml:1" in finding.found for finding in found)


async def test_secrets_that_are_missing_or_open_to_others(lone: Patient) -> None:
    (lone.stack.state / "ledger.key").chmod(0o644)
    found = await lone.wrong(OTHER_KEY="", PREFIX_SECRET="short")

    assert [(outcome, check) for outcome, check, _ in found] == [
        (Outcome.WARN, "secrets"),
        (Outcome.FAIL, "secrets"),
        (Outcome.FAIL, "secrets"),
    ]
    assert "ledger.key can be read by others (mode 0644)" in found[0][2]
    assert "the variable OTHER_KEY is not set" in found[1][2]
    assert "shorter than 32 bytes" in found[2][2]


async def test_a_store_that_is_away_or_set_up_to_forget(patient: Patient, redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    unbounded = await patient.wrong()
    redis.command("CONFIG", "SET", "maxmemory", "100mb")
    redis.command("CONFIG", "SET", "appendonly", "no")
    forgets = await patient.wrong()
    away = await patient.wrong(REDIS_URL=f"redis://:sk-test-password@127.0.0.1:{free_port()}/0")

    assert unbounded == [(Outcome.WARN, "store", "maxmemory-policy is allkeys-lru")]
    assert forgets == [
        (Outcome.FAIL, "store", "maxmemory-policy is allkeys-lru"),
        (Outcome.WARN, "store", "it keeps no append-only file"),
    ]
    assert [(outcome, check) for outcome, check, _ in away] == [(Outcome.FAIL, "store")]
    assert "sk-test-password" not in away[0][2]


async def test_clocks_that_differ(patient: Patient) -> None:
    patient.clock.jump(-30)
    doubtful = await patient.wrong()
    patient.clock.jump(3 * 3600)
    wrong = await patient.wrong()

    assert [(outcome, check) for outcome, check, _ in doubtful] == [(Outcome.WARN, "clock")] * 3
    assert [(outcome, check) for outcome, check, _ in wrong] == [(Outcome.FAIL, "clock")] * 3
    assert "behind that of the store" in doubtful[0][2]
    assert "ahead of that of upstream default" in wrong[1][2]


async def test_an_upstream_that_refuses_or_is_not_there(lone: Patient) -> None:
    refused = await lone.wrong(UPSTREAM_KEY="sk-test-revoked")
    base = f"http://127.0.0.1:{free_port()}"
    away = await lone.wrong(GATEWAY_UPSTREAMS__OTHER__BASE_URL=base)

    assert [(outcome, check) for outcome, check, _ in refused] == [(Outcome.FAIL, "upstream default")]
    assert "refuses the credential (env UPSTREAM_KEY) with status 401" in refused[0][2]
    assert [(outcome, check) for outcome, check, _ in away] == [(Outcome.FAIL, "upstream other")]
    assert f"{base} is not reached" in away[0][2]


async def test_a_federated_upstream_is_reached_without_its_identity(lone: Patient, tmp_path: Path) -> None:
    lines = (
        f"{{identity: {{file: {tmp_path / 'token'}}}, rule: fdrl_1, service_account: svac_1, "
        "organisation: 11111111-2222-3333-4444-555555555555}"
    )
    federated = {"GATEWAY_UPSTREAMS__DEFAULT__FEDERATION": lines}
    missing = await lone.wrong(**federated)
    (tmp_path / "token").write_text("sk-test-identity")
    found = await lone.examined(**federated)

    assert [(outcome, check) for outcome, check, _ in missing] == [(Outcome.FAIL, "secrets")]
    assert Outcome.FAIL not in {finding.outcome for finding in found}
    assert any("federated identity is not tried" in finding.found for finding in found)


async def test_prices_that_are_old_or_were_missing_and_books_that_were_changed(lone: Patient) -> None:
    await lone.call()
    await lone.stack.books()
    with closing(sqlite3.connect(lone.ledger)) as connection:
        connection.execute("DROP TRIGGER entries_stay")
        connection.execute("UPDATE entries SET price_fallback = 1, model = 'claude-new-1'")
        connection.commit()
    changed = await lone.wrong()
    lone.clock.jump(100 * 86_400)
    old = [found for _, check, found in await lone.wrong() if check == "prices"]

    assert [(outcome, check) for outcome, check, _ in changed] == [
        (Outcome.FAIL, "ledger"),
        (Outcome.WARN, "prices"),
    ]
    assert "claude-new-1" in changed[1][2]
    assert len(old) == 1 and "days ago" in old[0]


async def test_a_ledger_that_is_none_and_a_disk_that_cannot_be_written(lone: Patient, tmp_path: Path) -> None:
    await lone.stack.service.stop()
    for path in lone.stack.state.glob(f"{LEDGER_FILE}*"):
        path.unlink()
    lone.ledger.write_bytes(b"not a ledger, but of some length" * 100)
    garbage = await lone.wrong()
    (tmp_path / "file").write_text("")
    blocked = await lone.wrong(GATEWAY_STATE__DIRECTORY=str(tmp_path / "file"))

    assert [(outcome, check) for outcome, check, _ in garbage] == [(Outcome.FAIL, "ledger")]
    assert "file is not a database" in garbage[0][2]
    assert (Outcome.FAIL, "state") in [(outcome, check) for outcome, check, _ in blocked]


async def test_keys_adjustments_and_batches_that_cannot_be_read(lone: Patient) -> None:
    await lone.stack.service.stop()
    damaged = ["keys.sqlite3", "batches.sqlite3", "adjustments.sqlite3"]
    for name in damaged:
        for beside in lone.stack.state.glob(f"{name}-*"):
            beside.unlink()
        (lone.stack.state / name).write_bytes(b"not a database, but of some length" * 100)
    found = await lone.wrong()

    assert [(outcome, check) for outcome, check, _ in found] == [(Outcome.FAIL, "state")] * 3
    assert all(
        f"{name} cannot be read: file is not a database" in said
        for name, (_, _, said) in zip(damaged, found, strict=True)
    )


async def test_a_shared_ledger_that_is_away_lags_or_is_up_to_date(lone: Patient) -> None:
    await lone.call()
    await lone.stack.books()
    kind = {"GATEWAY_LEDGER__KIND": "postgres"}
    url = f"postgresql://ledger:sk-test-password@127.0.0.1:{free_port()}/books"
    away = await lone.wrong(**kind, LEDGER_URL=url)
    with PostgresServer() as server:
        database = server.database()
        unmade = await lone.wrong(**kind, LEDGER_URL=database)
        await asyncio.to_thread(migrate, PostgresUrl(database))
        waiting = await lone.examined(**kind, LEDGER_URL=database)
        lone.clock.jump(3600)
        late = await lone.wrong(**kind, LEDGER_URL=database)

    assert [(outcome, check) for outcome, check, _ in away] == [(Outcome.FAIL, "ledger")]
    assert "sk-test-password" not in away[0][2]
    assert "gateway ledger migrate" in unmade[0][2]
    assert "1 entries wait to be shipped" in next(
        f.found for f in waiting if f.check == "ledger" and "the shared one" in f.found
    )
    assert late[0][:2] == (Outcome.WARN, "ledger") and "the oldest for 60 minutes" in late[0][2]


async def test_addresses_that_others_have_and_gateways_that_are_not_ready(lone: Patient) -> None:
    data = lone.environ["GATEWAY_LISTEN__DATA"]
    draining = asyncio.get_running_loop().create_task(lone.stack.service.drain())
    await asyncio.sleep(0)
    not_ready = await lone.wrong()
    await draining
    await lone.stack.service.stop()
    free = await lone.examined()
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(data.rpartition(":")[2])))
        other.listen()
        taken = await lone.wrong()

    assert not_ready[0][:2] == (Outcome.FAIL, "ports") and "(draining)" in not_ready[0][2]
    assert any(f.check == "ports" and "are free" in f.found for f in free)
    assert [(outcome, check) for outcome, check, _ in taken] == [(Outcome.FAIL, "ports")]
    assert taken[0][2].startswith(data)


async def test_capacity_beyond_what_the_system_allows(lone: Patient) -> None:
    found = await lone.wrong(GATEWAY_CAPACITY__CONNECTIONS="1000000")

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = allowed == resource.RLIM_INFINITY or allowed > 1_000_276
    assert [check for _, check, _ in found] == ([] if enough else ["descriptors"])


async def test_the_health_check_says_alive_while_not_ready(lone: Patient) -> None:
    def check() -> tuple[int, str]:
        done = CliRunner().invoke(app, ["healthcheck"], env=lone.environ)
        return done.exit_code, done.output

    draining = asyncio.get_running_loop().create_task(lone.stack.service.drain())
    await asyncio.sleep(0)
    alive = await asyncio.to_thread(check)
    await draining
    await lone.stack.service.stop()
    gone = await asyncio.to_thread(check)

    assert alive == (0, f"The gateway at {lone.stack.service.admin_url} is alive.\n")
    assert gone[0] == 1 and "No gateway answers" in gone[1]
