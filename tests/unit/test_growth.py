"""How work grows: counted in instructions of the interpreter, so that no busy machine can change the outcome.
What C code does within one of them is not seen; `tests/bench/growth.py` measures all of it."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import pytest

from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.core.bucket import Amounts, Reservation
from gateway.core.changes import Changes
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.plan import Plan, Reading, place_call, read_call
from gateway.core.planner import PlannerOptions
from gateway.core.principal import RANDOM_BYTES, Keyring, Principal, mint_key
from gateway.core.rules import Rules, Workspace
from gateway.settings import build_keyring, build_rules, load_settings, packaged_directory
from tests.support.bodies import conversation, dump
from tests.support.clock import FakeClock

DEMO = WorkspaceId("demo")


def instructions(work: Callable[[], object]) -> int:
    """So many of the interpreter's own does `work` take."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "call":
            frame.f_trace = trace  # before it is asked for: since 3.13 instructions are not told otherwise
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        elif event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture(scope="module")
def rules() -> Rules:
    settings = load_settings(packaged_directory(), {"ANTHROPIC_API_KEY": "sk-test-growth"})
    return build_rules(settings, build_keyring(settings, ()), 1)


class Placer:
    """Reads and places for one policy, as a replica does."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.workspace: Workspace = replace(
            next(iter(rules.workspaces.values())), id=DEMO, client_marks=rules.workspaces[DEMO].client_marks
        )
        self.policy = LearnedPolicy(PlannerOptions(capacity=1 << 14), changes=Changes(b"growth"))
        self.calls = 0

    def plan(self, body: bytes, like: Reading | None = None) -> tuple[Reading, Plan]:
        self.calls += 1
        reading = read_call(
            body,
            rules=self.rules,
            workspace=self.workspace,
            policy=self.policy,
            headers=(),
            wanted=True,
            like=like,
        )
        call_id, at = f"gw_{self.calls}", 1_000.0 + self.calls
        plan = place_call(
            reading, rules=self.rules, workspace=self.workspace, policy=self.policy, call_id=call_id, at=at
        )
        assert plan.failure is None
        assert plan.placement.breakpoints
        self.policy.answered(call_id, at)
        return reading, plan


@pytest.fixture
def placer(rules: Rules) -> Placer:
    placer = Placer(rules)
    placer.plan(a_body(40))  # what is done once only is done
    return placer


def a_body(blocks: int, turns: int = 0) -> bytes:
    return dump(conversation(*([1] * (blocks + turns))))


def test_reading_and_placing_a_new_body_grow_no_faster_than_its_blocks(placer: Placer) -> None:
    few, many = (instructions(partial(placer.plan, a_body(n))) for n in (101, 1_011))

    assert many < few * 10.5


def test_the_next_turn_costs_far_less_than_reading_it_all_again(placer: Placer) -> None:
    first, _ = placer.plan(a_body(1_001))
    again = a_body(1_001, turns=2)

    goes_on = instructions(lambda: placer.plan(again, first))

    assert goes_on * 3 < instructions(lambda: placer.plan(again))


@pytest.mark.parametrize("kind", [Period.MINUTE, Period.CALENDAR_MONTH])
def test_reserving_and_settling_grow_no_faster_than_the_limits_that_bind(kind: Period) -> None:
    costs = []
    for count in (4, 24):
        store = MemoryBudgets(FakeClock())
        limits = Limits(
            tuple(
                Limit(id=f"l{n}", scope=Scope.KEY, unit=Unit.REQUESTS, amount=1_000, period=kind)
                for n in range(count)
            )
        ).binding(a_caller(0), "m")

        async def pair(name: str, store: Any = store, limits: Any = limits) -> None:
            asked = Reservation(
                id=ReservationId(name), limits=limits, amounts=Amounts(requests=1), lease_seconds=60
            )
            assert (await store.reserve(asked)).allowed
            await store.settle(ReservationId(name), Amounts(requests=1))

        with asyncio.Runner() as runner:
            runner.run(pair("first"))
            costs.append(instructions(partial(runner.run, pair("second"))))

    assert costs[1] < costs[0] * 6.3


def test_a_key_is_found_as_fast_among_5000_as_among_10() -> None:
    costs = []
    for count in (10, 5_000):
        made = [
            mint_key(
                random_bytes=hashlib.sha512(str(n).encode()).digest()[:RANDOM_BYTES],
                name="growth",
                workspace=DEMO,
                created_at=0.0,
            )
            for n in range(count)
        ]
        ring = Keyring((record for _, record in made), {DEMO: "org"})
        costs.append(instructions(partial(ring.identify, made[-1][0], 1.0)))

    assert costs[0] == costs[1]


def test_limits_of_a_caller_who_is_new_are_found_as_fast_among_5000_workspaces_as_among_10() -> None:
    costs = []
    for count in (10, 5_000):
        limits = Limits(
            (
                a_limit("all"),
                *(a_limit("own", subjects=(f"w{n}",)) for n in range(count)),
                a_limit("many", unit=Unit.REQUESTS, subjects=tuple(f"w{n}" for n in range(count))),
            )
        )
        costs.append(instructions(partial(limits.binding, a_caller(1), "m")))
        assert [bound.limit.id for bound in limits.binding(a_caller(2), "m")] == ["own", "many"]

    assert costs[0] == costs[1]


def test_a_tags_limit_is_found_as_fast_among_5000_values_as_among_10() -> None:
    costs = []
    for count in (10, 5_000):
        limits = Limits(
            tuple(a_limit("own", scope=Scope.TAG, tag="x-team", subjects=(f"t{n}",)) for n in range(count))
        )
        tags = (("x-team", "t3"),)
        costs.append(instructions(partial(limits.binding, a_caller(1), "m", tags)))
        assert [bound.subject for bound in limits.binding(a_caller(1), "m", tags)] == ["t3"]

    assert costs[0] == costs[1]


def a_caller(number: int) -> Principal:
    return Principal(workspace=WorkspaceId(f"w{number}"), key_id=KeyId(f"k{number}"), key_name="growth")


def a_limit(id: str, **changes: Any) -> Limit:
    values: dict[str, Any] = {
        "scope": Scope.WORKSPACE,
        "unit": Unit.NANOUSD,
        "amount": 100,
        "period": Period.CALENDAR_DAY,
        **changes,
    }
    return Limit(id=id, **values)
