"""Who may call, what is kept apart, what is limited and what is recorded."""

from __future__ import annotations

import json

import aiohttp

from gateway.sim import Scripted, Simulator
from gateway.sim.records import KEPT_BODY_BYTES, Received, Records
from tests.sim.calls import LONG, call, error, post
from tests.sim.conftest import KEY
from tests.support.clock import FakeClock


async def test_version_is_required_and_known(simulator: Simulator) -> None:
    async with aiohttp.ClientSession(simulator.url, headers={"x-api-key": KEY}) as session:
        assert (await error(session, call()))[2] == "anthropic-version: header is required"
        assert (await error(session, call(), anthropic_version="2020-01-01"))[0] == 400


async def test_unknown_beta_is_refused(raw: aiohttp.ClientSession) -> None:
    message = (await error(raw, call(), anthropic_beta="context-management-2025-06-27, wonders"))[2]

    assert message == "Unexpected value(s) `wonders` for the `anthropic-beta` header."


async def test_credentials_are_needed_in_either_header(simulator: Simulator) -> None:
    version = {"anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(simulator.url, headers=version) as session:
        assert (await error(session, call()))[:2] == (401, "authentication_error")
        assert (await post(session, call(), x_api_key="sk-test-a"))[0] == 200
        assert (await post(session, call(), authorization="Bearer sk-test-a"))[0] == 200
        assert (await post(session, call(), authorization="Basic sk-test-a"))[0] == 401
    by_key, by_bearer = simulator.requests[1].workspace, simulator.requests[2].workspace
    assert by_key == by_bearer


async def test_the_credential_decides_the_workspace_and_the_header_must_agree() -> None:
    """Authentication page, 2026-10-03."""
    simulator = Simulator(credentials={"sk-test-a": "wrkspc_a", "sk-test-many": ("wrkspc_a", "wrkspc_b")})
    await simulator.start()
    try:
        async with aiohttp.ClientSession(
            simulator.url, headers={"anthropic-version": "2023-06-01"}
        ) as session:
            assert (await error(session, call(), x_api_key="sk-test-else"))[0] == 401
            assert (await post(session, call(), x_api_key="sk-test-a"))[0] == 200
            ask = {"anthropic_workspace_id": "wrkspc_b"}
            assert (await error(session, call(), x_api_key="sk-test-a", **ask)) == (
                404,
                "not_found_error",
                "Workspace `wrkspc_b` not found.",
            )
            assert (await post(session, call(), x_api_key="sk-test-many", **ask))[0] == 200
            status, _, message = await error(session, call(), x_api_key="sk-test-many")
            assert status == 400
            assert message.startswith("anthropic-workspace-id is required when authenticating")
        assert [r.workspace for r in simulator.requests] == [None, "wrkspc_a", None, "wrkspc_b", None]
    finally:
        await simulator.stop()


async def test_caches_are_apart_by_workspace(raw: aiohttp.ClientSession) -> None:
    await post(raw, call(system=LONG))
    other = await post(raw, call(system=LONG), x_api_key="sk-test-other")
    same = await post(raw, call(system=LONG))

    assert other[1]["usage"]["cache_read_input_tokens"] == 0
    assert same[1]["usage"]["cache_read_input_tokens"] > 0


async def test_enforced_limits_refuse_with_retry_after(clock: FakeClock) -> None:
    simulator = Simulator(tier="start", enforce_limits=True, clock=clock)
    await simulator.start()
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    simulator.script.add(Scripted(content="x", usage={"output_tokens": 500_000}))
    try:
        async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
            await post(session, call())
            async with session.post("/v1/messages", json=call()) as refused:
                assert refused.status == 429
            clock.advance(float(refused.headers["retry-after"]))
            assert (await post(session, call()))[0] == 200
    finally:
        await simulator.stop()

    assert refused.headers["retry-after"] == "16"  # 100,000 over 400,000 a minute, and one to go on


async def test_head_of_the_root_is_answered_without_credential(simulator: Simulator) -> None:
    async with aiohttp.ClientSession(simulator.url) as session, session.head("/") as response:
        assert response.status == 200


def test_records_are_bounded_in_number_and_in_bytes_of_bodies() -> None:
    records = Records(keep=3)
    for number in range(5):
        received = Received(
            request_id="", method="POST", target="/", headers=(), received_at=number, body=b"x" * 100
        )
        records.add(received)
        records.close(received, at=number)
    big = Received(request_id="", method="POST", target="/", headers=(), received_at=9)
    records.add(big)
    big.body = bytes(KEPT_BODY_BYTES)
    records.close(big, at=9)

    assert [received.number for received in records.items] == [4, 5, 6]
    assert [len(received.body) for received in records.items] == [0, 0, KEPT_BODY_BYTES]


async def test_records_what_came_and_what_it_cost(raw: aiohttp.ClientSession, simulator: Simulator) -> None:
    await post(raw, call(system=LONG))
    received = simulator.requests[-1]
    async with raw.get("/_sim/requests?last=1") as response:
        shown = (await response.json())["requests"][0]
    async with raw.get("/_sim/bill") as response:
        bill = await response.json()

    assert received.target == "/v1/messages"
    assert json.loads(received.body) == call(system=LONG)
    assert received.header("X-Api-Key") == KEY
    assert received.ended == "complete"
    assert received.cost_nanousd == simulator.bill.total_nanousd > 0
    assert shown["usage"] == received.usage
    assert KEY not in json.dumps(shown)
    assert bill["total_nanousd"] == received.cost_nanousd
    assert bill["groups"][0]["workspace"] == received.workspace
    assert len(simulator.requests) == 1
