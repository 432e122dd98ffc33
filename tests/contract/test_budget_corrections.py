"""What the store presumed of a call, and takes back: no ledger has the second without the first, in however
small pieces it asks, so that none is ever below what was spent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.adapters import redis_budgets
from tests.support.budget_replica import BudgetReplica
from tests.support.budgets import money_a_month
from tests.support.redis_server import RedisServer

MONEY = money_a_month(100_000)
CALLS = [f"call{number}" for number in range(12)]


@pytest.mark.parametrize("ledgers", [("one",), ("one", "two")], ids=["its own", "that of another"])
async def test_what_is_taken_back_comes_with_what_was_presumed(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledgers: tuple[str, ...]
) -> None:
    monkeypatch.setattr(redis_budgets, "SWEEP_BATCH", 1)
    replica = BudgetReplica(own_redis.url, tmp_path / "one", [MONEY])
    await replica.until_open()
    for call in CALLS:
        assert (await replica.budgets.reserve(replica.asking(call, 300, lease_seconds=0.0))).allowed
        await replica.redis.sweep("one")  # asked, and never booked
    for call in CALLS:
        replica.write_down(call, 100)
        await replica.settle(call, 100)
    if len(ledgers) > 1:  # the first has been silent for longer than a ledger may be
        await asyncio.sleep(0.01)
        monkeypatch.setattr(redis_budgets, "LOST_MS", 5)

    there: dict[str, int] = {}
    while found := await replica.redis.sweep(ledgers[-1]):
        for one in found:
            there[one.reservation_id] = there.get(one.reservation_id, 0) + one.nanousd
        assert min(there.values()) >= 0
        await replica.redis.booked(ledgers[-1], [one.id for one in found])
    assert there == dict.fromkeys(CALLS, 0)
    await replica.close()
