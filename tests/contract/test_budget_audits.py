"""Audits that nobody asked for: what they notice, and mend, of counters that let more be spent than they
should. Each with the store and the ledger that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from gateway.adapters import late_settling
from gateway.adapters.file_lock import FileLock
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_spend import identity, read_part
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.redis_audits import RedisAudits
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.core.limits import Limit, Limits, OnStoreFailure, Scope
from gateway.core.pricing import Cost
from gateway.core.rules import Rules
from gateway.ports import BudgetStore
from gateway.workers import auditing
from gateway.workers.auditing import Auditing
from gateway.workers.rebuild import Rebuilding
from tests.support.budget_replica import MODEL, WHO, BudgetReplica
from tests.support.budgets import money_a_month, reservation, rid, usd
from tests.support.clock import ShiftedClock
from tests.support.fakes import make_rules
from tests.support.records import a_record
from tests.support.redis_server import RedisServer

USD = 1_000_000_000
MONEY = money_a_month(1_000 * USD)
ADDED = replace(MONEY, id="added", scope=Scope.KEY, amount=500 * USD)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(auditing, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(auditing, "NEW_SECONDS", 0.01)


@pytest.fixture
async def replica(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[BudgetReplica]:
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    await one.until_open()
    yield one
    await one.close()


def audits_of(replica: BudgetReplica, *, shared: bool = False, ledger: str = "") -> Auditing:
    return Auditing(
        replica.rebuilding,
        replica.budgets,
        limits=lambda: replica.rules.limits,
        clock=replica.clock,
        ledger=ledger or replica.identity,
        can_repair=True,
        shared=shared,
        others=RedisAudits(replica.redis, replica=f"{id(replica):x}"),
    )


def steal(redis: RedisServer, replica: BudgetReplica, nanousd: int) -> None:
    (limit,) = replica.limits.binding(WHO, MODEL)
    (span,) = replica.rebuilding._spans()
    key = f"{{gw}}:b:{limit.bucket_id}/{span.window.label}"
    assert redis.command("HINCRBY", key, "spent", str(-nanousd)).startswith(b":")


async def looked(audits: Auditing) -> None:
    """The first look is at the start."""
    for _ in range(2):
        await audits.look()


async def test_a_redis_that_was_restored_from_a_backup_is_noticed_after_the_start_and_rebuilt(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All gateways were stopped, and so nobody knows any more what Redis had acknowledged since."""
    monkeypatch.setattr(late_settling, "KNOWN_SECONDS", 0.0)  # it is long ago
    monkeypatch.setattr(late_settling, "CLOCKS_DIFFER_SECONDS", -1_000.0)
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    await one.until_open()
    await one.spend("a", 300 * USD)
    own_redis.command("SAVE")
    await one.spend("b", 500 * USD)
    await one.die()
    own_redis.stop()
    own_redis.start()

    again = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    await again.until_open()
    await again.settle_found()
    assert await again.spent() == 300 * USD
    audits = audits_of(again)
    await looked(audits)
    assert audits.short_usd() == 500.0
    assert audits.is_rebuilding
    await again.until_open()
    await audits.look()

    assert await again.spent() == 800 * USD
    assert audits.short_usd() == 0.0
    await again.close()


async def test_ledgers_that_say_less_than_the_counter_each_are_added_up(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Neither alone can tell: the counter has more than each of them says."""
    replicas = [BudgetReplica(own_redis.url, tmp_path / name, [MONEY]) for name in "ab"]
    for replica in replicas:
        await replica.until_open()
    for replica in replicas:
        await replica.spend(f"{replica.identity}1", 300 * USD)
        await audits_of(replica).turn()
    for replica in replicas:
        replica.write_down(f"{replica.identity}2", 100 * USD)
    audits = audits_of(replicas[1])

    await audits.turn()
    assert audits.short_usd() == 100.0, "its own, beside what the other said last"
    for _ in range(3):
        await asyncio.gather(*(replica.until_open() for replica in replicas))
    assert await replicas[0].spent() == 800 * USD
    for replica in replicas:
        await replica.close()


async def test_what_a_ledger_said_that_is_not_in_the_counters_is_not_missed_there(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    """Its replica is gone for good, and counters were rebuilt without it."""
    await replica.spend("a", 300 * USD)
    board = RedisAudits(replica.redis, replica="gone")
    (drift,) = await replica.rebuilding.audit()
    await board.told("gone", {drift.spend.key: 400 * USD}, 60.0)
    audits = audits_of(replica)

    await audits.turn()
    assert (audits.short_usd(), audits.is_rebuilding) == (0.0, False)


async def test_counters_are_not_computed_anew_by_themselves_while_a_ledger_that_is_in_them_is_away(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    """What its replica spent would be forgotten, and so the limit could be passed."""
    away = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await away.until_open()
    await away.spend("b", 400 * USD)
    await replica.spend("a", 300 * USD)
    steal(own_redis, replica, 500 * USD)
    audits = audits_of(replica)
    await audits.turn()
    assert (audits.short_usd(), audits.is_rebuilding) == (100.0, False)

    await audits_of(away).turn()
    await audits.look()
    assert (audits.short_usd(), audits.is_rebuilding) == (500.0, True)
    for _ in range(3):
        await asyncio.gather(*(each.until_open() for each in (replica, away)))
    assert await replica.spent() == 700 * USD
    await away.close()


@pytest.mark.parametrize(("stolen", "is_mended"), [(USD * 101 // 100, True), (USD * 99 // 100, False)])
async def test_what_is_less_than_a_thousandth_of_the_limit_is_told_and_not_mended(
    own_redis: RedisServer, replica: BudgetReplica, stolen: int, is_mended: bool
) -> None:
    await replica.spend("a", 300 * USD)
    steal(own_redis, replica, stolen)
    audits = audits_of(replica)
    await looked(audits)

    assert audits.short_usd() == stolen / USD
    assert audits.is_rebuilding is is_mended


async def test_money_is_not_refused_again_and_again_for_counters_that_do_not_become_right(
    own_redis: RedisServer, replica: BudgetReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.spend("a", 300 * USD)
    audits = audits_of(replica)
    for is_mended in (True, False):
        steal(own_redis, replica, 100 * USD)
        await audits.turn()
        assert audits.short_usd() == 100.0
        assert audits.is_rebuilding is is_mended
        await replica.until_open()
    replica.clock.jump(auditing.MENDED_SECONDS)
    await audits.turn()

    assert audits.is_rebuilding


async def test_what_is_owed_to_the_store_is_not_mended(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid as soon as the store is back, and counts then."""
    soft = replace(MONEY, on_store_failure=OnStoreFailure.ALLOW)
    one = BudgetReplica(own_redis.url, tmp_path / "soft", [soft])
    await one.until_open()
    await one.rebuilding.repair()
    assert await one.reserve("a", 300 * USD)
    one.write_down("a", 300 * USD)
    with pytest.raises(Exception, match="from the ledger"):
        await one.settle("a", 300 * USD)
    audits = audits_of(one)
    generation = one.fence.found
    monkeypatch.setattr(type(one.budgets), "is_rebuilding", False)
    await audits.turn()

    assert (one.budgets.owed, audits.short_usd(), one.fence.found) == (1, 300.0, generation)
    await one.close()


async def test_a_limit_that_is_added_within_its_month_counts_what_was_spent_since_the_first(
    own_redis: RedisServer, replica: BudgetReplica
) -> None:
    await replica.spend("a", 480 * USD)
    audits = audits_of(replica)
    await audits.look()
    assert not audits.is_rebuilding
    replica.limits = Limits((MONEY, ADDED))
    replica.rules = replace(replica.rules, limits=replica.limits)
    assert await replica.spent("added") == 0

    await audits.look()
    await replica.until_open()
    assert await replica.spent("added") == 480 * USD
    assert not await replica.reserve("b", 21 * USD)
    assert await replica.reserve("c", 20 * USD)


@pytest.mark.parametrize(
    ("settled", "dollars", "missing", "expected"),
    [
        ("other", 150, "other", 150),
        (MODEL, 150, "other", 150),
        ("other", 150, MODEL, 450),
        ("other", 800, MODEL, 800),
        (MODEL, 150, MODEL, 600),
    ],
)
async def test_a_limit_for_some_models_is_not_lowered_when_others_are_mended(
    own_redis: RedisServer, tmp_path: Path, settled: str, dollars: int, missing: str, expected: int
) -> None:
    """It counts by the model that was asked for; the ledger has the one that answered, perhaps another."""
    dear = replace(MONEY, id="dear/month", models=(MODEL,))
    one = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY, dear])
    await one.until_open()
    assert await one.reserve("a", dollars * USD)
    one.write_down("a", dollars * USD, model=settled)
    await one.settle("a", dollars * USD)
    one.write_down("b", 450 * USD, model=missing)
    audits = audits_of(one)
    await audits.turn()
    assert audits.is_rebuilding
    await one.until_open()

    assert await one.spent() == (dollars + 450) * USD
    assert await one.spent("dear/month") == expected * USD

    await one.rebuilding.repair()
    await one.until_open()
    by_answers = dollars * (settled == MODEL) + 450 * (missing == MODEL)
    assert await one.spent("dear/month") == by_answers * USD, "all that is known once counters are lost"
    await one.close()


async def test_one_of_those_that_read_a_shared_ledger_audits_it(
    own_redis: RedisServer, replica: BudgetReplica, tmp_path: Path
) -> None:
    two = BudgetReplica(own_redis.url, tmp_path / "two", [MONEY])
    await two.until_open()
    await replica.spend("a", 300 * USD)
    await two.spend("b", 400 * USD)
    first, second = (audits_of(each, shared=True, ledger="shared") for each in (replica, two))
    for audits in (first, second):  # at its start each does
        await audits.turn()
        assert audits.over_usd() > 0
    for _ in range(2):
        await first.turn()
        await second.turn()

    assert (first.over_usd(), second.over_usd()) == (0.0, 300.0)
    await two.close()


@dataclass
class _Process:
    """One process of a machine, over a store that has no fence."""

    store: BudgetStore
    clock: ShiftedClock
    budgets: GuardedBudgets
    ledger: Ledger
    audits: Auditing
    rules: Rules

    async def spent(self, limit: Limit) -> int:
        bound_ones = Limits((limit,)).binding(WHO, MODEL)
        return (await self.store.peek(bound_ones))[0].spent

    async def spend(self, id: str, nanousd: int) -> None:
        limits = self.rules.limits.binding(WHO, MODEL)
        assert (await self.budgets.reserve(reservation(id, *limits, nanousd=nanousd))).allowed
        cost = Cost(output_nanousd=nanousd, counterfactual_nanousd=nanousd, price_id="test")
        self.ledger.observe(
            a_record(id=id, principal=WHO, model=MODEL, cost=cost, received_at=self.clock.now())
        )
        await self.budgets.settle(rid(id), usd(nanousd))

    def now_has(self, *limits: Limit) -> None:
        self.rules = replace(self.rules, limits=Limits(limits))


def a_process(store: BudgetStore, state: Path) -> _Process:
    clock, path = ShiftedClock(), state / "ledger.db"
    ledger = Ledger(path)
    budgets = GuardedBudgets(store, clock)
    rules = replace(make_rules(state, {}), limits=Limits((MONEY,)))
    one: _Process

    async def written() -> None:
        await ledger.written()

    rebuilding = Rebuilding(
        guard=budgets,
        read=partial(read_part, path),
        rules=lambda: one.rules,
        clock=clock,
        ledger=identity(path),
        written=written,
        reading=FileLock(path),
    )
    audits = Auditing(
        rebuilding,
        budgets,
        limits=lambda: one.rules.limits,
        clock=clock,
        ledger=identity(path),
        can_repair=False,
    )
    one = _Process(store, clock, budgets, ledger, audits, rules)
    return one


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_on_one_machine_too_a_limit_that_is_added_counts_what_was_spent_before_once(
    tmp_path: Path, kind: str
) -> None:
    """However many processes it has, and whatever runs."""
    clock = ShiftedClock()
    stores: list[BudgetStore]
    if kind == "memory":
        stores = [MemoryBudgets(clock)] * 2
    else:
        stores = [await SqliteBudgets(tmp_path / "budgets.db", clock).open() for _ in range(2)]
    processes = [a_process(store, tmp_path) for store in stores]
    await processes[0].spend("a", 480 * USD)
    for process in processes:
        await process.audits.look()
        process.now_has(MONEY, ADDED)
    assert await processes[0].spent(ADDED) == 0
    running = Limits((MONEY, ADDED)).binding(WHO, MODEL)
    assert (await processes[0].budgets.reserve(reservation("runs", *running, nanousd=5 * USD))).allowed
    await asyncio.gather(*(process.audits.look() for process in processes))

    assert await processes[0].spent(ADDED) == 475 * USD, "what is set aside may be what the ledger has"
    await processes[0].budgets.release(rid("runs"))
    for process in processes:
        await process.audits.turn()
    assert [await process.spent(ADDED) for process in processes] == [480 * USD] * 2
    assert await processes[0].spent(MONEY) == 480 * USD
    for process in processes:
        process.ledger.close()
    for store in stores:
        await store.close()
