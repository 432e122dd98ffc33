"""The creation of a batch through the pipeline: what is set aside, kept and booked, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.batch_store import MemoryBatchStore
from gateway.batching import LARGE_AT_ONCE, LARGE_BYTES, Batching
from gateway.core.batch import KeptBatch, read_batch
from gateway.core.errors import ClientGone, StoreUnavailable, UpstreamUnreachable
from gateway.core.ids import ReservationId, WorkspaceId
from gateway.core.limits import Limits, OnStoreFailure, Unit
from gateway.core.rules import Rules
from gateway.ports import InboundBody
from tests.support.fakes import KEY, MODEL, FakeReply, Played, Stage, World, make_rules

PATH = "/v1/messages/batches"
CREATED = json.dumps({"id": "msgbatch_1", "processing_status": "in_progress", "results_url": None}).encode()


def a_batch(count: int = 3, content: str = "Hi") -> bytes:
    params = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": content}]}
    return json.dumps({"requests": [{"custom_id": f"i{n}", "params": params} for n in range(count)]}).encode()


class SlowStore(MemoryBatchStore):
    """Takes a few turns of the loop to keep a batch, or fails to."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.failure = failure

    async def keep(self, batch: KeptBatch) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        await super().keep(batch)


def batching(world: World, store: MemoryBatchStore) -> Batching:
    async def settle_now(batch_id: str) -> None:
        asked.append(batch_id)

    asked: list[str] = []
    made = Batching(store, clock=world.clock, tasks=world.tasks, settle_now=settle_now, budgets=world.guard)
    vars(made)["asked"] = asked
    world.pipeline._batching = made
    return made


async def held(world: World) -> tuple[int, int]:
    """Spent and set aside, in nano-dollars, in the budget that every call of the workspace counts against."""
    principal = world.rules.keyring.identify(KEY, world.clock.now())
    verdicts = await world.memory.peek(world.rules.limits.binding(principal, MODEL))
    return next((v.spent, v.set_aside) for v in verdicts if v.bound.limit.unit is Unit.NANOUSD)


async def test_what_was_set_aside_stays_so_and_the_bytes_pass_unchanged(tmp_path: Path) -> None:
    world, store = World(tmp_path, Played(pieces=[CREATED])), SlowStore()
    batching(world, store)
    body = b" " + a_batch() + b"\n"
    reply = await world.call(body=body, target=PATH)

    (kept,) = await store.due(1e12, 10)
    assert reply.finished
    sent = world.upstream.requests[0].body_stream
    assert sent is not None
    assert (sent.length, await sent.read(), await sent.read()) == (len(body), body, b"")
    assert await held(world) == (0, kept.presumed_amounts.nanousd)
    (record,) = world.seen.records
    assert (record.basis.value, record.cost, record.estimated_nanousd) == (
        "pending",
        None,
        kept.presumed_amounts.nanousd,
    )
    assert (kept.id, kept.exchange_id, kept.items, kept.reservation_id) == (
        "msgbatch_1",
        record.id,
        3,
        record.id,
    )
    assert kept.version_headers == (("anthropic-version", "2023-06-01"),)
    assert world.pipeline.open_reservations() == []


async def test_a_batch_is_kept_before_its_client_hears_of_it(tmp_path: Path) -> None:
    world, store = World(tmp_path, Played(pieces=[CREATED])), SlowStore()
    batching(world, store)
    with pytest.raises(ClientGone):
        await world.call(body=a_batch(), target=PATH, reply=FakeReply(Stage(), leaves=ClientGone()))
    assert await store.find("msgbatch_1") is not None
    assert world.seen.records[0].basis.value == "pending"


@pytest.mark.parametrize("cut_at", range(1, 14))
async def test_cut_at_any_await_it_is_kept_or_booked_and_never_both(cut_at: int, tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[CREATED[:20], CREATED[20:]]), stage=Stage(cut_at))
    store = SlowStore()
    batching(world, store)
    with contextlib.suppress(asyncio.CancelledError):
        await world.call(body=a_batch(), target=PATH)
    (record,) = world.seen.records
    is_kept = await store.find("msgbatch_1") is not None
    spent, set_aside = await held(world)
    cost = record.cost.total_nanousd if record.cost else 0

    assert is_kept == (record.basis.value == "pending") == (set_aside > 0)
    assert spent == cost
    if record.basis.value not in ("none", "pending"):
        assert (record.basis.value, spent > 0) == ("estimated", True)


@pytest.mark.parametrize(
    ("store", "answer"),
    [
        (SlowStore(StoreUnavailable("away")), CREATED),
        (SlowStore(), b"{}"),
        (SlowStore(), b"<html>"),
        (SlowStore(), b'{"id":"../../files"}'),
    ],
)
async def test_what_cannot_be_kept_is_booked_at_once(store: SlowStore, answer: bytes, tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[answer]))
    batching(world, store)
    reply = await world.call(body=a_batch(), target=PATH)

    assert reply.body == answer
    (record,) = world.seen.records
    assert record.cost is not None
    assert (record.basis.value, record.model) == ("estimated", MODEL)
    assert await held(world) == (record.cost.total_nanousd, 0)


@pytest.mark.parametrize(
    "played", [Played(status=400), Played(error=UpstreamUnreachable("away", request_sent=False))]
)
async def test_what_upstream_did_not_take_holds_nothing(played: Played, tmp_path: Path) -> None:
    world, store = World(tmp_path, *[played] * 3), SlowStore()
    batching(world, store)
    with contextlib.suppress(UpstreamUnreachable):
        await world.call(body=a_batch(), target=PATH)
    assert await held(world) == (0, 0)
    assert await store.due(1e12, 10) == ()


async def test_money_that_the_store_could_not_set_aside_is_set_aside_later(tmp_path: Path) -> None:
    world, store = World(tmp_path, Played(pieces=[CREATED])), SlowStore()
    batching(world, store)
    soft = [replace(limit, on_store_failure=OnStoreFailure.ALLOW) for limit in world.rules.limits.all]
    world.rules = replace(world.rules, limits=Limits(tuple(soft)))
    world.budgets.failure = StoreUnavailable("away")
    task = asyncio.get_running_loop().create_task(
        world.pipeline.handle(world.make_call(a_batch(), target=PATH), FakeReply(world.stage))
    )
    await task
    world.budgets.failure = None
    await world.tasks.drain(5.0)
    kept = await store.find("msgbatch_1")
    assert kept is not None
    assert (kept.reservation_id, kept.held is not None) == ("gw_1", True)
    await world.guard.renew_held(ReservationId("gw_1"), kept.held, 60.0)

    assert await held(world) == (0, kept.presumed_amounts.nanousd)


async def test_a_batch_is_settled_before_it_is_deleted(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[b"{}"]), Played(pieces=[b"{}"]))
    made = batching(world, SlowStore())
    await world.call(body=b"{}", method="GET", target=f"{PATH}/b1")
    assert vars(made)["asked"] == []
    await world.call(body=b"{}", method="DELETE", target=f"{PATH}/b1")
    assert vars(made)["asked"] == ["b1"]
    assert {record.basis.value for record in world.seen.records} == {"none"}


async def test_only_so_many_large_bodies_are_held_at_a_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    made = batching(world, SlowStore())
    reading: list[str] = []
    workspace = world.rules.workspaces[WorkspaceId("demo")]

    async def read(number: int, length: bytes | None) -> None:
        headers = [(b"content-length", length)] if length else []
        call = world.make_call(a_batch(), target=PATH, headers=headers)

        async def body() -> InboundBody:
            reading.append(call.id)
            return InboundBody(a_batch(), decoded=False)

        call = structs.replace(call, read_body=body)
        exchange: Any = type("Exchange", (), {})()
        await made.read(call, world.rules, workspace, exchange)

    large = str(LARGE_BYTES + 1).encode()
    tasks = [asyncio.get_running_loop().create_task(read(n, large)) for n in range(LARGE_AT_ONCE + 1)]
    await asyncio.wait(tasks[:LARGE_AT_ONCE])
    await read(9, b"1000")
    assert len(reading) == LARGE_AT_ONCE + 1
    assert not tasks[-1].done()

    await made.over(reading[0], None)
    await made.over(reading[0], None)
    await asyncio.wait_for(tasks[-1], 5)


async def test_reading_a_large_batch_leaves_the_loop_to_others(tmp_path: Path) -> None:
    """100,000 small items take seconds; whoever has the loop meanwhile waits for milliseconds, of CPU time of
    the thread that reads: those in which the machine has other work are not the gateway's."""
    rules: Rules = make_rules(tmp_path, {})
    workspace = rules.workspaces[WorkspaceId("demo")]
    body = a_batch(20_000)
    reading = asyncio.get_running_loop().create_task(
        asyncio.to_thread(read_batch, body, rules=rules, workspace=workspace, at=1.8e9)
    )
    gaps, last = [], time.process_time() - time.thread_time()
    while not reading.done():
        await asyncio.sleep(0.001)
        others = time.process_time() - time.thread_time()
        gaps.append(others - last)
        last = others

    assert (await reading).items == 20_000
    assert len(gaps) > 20
    assert sorted(gaps)[len(gaps) // 2] < 0.02
