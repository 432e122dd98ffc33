"""What settles batches, over real stores and a real ledger, with an upstream that plays answers: a kill at
any step, upstream's moods, and what is given up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.batch_store import SqliteBatchStore
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.ledger_queries import read_totals
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.batch import LEASE_SECONDS, KeptBatch, binding_limits, read_batch
from gateway.core.bucket import Reservation
from gateway.core.ids import ReservationId, WorkspaceId
from gateway.core.ledger import Dimension
from gateway.ports import UpstreamRequest
from gateway.workers.batches import LOST_SECONDS, TAKEN_SECONDS, BatchSettler
from tests.support.clock import FakeClock
from tests.support.fakes import CREDENTIAL, KEY, MODEL, FakeAnswer, Seen, Stage, make_rules

ITEMS = 3
BODY = json.dumps(
    {
        "requests": [
            {"custom_id": f"i{n}", "params": {"model": MODEL, "max_tokens": 10, "messages": []}}
            for n in range(ITEMS)
        ]
    }
).encode()


def a_result(custom_id: str, **usage: int) -> dict[str, Any]:
    counts = {"input_tokens": 100, "output_tokens": 7, "service_tier": "batch", **usage}
    message = {"id": "msg_1", "type": "message", "model": MODEL, "content": [], "usage": counts}
    return {"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}


RESULTS = [a_result("i0"), a_result("i1"), {"custom_id": "i2", "result": {"type": "expired"}}]
COST = 2 * (100 * 4_000 + 7 * 20_000) // 2
"""Of the two that succeeded: $4 and $20 per million tokens, at half."""


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Deaths:
    """Counts the steps of a run, and kills it at one of them: before it is taken, or right after."""

    at: int | None = None
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed

    def over(self, subject: Any) -> Any:
        return _Mortal(subject, self)


class _Mortal:
    """Every method of `subject`, with a chance to die before and after it."""

    def __init__(self, subject: Any, deaths: Deaths) -> None:
        self._subject, self._deaths = subject, deaths

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._subject, name)
        if not callable(method):
            return method

        async def call(*arguments: Any) -> Any:
            self._deaths.step()
            result = await method(*arguments)
            self._deaths.step()
            return result

        return call


@dataclass
class Played:
    """Upstream: what it answers to the status and to the results of a batch."""

    status: int = 200
    ended: bool = True
    results: list[Any] = field(default_factory=lambda: list(RESULTS))
    results_status: int = 200
    asked: list[UpstreamRequest] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[FakeAnswer]:
        self.asked.append(request)
        state = {"processing_status": "ended" if self.ended else "in_progress", "ended_at": None}
        status, body = self.status, json.dumps(state).encode()
        if request.target.endswith("/results"):
            status = self.results_status
            body = b"".join(json.dumps(line).encode() + b"\n" for line in self.results)
        yield FakeAnswer(status, (), [body[:40], body[40:]], None, Stage())

    async def close(self) -> None:
        return


class Ground:
    """One batch that was created and kept, and all that it takes to settle it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.clock = FakeClock()
        self.rules = make_rules(folder, {})
        self.store = SqliteBatchStore(folder / "batches.sqlite3")
        self.budgets = MemoryBudgets(self.clock)
        self.upstream = Played()
        self.seen = Seen()
        self.principal = self.rules.keyring.identify(KEY, self.clock.now())

    async def create(self) -> Ground:
        workspace = self.rules.workspaces[WorkspaceId("demo")]
        plan = read_batch(BODY, rules=self.rules, workspace=workspace, at=self.clock.now())
        self.limits = binding_limits(self.rules, self.principal, plan, ())
        reservation = Reservation(
            id=ReservationId("gw_1"),
            limits=self.limits,
            amounts=plan.estimate.amounts,
            lease_seconds=LEASE_SECONDS,
        )
        assert (await self.budgets.reserve(reservation)).allowed
        self.presumed = plan.estimate.nanousd
        batch = KeptBatch(
            id="msgbatch_1",
            exchange_id="gw_1",
            principal=self.principal,
            route="default",
            version_headers=(("anthropic-version", "2023-06-01"),),
            tags=(("x-team", "search"),),
            created_at=self.clock.now(),
            items=ITEMS,
            presumed=plan.shares,
            presumed_amounts=plan.estimate.amounts,
            reservation_id="gw_1",
            next_at=self.clock.now() + 15,
        )
        await self.store.keep(batch)
        self.clock.advance(60.0)
        return self

    def settler(self, ledger: str = "one", deaths: Deaths | None = None) -> BatchSettler:
        deaths = deaths or Deaths()
        return BatchSettler(
            deaths.over(self.store),
            upstream=self.upstream,
            budgets=deaths.over(GuardedBudgets(self.budgets, self.clock)),
            books=deaths.over(LedgerBatchBooks(self.folder / f"{ledger}.sqlite3")),
            observers=[self.seen],
            rules=lambda: self.rules,
            clock=self.clock,
        )

    async def spent(self) -> tuple[int, int]:
        verdicts = await self.budgets.peek(self.limits)
        return next((v.spent, v.set_aside) for v in verdicts if v.bound.limit.unit == "nanousd")

    def booked(self, *ledgers: str) -> int:
        """In nano-dollars, over all ledgers that there are."""
        paths = [path for name in ledgers if (path := self.folder / f"{name}.sqlite3").exists()]
        totals = [read_totals(path, [Dimension.MODEL], start_ms=0, end_ms=2**62) for path in paths]
        return sum(total.cost_nanousd for each in totals for total in each)

    async def is_forgotten(self) -> bool:
        return await self.store.find("msgbatch_1") is None


@pytest.fixture
async def ground(tmp_path: Path) -> Ground:
    return await Ground(tmp_path / "ground").create()


async def test_books_what_succeeded_and_settles(ground: Ground) -> None:
    await ground.settler().turn()

    assert ground.booked("one") == COST
    assert await ground.spent() == (COST, 0)
    assert await ground.is_forgotten()
    (record,) = ground.seen.records
    assert (record.id, record.model, record.basis.value, record.upstream_request_id) == (
        "gw_1-0",
        MODEL,
        "reported",
        "msgbatch_1",
    )
    assert record.tags == (("batch_items", "2"), ("x-team", "search"))
    assert dict(ground.upstream.asked[0].headers)[b"anthropic-version"] == b"2023-06-01"
    assert dict(ground.upstream.asked[0].headers)[b"authorization"] == b"Bearer " + CREDENTIAL


@pytest.mark.parametrize("goes_on", ["one", "two"])
async def test_a_kill_at_any_step_books_once(goes_on: str, tmp_path: Path) -> None:
    """By the same replica, or by another while the first stays away for longer than a ledger may."""
    for at in range(1, 100):
        ground = await Ground(tmp_path / str(at)).create()
        deaths = Deaths(at)
        try:
            await ground.settler("one", deaths).turn()
        except Killed:
            pass
        else:
            assert at > 10
            return
        for seconds in (TAKEN_SECONDS, TAKEN_SECONDS):
            ground.clock.advance(seconds + 1)
            await ground.settler(goes_on).turn()
        # Where its ledger was to book, nobody else does; it comes back.
        ground.clock.advance(TAKEN_SECONDS)
        await ground.settler("one").turn()

        assert await ground.spent() == (COST, 0), at
        assert ground.booked("one", "two") == COST, at
        assert await ground.is_forgotten(), at


async def test_a_ledger_that_never_books_is_taken_for_lost(ground: Ground) -> None:
    with pytest.raises(Killed):
        await ground.settler("one", Deaths(at=7)).turn()  # its sums are kept, nothing is booked
    batch = await ground.store.find("msgbatch_1")
    assert batch is not None
    assert batch.settled is not None
    assert ground.booked("one") == 0

    for seconds in (TAKEN_SECONDS, LOST_SECONDS, TAKEN_SECONDS):
        ground.clock.advance(seconds + 1)
        await ground.settler("two").turn()
    assert ground.booked("two") == COST
    assert len(ground.upstream.asked) == 2  # for its state and its results, once


async def test_a_batch_in_progress_is_asked_for_less_and_less_often(ground: Ground) -> None:
    ground.upstream.ended = False
    settler = ground.settler()
    asked = []
    for seconds, turns in ((20.0, 6), (72_000.0, 1), (60.0, 60)):
        before = len(ground.upstream.asked)
        for _ in range(turns):
            await settler.turn()
            ground.clock.advance(seconds)
        asked.append(len(ground.upstream.asked) - before)

    assert asked == [6, 1, 12]
    assert ground.booked("one") == 0
    spent, set_aside = await ground.spent()
    assert (spent, set_aside) == (0, ground.presumed)


@pytest.mark.parametrize(
    ("played", "days"),
    [
        (Played(status=404), 1),
        (Played(results_status=404), 1),
        (Played(status=401), 4),
        (Played(status=500), 30),
        (Played(ended=False), 30),
        (Played(results=RESULTS[:2]), 1),
        (Played(results=[*RESULTS[:2], {"custom_id": "i2", "result": {"type": "new"}}]), 1),
    ],
)
async def test_what_cannot_be_known_is_booked_as_set_aside(played: Played, days: int, ground: Ground) -> None:
    ground.upstream = played
    settler = ground.settler()
    for _ in range(8 * min(days, 4)):
        await settler.turn()
        ground.clock.advance(max(1, days / 4) * 3 * 3600.0 + 1)

    assert ground.booked("one") == ground.presumed
    in_its_month = ground.presumed if days < 10 else 0
    assert await ground.spent() == (in_its_month, 0)
    assert {record.basis.value for record in ground.seen.records} == {"presumed"}
    assert await ground.is_forgotten()


async def test_a_route_that_is_gone_is_waited_for(ground: Ground) -> None:
    routes = dict(ground.rules.routes)
    object.__setattr__(ground.rules, "routes", {})
    await ground.settler().turn()
    assert ground.booked("one") == 0

    object.__setattr__(ground.rules, "routes", routes)
    ground.clock.advance(3600.0)
    await ground.settler().turn()
    assert ground.booked("one") == COST


async def test_an_observer_that_fails_keeps_nobody_waiting(ground: Ground) -> None:
    ground.seen.records = None  # type: ignore[assignment]
    await ground.settler().turn()
    assert await ground.spent() == (COST, 0)


async def test_is_settled_when_asked_to_before_its_time(ground: Ground) -> None:
    batch = await ground.store.find("msgbatch_1")
    assert batch is not None
    settler = ground.settler()
    await settler.settle_now("msgbatch_1")
    await settler.settle_now("msgbatch_unknown")
    assert await ground.spent() == (COST, 0)
