"""Calls that go up with a token that was got for an identity, through a whole gateway on sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.sim.faults import Fault, FaultKind, Match
from tests.e2e.test_identity import a_federated_world, exchanges
from tests.e2e.whole.calls import ASK, LONG, call


async def test_calls_go_up_with_a_token_that_was_got_for_an_identity(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, simulator, _):
        answer = await call(stack, ASK, headers=[("anthropic-beta", "a-beta-2026-01-01")])
        last = simulator.requests[-1]

        assert answer.status == 200
        assert (last.header("authorization") or "").startswith("Bearer sk-test-oat01-")
        assert last.header("anthropic-beta") == "a-beta-2026-01-01,oauth-2025-04-20"
        assert (last.workspace, exchanges(simulator)) == ("wrkspc_1", 1)


async def test_a_token_that_upstream_takes_back_costs_one_more_try(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, simulator, _):
        assert (await call(stack, ASK)).status == 200
        simulator.federation.revoke()
        answers = await asyncio.gather(*(call(stack, {**ASK, "system": LONG}) for _ in range(5)))

        assert [answer.status for answer in answers] == [200] * 5
        assert exchanges(simulator) == 2
        assert sum(total.requests for total in await stack.books()) == 6


async def test_a_refusal_that_another_token_does_not_mend_reaches_the_client(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, simulator, _):
        simulator.faults.add(
            Fault(
                kind=FaultKind.STATUS,
                status=401,
                match=Match(path="/v1/messages"),
                times=10,
            )
        )
        first = await call(stack, ASK)
        asked = [each for each in simulator.requests if each.target == "/v1/messages"]

        assert (first.status, len(asked)) == (401, 2)
        second = await call(stack, ASK)
        asked = [each for each in simulator.requests if each.target == "/v1/messages"]
        assert (second.status, len(asked), exchanges(simulator)) == (401, 3, 2)


async def test_a_client_that_retries_already_is_not_retried_for(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, simulator, _):
        simulator.federation.revoke()
        retrying = await call(stack, ASK, headers=[("x-stainless-retry-count", "1")])

        assert retrying.status == 401
        assert (await call(stack, ASK)).status == 200
        assert exchanges(simulator) == 2


async def test_without_a_token_calls_end_in_the_apis_shape_until_there_is_one(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, simulator, clock):
        simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=503, match=Match(path="/v1/oauth/token"), times=1_000)
        )
        clock.jump(4_000)
        answer = await call(stack, ASK)

        assert (answer.status, answer.json["error"]["type"]) == (502, "api_error")
        assert "no token for upstream 'default'" in answer.json["error"]["message"]
        simulator.faults.clear()
        for _ in range(5):  # an exchange that was under way may still fail
            clock.jump(120)
            if (answer := await call(stack, ASK)).status == 200:
                break
        assert answer.status == 200  # it waited for the one that was being got
