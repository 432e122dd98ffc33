"""Calls that wait for each other: whoever leads, fails, leaves or dies, nobody waits too long and no herd
gets through. Two replicas in memory, time that is told to pass; the policy knows a single prefix."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.exchange import Basis
from gateway.core.rules import PlacementMode
from gateway.placing import CLAIM_SECONDS, MAX_FAILED_LEADERS, MAX_FLIGHTS, UNHEARD_SECONDS, Flights
from tests.support.clock import FakeClock
from tests.support.fakes import FakeReply, Played, World, a_body, a_message
from tests.support.replicas import HOLD, Ground, OnePrefix, Planned, Replica


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(World(tmp_path), json.dumps(a_body()).encode())
    yield ground
    tasks: list[asyncio.Task[Any]] = [call.task for call in ground.calls]
    tasks += [replica.listening for replica in ground.replicas]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def answers(count: int) -> list[Played]:
    return [Played(pieces=[a_message()]) for _ in range(count)]


def herd(replicas: Sequence[Replica], size: int) -> list[Planned]:
    return [replicas[at % len(replicas)].call(f"c{at}") for at in range(size)]


@pytest.mark.parametrize(
    ("basis", "told"),
    [(Basis.REPORTED, "billed"), (Basis.PARTIAL, "billed"), (Basis.ESTIMATED, "failed, billed")],
)
async def test_a_call_that_was_cut_is_billed_and_one_that_was_guessed_is_not(
    ground: Ground, basis: Basis, told: str
) -> None:
    """What its prompt read and wrote came with the head of its answer."""
    replica = ground.replica("one")
    call = replica.call("c")
    await ground.rest()
    call.answered()
    replica.ends("c", good=True, basis=basis)

    assert replica.policy.told[-1] == (told, "c")


# Who leads


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_herd_writes_a_cold_prefix_once_and_all_others_read(ground: Ground, count: int) -> None:
    replicas = [ground.replica(f"r{at}") for at in range(count)]
    calls = herd(replicas, 30)
    await ground.rest()
    (leader,) = [call for call in calls if call.going]
    assert ground.written == [leader.id]
    await ground.passes(1.0)
    leader.answered()
    await ground.rest()

    assert len(ground.going()) == 30
    assert ground.written == [leader.id]
    held = [call.hold for call in calls if call is not leader]
    assert {(hold.seconds, hold.tokens) for hold in held} == {(1.0, 1000)}
    assert (leader.hold.seconds, leader.hold.tokens) == (0.0, 0)
    for call in calls:
        call.replica.ends(call.id, good=True)
    await ground.rest()
    assert ground.nothing_is_left()


@pytest.mark.parametrize("how", ["rejected", "failed"])
async def test_after_a_leader_that_fails_exactly_one_of_the_others_leads(ground: Ground, how: str) -> None:
    calls = herd([ground.replica("one"), ground.replica("two")], 20)
    await ground.rest()
    for led in range(MAX_FAILED_LEADERS):
        assert len(ground.going()) == len(ground.written) == led + 1
        leader = next(call for call in calls if call.id == ground.written[-1])
        getattr(leader, how)()
        await ground.rest()

    assert len(ground.going()) == len(ground.written) == 20, "upstream fails: nobody waits for that"


async def test_a_leader_that_answered_before_anybody_waited_holds_nobody(ground: Ground) -> None:
    """On the other replica the news come before the answer to the claim."""
    one, two = ground.replica("one"), ground.replica("two")
    leader = one.call("c0")
    await ground.rest()
    two.flights.ended("c0", good=True)
    follower = two.call("c1")
    await ground.rest()

    assert leader.going and follower.going
    assert follower.hold.seconds == 0.0


async def test_a_policy_is_told_of_each_end_once(ground: Ground) -> None:
    one = ground.replica("one")
    rejected = one.call("c0")
    await ground.rest()
    rejected.rejected()
    rejected.failed()
    good = one.call("c1")
    await ground.rest()
    good.answered()
    one.ends("c1", good=True)

    assert one.policy.told == [("failed", "c0"), ("answered", "c1"), ("billed", "c1")]


async def test_a_leader_that_upstream_rejects_lets_exactly_one_other_lead(tmp_path: Path) -> None:
    """Through the pipeline: a 429 comes with the head of an answer, and has written nothing."""
    written: list[str] = []
    policy = OnePrefix(lambda what, call_id: None, written)
    world = World(tmp_path, Played(status=429, pieces=[b"{}"]), *answers(9), policy=policy)
    replies = [FakeReply(world.stage) for _ in range(10)]
    await asyncio.gather(*(world.pipeline.handle(world.make_call(), reply) for reply in replies))
    await world.tasks.drain(5.0)

    assert [reply.status for reply in replies] == [429, *[200] * 9]
    assert written == ["gw_1", "gw_2"]
    assert policy.told[:2] == [("failed", "gw_1"), ("answered", "gw_2")]


# Who leaves


@pytest.mark.parametrize("turns", range(6))
async def test_a_leader_whose_client_leaves_at_any_time_lets_another_lead(ground: Ground, turns: int) -> None:
    one, two = ground.replica("one"), ground.replica("two")
    leader = one.call("c0")
    for _ in range(turns):
        await asyncio.sleep(0)
    followers = [two.call("c1"), one.call("c2")]
    await ground.rest()
    assert leader.going
    leader.failed()
    await ground.rest()

    assert len([call for call in followers if call.going]) == 1


async def test_a_call_that_is_cancelled_while_it_claims_holds_nobody(ground: Ground) -> None:
    one, two = ground.replica("one"), ground.replica("two")
    for turns in range(6):
        leader = one.call(f"c{turns}")
        for _ in range(turns):
            await asyncio.sleep(0)
        await leader.leaves()
        assert not ground.hub.claims, turns

    follower = two.call("last")
    await ground.rest()
    assert follower.going


async def test_a_follower_that_leaves_disturbs_nobody(ground: Ground) -> None:
    one = ground.replica("one")
    leader, follower, other = one.call("c0"), one.call("c1"), one.call("c2")
    await ground.passes(1.0)
    await follower.leaves()
    assert follower.hold.seconds == 1.0
    await ground.rest()
    assert ground.going() == ["c0"]
    leader.answered()
    await ground.rest()

    assert other.going
    assert ground.written == ["c0"]


# Who dies


async def test_the_death_of_the_leaders_replica_lets_its_followers_go(ground: Ground) -> None:
    one, two = ground.replica("one"), ground.replica("two")
    leader = one.call("c0")
    await ground.rest()
    followers = [two.call("c1"), two.call("c2")]
    await ground.passes(1.0)
    assert ground.going() == ["c0"]
    ground.hub.leave("one")
    await ground.rest()

    assert leader.going
    assert len([call for call in followers if call.going]) == 1
    assert two.policy.written == ["c1"]


async def test_a_replica_that_dies_before_it_could_tell_of_its_call_holds_nobody_long(
    ground: Ground,
) -> None:
    """Nobody heard of it, so nobody is told of its end: its claim is asked for again."""
    ground.replica("one")
    two = ground.replica("two")
    await ground.hub.members["one"].claim([(7).to_bytes(8, "little")], "c0", CLAIM_SECONDS)
    followers = [two.call("c1"), two.call("c2")]
    await ground.rest()
    assert ground.going() == []
    ground.hub.leave("one")
    await ground.passes(UNHEARD_SECONDS)

    assert len([call for call in followers if call.going]) == 1
    assert len(two.flights._unanswered) == 1


# What goes wrong


async def test_nobody_is_held_longer_than_allowed_when_news_are_lost(ground: Ground) -> None:
    one, two = ground.replica("one"), ground.replica("two")
    two.deaf = True
    leader = one.call("c0")
    await ground.rest()
    follower = two.call("c1")
    await ground.passes(HOLD - 0.25)
    assert ground.going() == [leader.id]
    await ground.passes(0.25)

    assert ground.going() == [leader.id, follower.id]
    assert (follower.hold.seconds, follower.hold.tokens) == (HOLD, 0)
    follower.replica.ends("c1", good=True)
    assert not two.flights._unanswered


async def test_without_its_peers_each_replica_writes_once(ground: Ground) -> None:
    ground.hub.away = True
    replicas = [ground.replica("one"), ground.replica("two")]
    calls = herd(replicas, 20)
    await ground.rest()
    assert [len(replica.policy.written) for replica in replicas] == [1, 1]
    for call in calls:
        if call.going:
            call.answered()
    await ground.rest()

    assert len(ground.going()) == 20
    assert len(ground.written) == 2


async def test_a_call_that_claimed_and_could_not_be_planned_holds_nobody(ground: Ground) -> None:
    one, two = ground.replica("one"), ground.replica("two")
    one.policy.fails_for = {"c0"}
    failed = one.call("c0")
    await ground.rest()
    assert failed.task.result().failure is not None
    follower = two.call("c1")
    await ground.rest()

    assert follower.going
    assert follower.hold.seconds == 0.0


async def test_a_call_that_claimed_and_places_nothing_in_the_end_holds_nobody(ground: Ground) -> None:
    """What it knew was forgotten between its two questions, and so it writes nothing."""
    one, two = ground.replica("one"), ground.replica("two")
    one.policy.nothing_for = {"c0"}
    leader = one.call("c0")
    await ground.rest()
    assert not leader.task.result().placement.breakpoints
    follower = two.call("c1")
    await ground.rest()

    assert follower.going
    assert follower.hold.seconds == 0.0
    assert ground.written == ["c1"]


async def test_a_failed_call_that_could_not_let_go_is_not_waited_for_twice(ground: Ground) -> None:
    one, two = ground.replica("one"), ground.replica("two")
    leader = one.call("c0")
    followers = [two.call("c1"), two.call("c2")]
    await ground.rest()
    kept = dict(ground.hub.claims)
    leader.failed()
    ground.hub.claims = kept
    await ground.rest()

    assert len([call for call in followers if call.going]) == 1
    assert len(two.policy.written) == 1


@pytest.mark.parametrize(
    ("hold", "mode"), [(0.0, PlacementMode.ON), (HOLD, PlacementMode.SHADOW)], ids=["no hold", "shadow"]
)
async def test_nobody_is_held_where_holding_is_off(ground: Ground, hold: float, mode: PlacementMode) -> None:
    ground.hold, ground.mode = hold, mode
    herd([ground.replica("one")], 5)
    await ground.rest()

    assert len(ground.going()) == 5
    assert not ground.hub.claims


# Flights


async def test_flights_are_bounded_and_the_oldest_is_let_go_of() -> None:
    flights, clock = Flights(), FakeClock()
    waiter = asyncio.get_running_loop().create_task(flights.wait("first", HOLD, clock))
    await asyncio.sleep(0)
    for number in range(MAX_FLIGHTS):
        flights.began(f"c{number}")

    assert await waiter is False
    assert len(flights._unanswered) == MAX_FLIGHTS


async def test_a_call_that_is_heard_of_late_is_waited_for_as_long_as_asked() -> None:
    """Only the first time counts, whatever comes after it."""
    flights, clock = Flights(), FakeClock()
    flights.ended("c0", good=False)
    flights.began("c0")
    flights.ended("c0", good=True)

    assert await flights.wait("c0", HOLD, clock) is False
    assert not flights._unanswered
