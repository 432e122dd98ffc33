"""Entries kept alive: one renewal in a lifetime, by one replica, few at once, and the policy told of each."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.no_peers import NoPeers
from gateway.core.adjustments import Author, Freeze, Freezes, FreezeScope
from gateway.core.learned import WarmUp
from gateway.core.news import News, Warmed
from gateway.core.placement import Breakpoint, Placement
from gateway.core.plan import Plan
from gateway.core.planner import Prices, Warm
from gateway.core.principal import Keyring, Principal
from gateway.core.prompt import TTL
from gateway.core.prompt_reader import read_prompt
from gateway.core.usage import Usage
from gateway.core.warmup import WarmCause, WarmState
from gateway.tasks import TaskSet
from gateway.workers.keep_alive import JITTER_SECONDS, LOOK_SECONDS, MAX_AT_ONCE, KeepAlive
from gateway.workers.warm_pace import CROWDED_SECONDS
from tests.support.fakes import KEY, KEY_RECORD, MODEL, Played, a_body
from tests.support.warming import DEMO, READ, Warming, refused


@dataclass
class Policy:
    """A policy that plays what is due, and writes down what it hears."""

    ready: list[WarmUp] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def due(self, at: float) -> Sequence[WarmUp]:
        ready, self.ready = self.ready, []
        return ready

    def warmed(self, warm_up: WarmUp, usage: Usage, at: float) -> None:
        self.told.append(f"warmed {warm_up.call_id} {usage.cache_read_tokens}")

    def not_warmed(self, warm_up: WarmUp, at: float) -> None:
        self.told.append(f"not warmed {warm_up.call_id}")

    def hear(self, replica: str, news: News, at: float) -> None:
        assert isinstance(news, Warmed)
        self.told.append(f"{replica} warmed {news.key}")


class Elsewhere(NoPeers):
    """Another replica has claimed everything."""

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        return "other"


def a_warm_up(call: str, upto: int = 0) -> WarmUp:
    prices = Prices()
    warm = Warm(
        request=1, upto=upto, marks=(), tokens=4_000, chance=0.5, account=1, key=7, cost=1.0, prices=prices
    )
    return WarmUp(
        call_id=call,
        upto=upto,
        marks=(Breakpoint(upto, TTL.FIVE_MINUTES, "keeps it"),),
        key=7,
        tokens=4_000,
        chance=0.5,
        cost=1.0,
        reason="keeps it",
        warm=warm,
    )


class Keeping(Warming):
    """With a loop that keeps alive what `policy` says."""

    def __init__(self, folder: Path, *script: Played, peers: NoPeers | None = None, **more: Any) -> None:
        super().__init__(folder, *script, **more)
        self.policy = Policy()
        self.keep_alive = KeepAlive(
            self.prewarmer,
            self.policy,
            peers=peers or NoPeers(),
            clock=self.world.clock,
            tasks=self.world.tasks,
            random=lambda: 0.5,
            replica="r1",
        )

    def keep(self, call: str, **changed: Any) -> None:
        """A real call whose prompt may be asked for."""
        prompt = read_prompt(json.dumps(a_body(stream=True, **changed)).encode())
        plan = Plan(
            prompt=prompt,
            facts=self.world.rules.models.facts(MODEL),
            placement=Placement(keep_upto=1),
            pieces=(prompt.body,),
            applied=True,
            failure=None,
        )
        made = replace(self.world.make_call(target="/v1/messages?beta=true"), id=call)
        self.prewarmer.keep(made, plan, self.caller)

    @property
    def caller(self) -> Principal:
        return self.world.rules.keyring.identify(KEY, self.world.clock.now())

    async def run(self, *calls: str, upto: int = 0) -> list[str]:
        """Let these be due, and wait for what becomes of them."""
        self.policy.ready = [a_warm_up(call, upto) for call in calls]
        self.keep_alive.look()
        self.world.clock.advance(JITTER_SECONDS)
        self.keep_alive.look()
        await self.world.tasks.drain(5.0)
        return self.policy.told


async def test_an_entry_is_kept_alive_and_the_policy_told_once(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, READ)
    keeping.keep("c")

    assert await keeping.run("c", upto=1) == ["warmed c 4000"]
    (body,) = keeping.sent()
    assert body["max_tokens"] == 0
    assert json.dumps(body).count("cache_control") == 1
    assert keeping.world.upstream.requests[0].target == "/v1/messages?beta=true"
    assert keeping.told == [(WarmCause.KEEP_ALIVE, WarmState.WARMED)]
    assert keeping.prewarmer.report()[0].cause is WarmCause.KEEP_ALIVE


async def test_one_replica_keeps_it_alive(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, peers=Elsewhere())
    keeping.keep("c")

    assert await keeping.run("c") == ["not warmed c", "other warmed 7"]
    assert keeping.sent() == []


async def test_what_is_not_kept_or_not_wanted_is_not_sent(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    keeping.change(warming_nanousd_per_day=0)
    keeping.keep("a")
    assert len(keeping.prewarmer.kept) == 0, "no budget, so nothing is kept"
    keeping.change(warming_nanousd_per_day=1_000_000_000)
    keeping.keep("b")
    keeping.busy = True
    keeping.keep("c", tool_choice={"type": "any"})

    assert await keeping.run("a", "b", "c") == ["not warmed a", "not warmed b", "not warmed c"]
    assert keeping.sent() == []


async def test_a_failed_renewal_is_told_and_given_up(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, refused(529))
    keeping.keep("a")
    keeping.keep("b")

    assert await keeping.run("a") == ["not warmed a"]
    assert await keeping.run("b") == ["not warmed a", "not warmed b"], "upstream is left alone"
    assert len(keeping.sent()) == 1


async def test_trap_31_real_calls_come_first(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, refused(429, headers=[(b"retry-after", b"1")]))
    keeping.keep("a")
    await keeping.world.call()

    assert await keeping.run("a") == ["not warmed a"]
    assert len(keeping.sent()) == 1, "the real one"
    keeping.world.clock.advance(CROWDED_SECONDS)
    assert keeping.prewarmer.may_renew(keeping.caller)


@pytest.mark.parametrize("how", ["revoked", "removed", "key frozen", "workspace frozen"])
async def test_nothing_is_sent_for_who_may_not_call_any_more(tmp_path: Path, how: str) -> None:
    keeping = Keeping(tmp_path)
    keeping.keep("a")
    rules, now = keeping.world.rules, keeping.world.clock.now()
    revoked = dataclasses.replace(KEY_RECORD, revoked_at=now)
    records = {"revoked": [revoked], "removed": []}.get(how, [KEY_RECORD])
    frozen = {
        "key frozen": (FreezeScope.KEY, KEY_RECORD.id),
        "workspace frozen": (FreezeScope.WORKSPACE, DEMO),
    }
    by = Author(name="ann", via="a test")
    freezes = []
    if how in frozen:
        scope, subject = frozen[how]
        freezes = [Freeze(id="f", scope=scope, subject=subject, reason="stop", by=by, at=now)]
    keeping.world.rules = dataclasses.replace(
        rules, keyring=Keyring(records, {DEMO: "default"}), freezes=Freezes(freezes)
    )

    assert await keeping.run("a") == ["not warmed a"]
    assert keeping.sent() == []


async def test_trap_31_renewals_are_few_at_once_and_few_in_a_minute(tmp_path: Path) -> None:
    many = [f"c{number}" for number in range(20)]
    keeping = Keeping(tmp_path, *[READ] * 40, per_minute=600)
    slow = Keeping(tmp_path / "slow", *[READ] * 40, per_minute=12)
    for call in many:
        keeping.keep(call)
        slow.keep(call)
    told = await keeping.run(*many)

    assert sum(line.startswith("warmed") for line in told) == MAX_AT_ONCE
    assert sum(line.startswith("not warmed") for line in told) == len(many) - MAX_AT_ONCE
    told = await slow.run(*many)
    assert sum(line.startswith("warmed") for line in told) == 2, "a sixth of twelve at once"


async def test_a_loop_that_is_cancelled_tells_what_it_did_not_do(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    keeping.keep("c")
    keeping.policy.ready = [a_warm_up("c")]
    loops = TaskSet()
    loops.spawn(keeping.keep_alive.run(), "keeping alive")
    for _ in range(10):
        await asyncio.sleep(0)
    keeping.world.clock.advance(LOOK_SECONDS)
    for _ in range(10):
        await asyncio.sleep(0)
    assert keeping.policy.ready == []
    assert await loops.drain(0.01) == 1

    assert keeping.policy.told == ["not warmed c"]
