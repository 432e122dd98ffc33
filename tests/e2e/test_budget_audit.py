"""`gateway budget audit` and `repair`, and the gauges of it, through gateways that share a Redis."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.ledger_queries import read_totals
from gateway.cli import app, budget_audit
from gateway.settings.gateway import LEDGER_FILE
from tests.e2e.whole.calls import ASK, call
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_simulator, a_stack

REDIS = """\
store: {kind: redis}
prefixes: {secret: {env: PREFIX_SECRET}}
"""
LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month,
     on_store_failure: allow, comment: test}
"""
TOKEN_FREE = {"GATEWAY_ADMIN_TOKEN": ""}


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


async def budget(*arguments: str, urls: list[str]) -> Ran:
    named = [part for url in urls for part in ("--url", url)]
    ran = await asyncio.to_thread(
        CliRunner().invoke, app, ["budget", *arguments, *named], env=TOKEN_FREE, catch_exceptions=False
    )
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


@dataclass(frozen=True, slots=True)
class Ground:
    redis: RedisServer
    one: Stack
    two: Stack

    @property
    def urls(self) -> list[str]:
        return [self.one.service.admin_url, self.two.service.admin_url]

    async def spend(self) -> None:
        """Two calls on one replica and one on the other, settled."""
        for stack in (self.one, self.one, self.two):
            assert (await call(stack, ASK)).status == 200
        for stack in (self.one, self.two):
            await stack.service._tasks.drain(5.0)

    def counter(self) -> str:
        keys = re.findall(r"\{cgw\}:b:\S+", self.redis.command("KEYS", "{cgw}:b:*").decode())
        (key,) = [key for key in keys if "/2" in key]
        return str(key)

    def steal(self, nanousd: int) -> None:
        """Somebody writes into Redis."""
        assert self.redis.command("HINCRBY", self.counter(), "spent", str(-nanousd)).startswith(b":")

    def gauge(self, name: str) -> float:
        page = self.one.service.metrics.render("")[1].decode()
        (value,) = re.findall(rf"^{name} (\S+)$", page, re.MULTILINE)
        return float(value)


@pytest.fixture
async def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    monkeypatch.setattr(budget_audit, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr("gateway.workers.auditing.AGAIN_SECONDS", 0.05)
    simulator = a_simulator()
    await simulator.start()
    async with AsyncExitStack() as running:
        redis = running.enter_context(RedisServer(tmp_path / "redis"))
        environ = {"REDIS_URL": redis.url, "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more"}
        stacks = [
            await running.enter_async_context(
                a_stack(
                    tmp_path / name,
                    environ=environ,
                    settings=REDIS,
                    limits=LIMITS,
                    simulator=simulator,
                )
            )
            for name in ("one", "two")
        ]
        yield Ground(redis, *stacks)
    await simulator.stop()


async def test_a_counter_that_somebody_changed_is_told_repaired_and_right_again(ground: Ground) -> None:
    await ground.spend()
    agreed = await budget("audit", urls=ground.urls)
    assert (agreed.code, agreed.out) == (0, "1 counters of money agree with the ledger.\n"), agreed.err
    ground.steal(100)

    within = await budget("audit", urls=ground.urls)
    found = await budget("audit", "--json", "--tolerance", "$0.00", urls=ground.urls)

    assert within.code == 0, "a thousandth of a cent is no difference"
    assert found.code == 3
    (row,) = json.loads(found.out)["differing"]
    assert (row["limit"], row["subject"], row["difference"]["nanousd"]) == ("month", "demo", -100)
    spent = sum(
        sum(total.cost_nanousd for total in read_totals(path, (), start_ms=0, end_ms=2**62))
        for path in (stack.state / LEDGER_FILE for stack in (ground.one, ground.two))
    )
    assert row["ledger"]["nanousd"] == spent

    would = await budget("repair", "--dry-run", "--tolerance", "$0.00", urls=ground.urls)
    assert would.code == 0
    assert "less than the ledger's" in would.out
    assert "computed anew" in would.out
    assert (await budget("audit", "--tolerance", "$0.00", urls=ground.urls)).code == 3, "nothing was done"

    done = await budget("repair", "--yes", "--tolerance", "$0.00", urls=ground.urls)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1] == "1 counters of money agree with the ledger."
    assert (await call(ground.one, ASK)).status == 200


async def test_one_replica_alone_says_that_others_spent_more_and_never_that_something_is_missing(
    ground: Ground,
) -> None:
    await ground.spend()

    await ground.one.service.spending.auditing.turn()
    assert ground.gauge("gateway_budget_drift_short_usd") == 0.0
    assert ground.gauge("gateway_budget_drift_over_usd") > 0.0

    taken = 10**9
    ground.steal(taken)
    await ground.one.service.spending.auditing.turn()
    assert 0.0 < ground.gauge("gateway_budget_drift_short_usd") <= taken / 1e9


async def test_gauges_tell_what_is_owed_and_whether_counters_are_computed_anew(ground: Ground) -> None:
    await ground.spend()
    names = (
        "gateway_budget_settlements_owed",
        "gateway_budget_settlements_given_up_total",
        "gateway_budget_rebuilding",
    )
    assert [ground.gauge(name) for name in names] == [0.0, 0.0, 0.0]

    await ground.one.service.spending.auditing.repair()

    assert ground.gauge("gateway_budget_rebuilding") == 1.0


async def test_a_failure_of_the_store_that_the_guard_goes_on_from_is_counted(ground: Ground) -> None:
    """Measured around the guard, it would not show: the call goes on."""
    await ground.spend()
    ground.redis.stop()
    assert (await call(ground.one, ASK)).status == 200
    page = ground.one.service.metrics.render("")[1].decode()
    ground.redis.start()

    counted = dict(re.findall(r"^gateway_store_errors_total\{(\S+)\} (\S+)$", page, re.MULTILINE))
    assert any('operation="reserve"' in labels and float(n) > 0 for labels, n in counted.items()), counted


async def test_other_stores_say_that_they_cannot_be_repaired(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        assert (await call(stack, ASK)).status == 200
        await stack.service._tasks.drain(5.0)
        url = [stack.service.admin_url]

        assert (await budget("audit", urls=url)).code == 0
        refused = await budget("repair", "--yes", urls=url)

    assert refused.code == 1
    assert "in Redis only" in refused.err


async def test_a_gateway_that_is_not_there_is_exit_code_1() -> None:
    ran = await budget("audit", urls=["http://127.0.0.1:1"])

    assert ran.code == 1
    assert "No gateway answers" in ran.err


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_limit_that_is_added_while_the_gateway_runs_counts_what_was_spent_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Without anybody's doing but the change of the file."""
    for name, value in (("LEAST_SHORT_NANOUSD", 0), ("SHARE_SHORT", 10**15), ("NEW_SECONDS", 0.05)):
        monkeypatch.setattr(f"gateway.workers.auditing.{name}", value)
    monkeypatch.setattr("gateway.spending.LOOK_SECONDS", 0.05)
    async with AsyncExitStack() as running:
        environ = {"PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more"}
        if kind == "redis":
            environ["REDIS_URL"] = running.enter_context(RedisServer(tmp_path / "redis")).url
        settings = REDIS if kind == "redis" else ""
        stack = await running.enter_async_context(
            a_stack(tmp_path, environ=environ, settings=settings, limits=LIMITS)
        )
        audits = stack.service.spending.auditing
        assert (await call(stack, ASK)).status == 200
        await stack.service._tasks.drain(5.0)
        await audits.look()
        added = LIMITS.replace("month, scope: workspace", "added, scope: key").splitlines()[1:]
        (tmp_path / "config" / "limits.yaml").write_text("\n".join([LIMITS, *added]))
        stack.service.reload_soon()
        counted: dict[str, tuple[int, int]] = {}
        async with asyncio.timeout(60):
            while "added" not in counted or counted["added"][0] != counted["added"][1]:
                await asyncio.sleep(0.05)
                drifts = await audits.audit()
                counted = {each.spend.bound.limit.id: (each.counted, each.spend.nanousd) for each in drifts}

    assert counted["added"] == counted["month"]
    assert counted["added"][0] > 0
