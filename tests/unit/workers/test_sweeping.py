"""What dead replicas left open comes into the ledger once, whoever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from gateway.adapters.batch_books import LedgerBatchBooks
from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_queries import read_totals
from gateway.adapters.ledger_unsettled import read_unsettled
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.open_calls import OpenCalls
from gateway.core.bucket import Payer
from gateway.core.errors import StoreUnavailable
from gateway.core.exchange import ExchangeRecord
from gateway.core.ledger import Total
from gateway.core.limits import Limits
from gateway.core.presumed import Unsettled
from gateway.core.pricing import Cost
from gateway.workers.sweeping import Sweeping
from tests.support.budgets import bound, reservation, rid, state, usd
from tests.support.clock import FakeClock
from tests.support.fakes import make_rules
from tests.support.records import a_record

LIMIT = bound(1000)
PAYER = Payer(organisation="org", workspace="w", key_id="k", model="m", endpoint="messages")


def _unsettled(name: str) -> Unsettled:
    return Unsettled(reservation_id=rid(name), amounts=usd(1), payer=PAYER, ended_at=0.0, degraded=False)


class _Torn(LedgerBatchBooks):
    """Books, and dies before it can say so."""

    async def add(self, records: Sequence[ExchangeRecord]) -> int:
        await super().add(records)
        raise StoreUnavailable("torn")


class _Here:
    """A store and one replica's ledger."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(a_record().received_at)
        self.store = MemoryBudgets(self.clock)
        self.path = folder / "ledger.db"
        self.ledger = Ledger(self.path)
        self.expired: list[int] = []
        self.rules = replace(make_rules(folder, {}), limits=Limits((LIMIT.limit,)))

    def sweeping(self, books: LedgerBatchBooks | None = None) -> Sweeping:
        return Sweeping(
            budgets=self.store,
            guard=GuardedBudgets(self.store, self.clock),
            rules=lambda: self.rules,
            reading=asyncio.Lock(),
            books=books or LedgerBatchBooks(self.path),
            unsettled=lambda more: read_unsettled(self.path, round(self.clock.now() * 1000), more),
            left_open=OpenCalls(self.path.with_name("open-calls.txt"), self.clock.now),
            expired=self.expired.append,
        )

    async def die(self, name: str = "a") -> None:
        await self.store.reserve(
            structs.replace(reservation(name, LIMIT, nanousd=60, lease_seconds=5), payer=PAYER)
        )
        self.clock.advance(6)

    def book(self, name: str, nanousd: int) -> None:
        """The exchange's own entry, and nothing said to the store."""
        cost = Cost(output_nanousd=nanousd, counterfactual_nanousd=nanousd, price_id="test")
        held = reservation(name, LIMIT, nanousd=60)
        self.ledger.observe(a_record(id=name, cost=cost, reservation=held))

    async def books(self) -> Total:
        await self.ledger.written()
        (total,) = read_totals(self.path, [], start_ms=0, end_ms=2**62)
        return total


async def test_what_is_presumed_is_in_the_ledger_and_guessed(tmp_path: Path) -> None:
    here = _Here(tmp_path)
    await here.die()

    await here.sweeping().turn()

    books = await here.books()
    assert (books.cost_nanousd, books.guessed_nanousd, books.requests) == (60, 60, 1)
    assert here.expired == [1]


async def test_a_replica_that_dies_between_ledger_and_store_books_it_once(tmp_path: Path) -> None:
    here = _Here(tmp_path)
    await here.die()
    await here.sweeping(_Torn(here.path)).turn()

    await here.sweeping().turn()

    assert (await here.books()).cost_nanousd == 60


async def test_what_was_booked_and_not_settled_is_settled_by_the_next_process(tmp_path: Path) -> None:
    here = _Here(tmp_path)
    await here.store.reserve(reservation("a", LIMIT, nanousd=60, lease_seconds=900))
    here.book("a", 25)
    await here.ledger.written()

    sweeping = here.sweeping()
    await sweeping.begin()
    await sweeping.turn()

    assert await state(here.store, LIMIT) == (25, 0)
    assert (await here.books()).cost_nanousd == 25


async def test_what_was_presumed_meanwhile_is_taken_back_when_its_replica_is_there_again(
    tmp_path: Path,
) -> None:
    here = _Here(tmp_path)
    await here.die()
    here.book("a", 25)
    other = here.sweeping(LedgerBatchBooks(tmp_path / "other.db"))
    await other.turn()
    assert await state(here.store, LIMIT) == (60, 0)
    await here.ledger.written()

    sweeping = here.sweeping()
    await sweeping.begin()
    await sweeping.turn()

    (others,) = read_totals(tmp_path / "other.db", [], start_ms=0, end_ms=2**62)
    assert await state(here.store, LIMIT) == (25, 0)
    both = await here.books()
    assert both.cost_nanousd + others.cost_nanousd == 25
    assert both.requests + others.requests == 1


async def test_it_goes_on_where_the_store_went_away(tmp_path: Path) -> None:
    here = _Here(tmp_path)
    asked: list[str] = []

    class _Once(MemoryBudgets):
        async def settle(self, reservation_id: object, actual: object) -> None:
            asked.append(str(reservation_id))
            if len(asked) == 2:
                raise StoreUnavailable("away")

    store = _Once(here.clock)
    sweeping = Sweeping(
        budgets=store,
        guard=GuardedBudgets(store, here.clock),
        rules=lambda: here.rules,
        reading=asyncio.Lock(),
        books=LedgerBatchBooks(here.path),
        unsettled=lambda _: [_unsettled(name) for name in "abc"],
        left_open=OpenCalls(tmp_path / "open-calls.txt", here.clock.now),
        expired=here.expired.append,
    )
    await sweeping.begin()
    await sweeping.turn()
    await sweeping.turn()

    assert asked == ["a", "b", "b", "c"]


async def test_what_was_under_way_is_booked_and_settled_once_the_ledger_can_be_written(
    tmp_path: Path,
) -> None:
    here = _Here(tmp_path)
    payer = structs.replace(PAYER, received_at_ms=round(here.clock.now() * 1000))
    held = structs.replace(reservation("a", LIMIT, nanousd=60, lease_seconds=900), payer=payer)
    await here.store.reserve(held)
    before = OpenCalls(here.path.with_name("open-calls.txt"), here.clock.now)
    before.add(held, degraded=False)
    before.close()

    class _Full(LedgerBatchBooks):
        full = True

        async def add(self, records: Sequence[ExchangeRecord]) -> int:
            if self.full:
                raise StoreUnavailable("full")
            return await super().add(records)

    books = _Full(here.path)
    sweeping = here.sweeping(books)
    await sweeping.begin()
    await sweeping.turn()
    assert await state(here.store, LIMIT) == (0, 60)
    books.full = False
    await sweeping.turn()

    assert await state(here.store, LIMIT) == (60, 0)
    assert ((await here.books()).cost_nanousd, here.expired) == (60, [1])
    assert OpenCalls(here.path.with_name("open-calls.txt"), here.clock.now).found() == ()


def test_the_entries_of_a_batch_are_left_to_who_settles_it(tmp_path: Path) -> None:
    """One reservation pays for several of them."""
    here = _Here(tmp_path)
    held = structs.replace(reservation("batch", LIMIT, nanousd=60), payer=PAYER)
    here.ledger.observe(a_record(id="batch-0", endpoint="batches", reservation=held))
    here.ledger.observe(a_record(id="plain", reservation=structs.replace(held, id=rid("plain"))))
    here.ledger.close()

    assert [one.reservation_id for one in read_unsettled(here.path, 0)] == ["plain"]
