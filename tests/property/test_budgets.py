"""The same histories through all three stores and a plain model of what budgets mean.

The Lua scripts and `core/reservations.py` are two implementations of one thing; they are acceptable only
because of this test. The model (`tests/support/budget_model.py`) shares no arithmetic with either. What a
rate promises is not derived from the model either, but counted from what was admitted (`Admitted`).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.core.bucket import Amounts, Decision, Reservation
from gateway.core.limits import BoundLimit, Mode, Period, Unit
from gateway.core.reservations import REFUSED_KEPT_MS, SWEPT_KEPT_MS
from tests.support.budget_model import Model
from tests.support.budgets import Admitted, Ground, bound, reservation, rid, sweep, usd
from tests.support.clock import FakeClock
from tests.support.redis_server import RedisServer

T = TypeVar("T")

BERLIN = "Europe/Berlin"
LIMITS = (
    bound(5_000, id="month", period=Period.CALENDAR_MONTH, timezone=BERLIN),
    bound(1_000, id="day", period=Period.CALENDAR_DAY, timezone=BERLIN),
    bound(2_500, id="week", period=Period.CALENDAR_WEEK, mode=Mode.SHADOW),
    bound(700, id="hour", period=Period.HOUR, burst=400),
    bound(997, id="minute", period=Period.MINUTE, unit=Unit.INPUT_TOKENS),
    bound(3, id="second", period=Period.SECOND, unit=Unit.REQUESTS, burst=10),
    bound(2**52 + 1, id="huge", period=Period.HOUR, unit=Unit.OUTPUT_TOKENS),
    bound(1_500, id="pool", period=Period.CALENDAR_DAY, shared=True),
    bound(2_000, id="prompt", period=Period.HOUR, unit=Unit.PROMPT_TOKENS),
    bound(3, id="at once", period=Period.OPEN, unit=Unit.CONCURRENT),
    bound(1, id="one at a time", period=Period.OPEN, unit=Unit.CONCURRENT, mode=Mode.SHADOW),
)
STARTS = (
    datetime(2027, 3, 27, 21, tzinfo=UTC),  # the clocks of Berlin go forward within hours
    datetime(2027, 10, 30, 20, tzinfo=UTC),  # and back
    datetime(2027, 12, 31, 21, tzinfo=UTC),
    datetime(2028, 2, 28, 22, 59, 58, tzinfo=UTC),
)


class Histories(RuleBasedStateMachine):
    redis: ClassVar[RedisServer]

    @initialize(start=st.sampled_from(STARTS))
    def begin(self, start: datetime) -> None:
        self.runner = asyncio.Runner()
        self.clock = FakeClock(start.timestamp())
        self.directory = Path(tempfile.mkdtemp())
        kinds = ("memory", "sqlite", "redis")
        self.grounds = [
            Ground(kind, self.clock, self.directory, self.redis if kind == "redis" else None)
            for kind in kinds
        ]
        self.stores = [self.run(ground.store()) for ground in self.grounds]
        self.books: list[dict[str, tuple[str, int]]] = [{} for _ in self.stores]
        self.model = Model()
        self.admitted = Admitted()
        self.answers: dict[str, Decision] = {}
        self.asked: dict[str, tuple[tuple[BoundLimit, ...], Amounts]] = {}
        self.leases: dict[str, int] = {}
        self.closed_at: dict[str, int] = {}
        self.swept_at = self.now_ms
        self.closed_early: list[str] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @property
    def now_ms(self) -> int:
        return round(self.clock.now() * 1000)

    @rule(
        amounts=st.builds(
            Amounts,
            requests=st.sampled_from([1, 1, 0, 4]),
            input_tokens=st.integers(0, 700),
            output_tokens=st.one_of(st.just(0), st.integers(0, 2**52 + 1)),
            nanousd=st.integers(0, 450),
            prompt_tokens=st.integers(0, 900),
            concurrent=st.sampled_from([1, 1, 0]),
        ),
        chosen=st.sets(st.sampled_from(range(len(LIMITS))), min_size=1),
        lease=st.sampled_from([0.001, 5, 90, 7200, 200_000]),
    )
    def reserve(self, amounts: Amounts, chosen: set[int], lease: float) -> None:
        name = f"r{len(self.asked)}"
        limits = tuple(LIMITS[i] for i in sorted(chosen))
        asked = Reservation(id=rid(name), limits=limits, amounts=amounts, lease_seconds=lease)
        decisions = [self.run(store.reserve(asked)) for store in self.stores]

        assert decisions[0] == decisions[1] == decisions[2]
        assert decisions[0].allowed == self.model.reserve(name, limits, amounts, self.now_ms)
        self.asked[name] = (limits, amounts)
        self.answers[name] = decisions[0]
        if decisions[0].allowed:
            for verdict in decisions[0].verdicts:  # I1: no admission leads past a limit
                limit = verdict.bound.limit
                if limit.mode is Mode.ENFORCE and amounts.of(limit.unit):
                    assert verdict.spent + verdict.set_aside <= limit.capacity
            self.leases[name] = self.now_ms + round(lease * 1000)
            self.admitted.reserved(name, limits, amounts, self.now_ms)
        else:
            self.closed_at[name] = self.now_ms

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        known = [n for n in self.asked if self.now_ms - self.closed_at.get(n, self.now_ms) < REFUSED_KEPT_MS]
        if known:
            name = data.draw(st.sampled_from(known))
            limits, amounts = self.asked[name]
            again = Reservation(id=rid(name), limits=limits, amounts=amounts, lease_seconds=1)
            for store in self.stores:
                assert self.run(store.reserve(again)) == self.answers[name]

    @precondition(lambda self: self.asked)
    @rule(
        data=st.data(),
        actual=st.builds(
            Amounts,
            requests=st.integers(0, 2),
            input_tokens=st.integers(0, 1500),
            output_tokens=st.one_of(st.just(0), st.integers(0, 2**51)),
            nanousd=st.integers(0, 900),
            prompt_tokens=st.integers(0, 2000),
        ),
        release=st.booleans(),
    )
    def close(self, data: st.DataObject, actual: Amounts, release: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.asked)))
        state = self.model.reservations.get(name, {}).get("state")
        if state == "swept" and self.now_ms - self.leases[name] >= SWEPT_KEPT_MS:
            return  # from then on it may be forgotten
        for store in self.stores:
            self.run(store.release(rid(name)) if release else store.settle(rid(name), actual))
        if state in ("open", "swept"):
            self.admitted.closed(name, Amounts() if release else actual)
        self.model.close(name, Amounts() if release else actual, self.now_ms)
        self.leases.pop(name, None)
        self.closed_at.setdefault(name, self.now_ms)

    @rule(nanousd=st.integers(1, 50))
    def close_then_reserve(self, nanousd: int) -> None:
        name = f"early{len(self.closed_early)}"
        self.closed_early.append(name)
        asked = reservation(name, LIMITS[1], nanousd=nanousd)
        for store in self.stores:
            self.run(store.settle(rid(name), asked.amounts))
            assert not self.run(store.reserve(asked)).allowed

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), lease=st.sampled_from([1, 4000]))
    def renew(self, data: st.DataObject, lease: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.asked)))
        for store in self.stores:
            self.run(store.renew(rid(name), lease))
        if self.model.reservations.get(name, {}).get("state") == "open":
            self.leases[name] = self.now_ms + lease * 1000

    @rule(ledger=st.sampled_from(["one", "two"]), is_booked=st.booleans())
    def sweep(self, ledger: str, is_booked: bool) -> None:
        """Each entry goes to one ledger, and again to that until it is booked; all entries together are what
        is presumed of those that nobody closed."""
        due = [
            name
            for name, until in self.leases.items()
            if until <= self.now_ms and self.model.reservations[name]["state"] == "open"
        ]
        for name in due:
            self.model.sweep(name, self.now_ms)
            self.closed_at[name] = self.now_ms
        # What a ledger was given that did not ask for a day goes to the other one.
        is_lost = self.now_ms - self.swept_at >= 86_400_000
        self.swept_at = self.now_ms
        swept = [name for name, held in self.model.reservations.items() if held["state"] == "swept"]
        presumed = sum(self.asked[name][1].nanousd for name in swept)
        for books, store in zip(self.books, self.stores, strict=True):
            found = self.run(store.sweep(ledger))
            assert sum(one.id not in books and not one.taken_back for one in found) == len(due)
            # A correction may be for the other one, which had what was presumed.
            other = {"one": "two", "two": "one"}[ledger]
            for name, some in ((ledger, found), (other, self.run(store.sweep(other)))):
                for one in some:
                    kept = books.setdefault(one.id, (name, one.nanousd))
                    assert kept[1] == one.nanousd
                    assert kept[0] == name or is_lost
                    books[one.id] = (name, one.nanousd)
                if is_booked:
                    self.run(store.booked(name, [one.id for one in some]))
            assert sum(nanousd for _, nanousd in books.values()) == presumed

    @rule()
    def a_replica_dies_and_another_starts(self) -> None:
        """What it had open stays so, until somebody closes or sweeps it."""
        self.stores = [self.run(ground.store()) for ground in self.grounds]

    @rule(
        seconds=st.sampled_from([0.007, 0.333, 0.333, 1, 7.5, 7.5, 59.999, 1800, 3599, 7200, 86_400, 200_000])
    )
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.grounds[2].tell_time()

    @rule()
    def time_passes_to_the_edge_of_the_hour(self) -> None:
        self.clock.advance((3_600_000 - 1 - self.now_ms % 3_600_000) / 1000)
        self.grounds[2].tell_time()

    @invariant()
    def available_is_capacity_less_open_less_spent(self) -> None:
        if not hasattr(self, "stores"):
            return
        expected = [self.model.spent_and_open(limit, self.now_ms) for limit in LIMITS]
        left = [
            max(limit.limit.capacity - spent - open_, 0)
            for limit, (spent, open_) in zip(LIMITS, expected, strict=True)
        ]
        verdicts = [self.run(store.peek(LIMITS)) for store in self.stores]
        assert verdicts[0] == verdicts[1] == verdicts[2]
        assert expected == [(v.spent, v.set_aside) for v in verdicts[0]]
        assert left == [v.remaining for v in verdicts[0]]

    @invariant()
    def no_rate_admits_more_than_its_capacity_and_what_came_back(self) -> None:
        if hasattr(self, "stores"):
            self.admitted.check()

    def teardown(self) -> None:
        if hasattr(self, "grounds"):
            for ground in self.grounds:
                self.run(ground.close())
            self.runner.close()
            shutil.rmtree(self.directory)


STEP = st.tuples(
    st.sampled_from(["reserve", "reserve", "close"]),
    st.one_of(st.sampled_from([0, 0, 20, 30, 61]), st.integers(0, 90)),
    st.sampled_from([0, 0, 0, 1, 999, 10_000, 20_000, 60_000]),
    st.integers(0, 5),
)


@given(steps=st.lists(STEP, min_size=8, max_size=30))
@settings(max_examples=400, deadline=None)
def test_over_no_window_does_a_rate_admit_more_than_capacity_and_what_came_back(
    steps: list[tuple[str, int, int, int]],
) -> None:
    """Many more and denser histories of one rate, through the Python and the Lua."""
    asyncio.run(_one_rate([(*step, 0) for step in steps]))


@given(steps=st.lists(st.tuples(STEP, st.sampled_from([0, 0, 1, 86_400])), min_size=8, max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_clock_that_is_set_back_gives_nothing_twice(
    steps: list[tuple[tuple[str, int, int, int], int]],
) -> None:
    """By a second, or so far that nobody waits for it; over all time that really goes by."""
    asyncio.run(_one_rate([(*step, back_seconds) for step, back_seconds in steps]))


async def _one_rate(steps: Sequence[tuple[str, int, int, int, int]]) -> None:
    rate = bound(61, period=Period.MINUTE)
    clock, admitted = FakeClock(), Admitted()
    grounds = [Ground("memory", clock, Path()), Ground("redis", clock, Path(), Histories.redis)]
    stores = [await ground.store() for ground in grounds]
    open_: list[str] = []
    for i, (what, amount, wait_ms, which, back_seconds) in enumerate(steps):
        clock.jump(-back_seconds)
        grounds[1].advance(wait_ms / 1000)
        if what == "reserve":
            asked = reservation(f"r{i}", rate, nanousd=min(amount, 61), lease_seconds=10**7)
            python, lua = [await store.reserve(asked) for store in stores]
            assert python == lua
            if python.allowed:
                admitted.reserved(f"r{i}", [rate], asked.amounts, round(clock.monotonic() * 1000))
                open_.append(f"r{i}")
        elif open_:
            name = open_.pop(which % len(open_))
            for store in stores:
                await store.settle(rid(name), usd(amount))
            admitted.closed(name, usd(amount))
    admitted.check()
    for ground in grounds:
        await ground.close()


MOVE = st.tuples(
    st.sampled_from(["reserve", "reserve", "close", "close again", "renew", "sweep"]),
    st.sampled_from([5, 5, 50]),
    st.integers(0, 5),
)


@given(moves=st.lists(MOVE, min_size=10, max_size=30))
@settings(max_examples=200, deadline=None)
def test_as_many_places_are_taken_as_exchanges_are_open(moves: list[tuple[str, int, int]]) -> None:
    """Dense histories of one limit of concurrent requests: a place is given back once, by a dead one too."""
    at_once = bound(3, period=Period.OPEN, unit=Unit.CONCURRENT)

    async def drive() -> None:
        clock = FakeClock()
        grounds = [Ground("memory", clock, Path()), Ground("redis", clock, Path(), Histories.redis)]
        stores = [await ground.store() for ground in grounds]
        leases: dict[str, float] = {}
        over: list[str] = []
        for i, (what, seconds, which) in enumerate(moves):
            name = f"r{i}"
            if what == "reserve":
                asked = reservation(name, at_once, concurrent=1, lease_seconds=seconds)
                for store in stores:
                    assert (await store.reserve(asked)).allowed is (len(leases) < 3)
                if len(leases) < 3:
                    leases[name] = clock.now() + seconds
            elif what == "sweep":
                grounds[1].advance(seconds)
                over += [name for name, until in leases.items() if until <= clock.now()]
                leases = {name: until for name, until in leases.items() if until > clock.now()}
                for store in stores:
                    await sweep(store)
            elif names := over if what == "close again" else list(leases):
                name = names[which % len(names)]
                for store in stores:
                    await (store.renew(rid(name), 60) if what == "renew" else store.settle(rid(name), usd(1)))
                if what == "renew":
                    leases[name] = clock.now() + 60
                elif leases.pop(name, None) is not None:
                    over.append(name)
            for store in stores:
                (verdict,) = await store.peek([at_once])
                assert (verdict.spent, verdict.set_aside) == (0, len(leases))
        for ground in grounds:
            await ground.close()

    asyncio.run(drive())


@pytest.fixture(scope="module", autouse=True)
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        Histories.redis = server
        yield


def test_all_stores_and_the_model_agree_on_any_history() -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
