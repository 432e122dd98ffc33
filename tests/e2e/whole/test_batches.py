"""Message batches through the gateway, by the official SDK: set aside when they are created, settled to the
simulator's own bill once they have ended."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from gateway.adapters.batch_store import SqliteBatchStore
from gateway.core.ledger import Dimension
from gateway.core.limits import Unit
from gateway.settings.gateway import BATCHES_FILE
from gateway.sim.faults import Fault, FaultKind
from tests.support.clock import ShiftedClock, zone_at_noon
from tests.support.process import ROOT
from tests.support.reconciling import DAY, MovableClock, reconciled
from tests.support.redis_server import RedisServer
from tests.support.stack import LIMITS, UPSTREAM_CREDENTIAL, Stack, a_simulator, a_stack

OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"
ASK: list[Any] = [{"role": "user", "content": "Hello"}]
MARKED: list[Any] = [
    {
        "type": "text",
        "text": "You are brief and kind. " * 800,
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
]
HOUR = 3600.0
MONTHLY = LIMITS.replace("per: month", f"per: month, timezone: {zone_at_noon()}")
"""A batch takes an hour here; none crosses the end of a month, where it would be looked for in the next."""


def item(custom_id: str, model: str = OPUS, **params: Any) -> Any:
    return {"custom_id": custom_id, "params": {"model": model, "max_tokens": 20, "messages": ASK, **params}}


MIXED = [
    *(item(f"opus-{n}", system=MARKED) for n in range(10)),
    *(item(f"haiku-{n}", HAIKU) for n in range(5)),
    item("bad", max_tokens=-1),
    {"custom_id": "without", "params": {"max_tokens": 20, "messages": ASK}},
]


class Running:
    """A stack whose clock can be moved."""

    def __init__(self, stack: Stack, clock: ShiftedClock) -> None:
        self.stack = stack
        self.clock = clock

    def client(self, workspace: str = "demo") -> AsyncAnthropic:
        return AsyncAnthropic(base_url=self.stack.url, api_key=self.stack.keys[workspace], max_retries=0)

    async def create(self, requests: list[Any], workspace: str = "demo") -> str:
        async with self.client(workspace) as client:
            return (await client.messages.batches.create(requests=requests)).id

    async def settle(self) -> None:
        """An hour later."""
        self.clock.jump(HOUR)
        await self.turn()

    async def turn(self) -> None:
        settler = self.stack.service.spending.settler
        await settler.turn()

    async def dollars(self, workspace: str = "demo") -> tuple[int, int]:
        """Spent and set aside of the month's dollars, in nano-dollars."""
        service = self.stack.service
        principal = service.rules.keyring.identify(self.stack.keys[workspace], self.clock.now())
        (verdict,) = [
            verdict
            for verdict in await service.spending.budgets.peek(service.rules.limits.binding(principal, OPUS))
            if verdict.bound.limit.unit is Unit.NANOUSD
        ]
        return verdict.spent, verdict.set_aside


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    clock = ShiftedClock()
    async with a_stack(tmp_path, clock=clock, limits=MONTHLY) as stack:
        yield Running(stack, clock)


async def test_trap_62_a_batch_is_set_aside_and_settled_to_the_bill(running: Running) -> None:
    await running.create(MIXED)
    spent, set_aside = await running.dollars()
    assert (spent > 0, set_aside > 0) == (False, True)

    await running.settle()
    billed = running.stack.simulator.bill.total_nanousd
    assert 0 < billed < set_aside
    assert await running.dollars() == (billed, 0)
    by_model = await running.stack.books(Dimension.MODEL, Dimension.ENDPOINT)
    assert sum(total.cost_nanousd for total in by_model) == billed
    assert sum(total.cache_read_tokens for total in by_model) > 0
    assert {total.group[0] for total in by_model if total.cost_nanousd} == {OPUS, HAIKU}
    assert {total.group[1] for total in by_model} == {"batches"}


async def test_a_batch_of_nothing_that_can_run_costs_nothing(running: Running) -> None:
    """Upstream takes it, and tells of each item in the results."""
    batch_id = await running.create([{"custom_id": "without", "params": {"max_tokens": 20, "messages": ASK}}])
    kept = SqliteBatchStore(running.stack.state / BATCHES_FILE)
    before = await kept.find(batch_id)

    await running.settle()
    assert before is not None
    assert await kept.find(batch_id) is None
    assert await running.dollars() == (running.stack.simulator.bill.total_nanousd, 0) == (0, 0)
    await kept.close()


async def test_a_budget_refuses_a_batch_up_front(running: Running) -> None:
    with pytest.raises(anthropic.RateLimitError, match="month"):
        await running.create([item("a")], "poor")
    assert not running.stack.simulator.requests


async def test_items_of_models_that_are_not_allowed_are_named(running: Running) -> None:
    with pytest.raises(anthropic.PermissionDeniedError, match=r"claude-haiku.*In this batch: two"):
        await running.create([item("one", HAIKU), item("two", OPUS)], "small")
    assert await running.create([item("one", HAIKU)], "small")


async def test_what_the_client_fetches_and_deletes_is_counted_once(running: Running) -> None:
    batch_id = await running.create(MIXED)
    async with running.client() as client:
        results = [result async for result in await client.messages.batches.results(batch_id)]
        await client.messages.batches.delete(batch_id)  # before anybody has looked at it
    billed = running.stack.simulator.bill.total_nanousd
    assert len(results) == len(MIXED)
    assert await running.dollars() == (billed, 0)

    await running.settle()
    assert await running.dollars() == (billed, 0)
    (total,) = await running.stack.books()
    assert total.cost_nanousd == billed
    assert total.guessed_nanousd == 0


async def test_a_batch_deleted_behind_the_gateway_is_booked_as_set_aside(running: Running) -> None:
    batch_id = await running.create(MIXED)
    _, set_aside = await running.dollars()
    async with AsyncAnthropic(
        base_url=running.stack.simulator.url, api_key=UPSTREAM_CREDENTIAL, max_retries=0
    ) as elsewhere:
        await elsewhere.messages.batches.retrieve(batch_id)
        await elsewhere.messages.batches.delete(batch_id)
    for _ in range(3):
        assert await running.dollars() == (0, set_aside)
        await running.settle()

    assert await running.dollars() == (set_aside, 0)
    (total,) = await running.stack.books()
    assert (total.cost_nanousd, total.guessed_nanousd) == (set_aside, set_aside)


async def test_results_that_upstream_does_not_give_at_once_are_asked_for_again(running: Running) -> None:
    await running.create(MIXED)
    running.stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=529, times=1))
    await running.settle()
    spent, set_aside = await running.dollars()
    assert (spent, set_aside > 0) == (0, True)

    await running.settle()
    assert await running.dollars() == (running.stack.simulator.bill.total_nanousd, 0)


async def test_a_rejected_batch_holds_nothing(running: Running) -> None:
    with pytest.raises(anthropic.BadRequestError):
        await running.create([item("twice"), item("twice")])
    deadline = time.monotonic() + 30
    while await running.dollars() != (0, 0):  # it is let go of in the background, after the answer
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_batches_reconcile_with_the_providers_reports(tmp_path: Path) -> None:
    clock = MovableClock()
    async with a_stack(tmp_path, clock=clock) as stack:
        async with AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"]) as client:
            await client.messages.batches.create(requests=MIXED)
        clock.set(f"{DAY}T13:00:00")
        settler = stack.service.spending.settler
        await settler.turn()
        said = await reconciled(stack)

    assert (said.code, dict(said.causes)) == (0, {}), said.text
    assert said.json["ours"] == said.json["theirs"]
    assert said.json["ours"]["usd"] == f"{stack.simulator.bill.total_nanousd / 1e9:.9f}" != "0.000000000"


async def test_two_replicas_settle_a_batch_once(tmp_path: Path) -> None:
    clock = ShiftedClock()
    simulator = a_simulator(clock=clock)
    await simulator.start()
    with RedisServer(tmp_path) as redis:
        async with AsyncExitStack() as stack:
            replicas = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                environ = {"REDIS_URL": redis.url, "GATEWAY_STORE__KIND": "redis"}
                entered = a_stack(
                    tmp_path / name, environ=environ, clock=clock, limits=MONTHLY, simulator=simulator
                )
                replicas.append(Running(await stack.enter_async_context(entered), clock))
            one, two = replicas
            for _ in range(3):
                await one.create(MIXED)
            _, set_aside = await one.dollars()
            clock.jump(HOUR)
            await asyncio.gather(*(each.turn() for each in (one, two) for _ in range(2)))

            billed = simulator.bill.total_nanousd
            assert 0 < billed < set_aside
            assert await two.dollars() == (billed, 0)
            totals = [total for each in (one, two) for total in await each.stack.books()]
            assert sum(total.cost_nanousd for total in totals) == billed
    await simulator.stop()


SERVE = """
import asyncio, sys, types
from pathlib import Path
from tests.support.stack import a_stack

async def serve() -> None:
    simulator = types.SimpleNamespace(url=sys.argv[2])
    async with a_stack(Path(sys.argv[1]), simulator=simulator, limits=sys.argv[3]) as stack:
        print(stack.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(serve())
"""


async def test_a_gateway_that_was_killed_settles_once_it_is_back(tmp_path: Path) -> None:
    clock = ShiftedClock()
    simulator = a_simulator(clock=clock)
    url = await simulator.start()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(tmp_path), url, MONTHLY, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    gateway = (await asyncio.wait_for(process.stdout.readline(), 120)).decode().strip()
    async with a_stack(tmp_path / "unused") as unused:
        key = unused.keys["demo"]
    async with AsyncAnthropic(base_url=gateway, api_key=key, max_retries=0) as client:
        await client.messages.batches.create(requests=MIXED)
    process.kill()
    await process.wait()

    async with a_stack(tmp_path, clock=clock, limits=MONTHLY, simulator=simulator) as stack:
        running = Running(stack, clock)
        spent, set_aside = await running.dollars()
        assert (spent, set_aside > 0) == (0, True)
        await running.settle()
        billed = simulator.bill.total_nanousd
        assert await running.dollars() == (billed, 0)
        (total,) = await stack.books()
        assert total.cost_nanousd == billed
    await simulator.stop()
