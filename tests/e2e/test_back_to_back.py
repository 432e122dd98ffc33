"""A client that sends one call after the other, under a limit of calls at a time, on real sockets: what a
call holds is given back only once the ledger has its entry, and that is after its answer's last byte."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from gateway import reserving
from gateway.sim.pacing import Pacing
from tests.e2e.whole.calls import ASK, VERSION, call
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

ONE_AT_A_TIME = """\
defaults:
  - {id: at-once, scope: workspace, unit: concurrent, amount: 1, comment: test}
"""
ONE_CALLS_WORTH = """\
defaults:
  - {id: tokens, scope: workspace, unit: output_tokens, amount: 4000, per: day, comment: test}
"""
REDIS = """\
store: {kind: redis}
prefixes: {secret: {env: PREFIX_SECRET}}
"""
CALLS = 200
BOUND_SECONDS = 30.0


async def one_after_the_other(stack: Stack, calls: int, body: object = ASK) -> list[int]:
    """Over one connection, the next as soon as the last byte is here."""
    headers = {"x-api-key": stack.keys["demo"], VERSION[0]: VERSION[1]}
    statuses = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(calls):
            async with session.post(stack.url + "/v1/messages", json=body) as answer:
                await answer.read()
                statuses.append(answer.status)
    return statuses


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_calls_one_after_the_other_are_never_refused_at_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setattr(reserving, "SETTLED_SECONDS", BOUND_SECONDS)  # however slow this disk is
    settings, environ = "store: {kind: sqlite}\n", {}
    with RedisServer(tmp_path / "redis") as redis:
        if store == "redis":
            settings = REDIS
            environ = {"REDIS_URL": redis.url, "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more"}
        async with a_stack(tmp_path, settings=settings, limits=ONE_AT_A_TIME, environ=environ) as stack:
            statuses = await one_after_the_other(stack, CALLS)

    assert statuses == [200] * CALLS


async def test_what_calls_that_are_over_had_set_aside_refuses_no_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call sets aside all there is, and takes a few tokens of it."""
    monkeypatch.setattr(reserving, "SETTLED_SECONDS", BOUND_SECONDS)
    async with a_stack(tmp_path, limits=ONE_CALLS_WORTH) as stack:
        statuses = await one_after_the_other(stack, 20, {**ASK, "max_tokens": 3000})

    assert statuses == [200] * 20


async def test_a_call_beside_one_that_runs_is_refused_without_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "SETTLED_SECONDS", 3_600.0)  # a wait would not end within this test
    async with a_stack(tmp_path, pacing=Pacing(events_per_second=1), limits=ONE_AT_A_TIME) as stack:
        headers = {"x-api-key": stack.keys["demo"], VERSION[0]: VERSION[1]}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(stack.url + "/v1/messages", json={**ASK, "stream": True}) as stream,
        ):
            await stream.content.readany()
            async with asyncio.timeout(BOUND_SECONDS):
                answers = await asyncio.gather(*(call(stack, ASK) for _ in range(10)))
            assert not stream.content.at_eof(), "it is still under way, or this proves nothing"

    assert [answer.status for answer in answers] == [429] * 10
    assert all("at-once" in json.loads(answer.body)["error"]["message"] for answer in answers)
