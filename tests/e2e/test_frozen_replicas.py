"""Two replicas on one Redis take the same changes over: within three seconds of being told, and nothing is
forgotten while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.sim.pacing import Pacing
from tests.e2e.whole.calls import ASK, call
from tests.support.adjusting import PROMISED_SECONDS, Adjusting, adjusting, overridden_at_once
from tests.support.elapsed import elapsed
from tests.support.redis_server import RedisServer
from tests.support.stack import a_simulator, a_stack

SETTINGS = """\
store: {kind: redis}
prefixes: {secret: {env: PREFIX_SECRET}}
"""
LIMITS = """\
defaults:
  - {id: day, scope: workspace, unit: requests, amount: 0, per: day, on_store_failure: allow, comment: test}
overrides:
  - {limit: day, subject: demo, amount: 1000, comment: test}
"""
FREEZE = {"scope": "workspace", "subject": "demo", "reason": "A loop", "by": "lena"}


@dataclass(frozen=True)
class Ground:
    redis: RedisServer
    one: Adjusting
    two: Adjusting

    async def statuses(self, key: str = "demo") -> list[int]:
        return [(await call(each.stack, ASK, key=key)).status for each in (self.one, self.two)]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    simulator = a_simulator(Pacing(events_per_second=10))
    await simulator.start()
    async with AsyncExitStack() as running:
        redis = running.enter_context(RedisServer(tmp_path / "redis"))
        environ = {"REDIS_URL": redis.url, "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more"}
        replicas = []
        for name in ("one", "two"):
            stack = await running.enter_async_context(
                a_stack(
                    tmp_path / name,
                    environ=environ,
                    settings=SETTINGS,
                    limits=LIMITS,
                    simulator=simulator,
                )
            )
            replicas.append(await running.enter_async_context(adjusting(stack)))
        yield Ground(redis, *replicas)
    await simulator.stop()


async def test_a_freeze_stops_new_calls_on_both_in_time_and_lets_streams_end(ground: Ground) -> None:
    headers = {"x-api-key": ground.two.stack.keys["demo"], "anthropic-version": "2023-06-01"}
    body = {**ASK, "stream": True}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(ground.two.stack.url + "/v1/messages", json=body) as stream,
    ):
        await stream.content.readany()
        with elapsed() as took:
            await ground.one.send("POST", "/v1/freezes", FREEZE)
            assert (await call(ground.one.stack, ASK)).status == 403, "the replica that was told at once"
            while (await call(ground.two.stack, ASK)).status != 403:
                assert took.seconds < PROMISED_SECONDS
                await asyncio.sleep(0.05)
        assert not stream.content.at_eof(), "it is still under way, or this proves nothing"
        rest = await stream.read()

    assert stream.status == 200
    assert b"event: message_stop" in rest


async def test_a_grant_on_one_is_told_and_taken_back_on_the_other(ground: Ground) -> None:
    assert await ground.statuses("poor") == [429, 429]
    made = await ground.one.send(
        "POST",
        "/v1/grants",
        {"limit": "day", "subject": "poor", "amount": 3, "reason": "Demo day", "by": "lena"},
    )
    await ground.two.refresh()
    assert await ground.statuses("poor") == [200, 200]
    (entry,) = (await ground.two.send("GET", "/v1/adjustments"))["entries"]
    assert entry == made

    taken = await ground.two.send(
        "DELETE", f"/v1/grants/{made['id']}", query={"by": "ann", "reason": "The day is over"}
    )
    await ground.one.refresh()

    assert await ground.statuses("poor") == [429, 429]
    entries = (await ground.one.send("GET", "/v1/adjustments"))["entries"]
    assert entries == [taken, made]


async def test_of_overrides_that_are_made_on_both_at_once_the_last_in_the_log_stands(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = {"limit": "day", "subject": "demo", "reason": "Demo day", "by": "lena"}
    last = await overridden_at_once(monkeypatch, [ground.one, ground.two], demo, ["2", "3"])

    for each in (ground.one, ground.two):
        await each.refresh()
        shown = await each.send("GET", "/v1/budgets", query={"workspace": "demo", "limit": "day"})
        (budget,) = shown["budgets"]
        assert (budget["adjustments"], budget["amount"]) == ([last], last["amount"])


async def test_what_is_known_stays_in_force_while_redis_is_away_and_changes_are_refused(
    ground: Ground,
) -> None:
    await ground.one.send("POST", "/v1/freezes", FREEZE)
    ground.redis.stop()
    await ground.one.refresh()

    assert (await call(ground.one.stack, ASK)).status == 403
    answer = await ground.one.send("POST", "/v1/freezes", {**FREEZE, "subject": "other"}, status=503)
    assert "cannot be reached" in answer["error"]["message"]
    assert (await call(ground.one.stack, ASK, key="other")).status != 403
    ground.redis.start()  # what is still to be settled would keep the end waiting


async def test_an_emptied_redis_lifts_no_freeze_and_takes_nothing_from_the_audit_trail(
    ground: Ground,
) -> None:
    await ground.one.send("POST", "/v1/freezes", FREEZE)
    await ground.two.refresh()
    before = await ground.two.send("GET", "/v1/adjustments")

    assert ground.redis.command("FLUSHALL") == b"+OK\r\n"

    assert await ground.statuses() == [403, 403]
    for each in (ground.one, ground.two):
        await each.refresh()
    assert await ground.statuses() == [403, 403]
    assert await ground.one.send("GET", "/v1/adjustments") == before
