"""What the alerts on the API and on identities are about, caused for real: each fires on what was exposed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.sim.faults import Fault, FaultKind, Match
from tests.e2e.test_identity import a_federated_world, a_world, ask, pod
from tests.e2e.whole.calls import ASK, call, eventually
from tests.support.alert_trial import Trial, assert_fires, booked, page
from tests.support.clock import ShiftedClock
from tests.support.stack import a_stack

REFUSED = [
    ("GatewayUpstreamFailing", 500, 500),
    ("GatewayUpstreamFailing", 504, 504),
    ("GatewayUpstreamRateLimited", 429, 429),
    ("GatewayUpstreamOverloaded", 529, 529),
    ("GatewayUpstreamCredentialRefused", 401, 401),
    ("GatewayUpstreamCredentialRefused", 402, 402),
]


@pytest.mark.parametrize(("alert", "status", "seen"), REFUSED)
async def test_upstream_that_refuses_one_call_in_ten_fires(
    tmp_path: Path, alert: str, status: int, seen: int
) -> None:
    async with a_stack(tmp_path) as stack:
        start = await booked(stack)
        assert (await call(stack, ASK)).status == 200
        well = await booked(stack)
        stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=status))
        assert [(await call(stack, ASK)).status for _ in range(10)] == [seen] + 9 * [200]
        wrong = await booked(stack)

    assert_fires(alert, tmp_path, Trial(quiet=(start, well), wrong=(well, wrong)))


async def test_an_upstream_that_cannot_be_reached_fires(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        start = await booked(stack)
        assert (await call(stack, ASK)).status == 200
        well = await booked(stack)
        await stack.simulator.stop()
        assert (await call(stack, ASK)).status == 502
        wrong = await booked(stack)

    assert_fires("GatewayUpstreamFailing", tmp_path, Trial(quiet=(start, well), wrong=(well, wrong)))


async def test_a_credential_whose_file_is_gone_fires(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-test-upstream-canary")
    environ = {"GATEWAY_UPSTREAMS__DEFAULT__CREDENTIAL": f"{{file: {key}}}"}
    clock = ShiftedClock()
    async with a_stack(tmp_path, environ=environ, clock=clock) as stack:
        start = await booked(stack)
        assert (await call(stack, ASK)).status == 200
        well = await booked(stack)
        key.unlink()
        clock.jump(60.0)
        assert (await call(stack, ASK)).status == 502
        wrong = await booked(stack)

    trial = Trial(quiet=(start, well), wrong=(well, wrong))
    assert_fires("GatewayUpstreamCredentialRefused", tmp_path, trial)


async def test_a_token_endpoint_that_fails_fires(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, simulator, clock):
        assert (await call(stack, ASK)).status == 200
        well = page(stack)
        token = Match(path="/v1/oauth/token")
        simulator.faults.add(Fault(kind=FaultKind.STATUS, status=503, match=token, times=None))
        clock.jump(3_500.0)  # it is time to get a new one, and the old one is good for some seconds more
        await eventually(lambda: stack.service._identity.federations()[0].failures)
        wrong = page(stack)
        assert (await call(stack, ASK)).status == 200
        clock.jump(200.0)
        assert (await call(stack, ASK)).status == 502, "the last one has expired"

    assert_fires("GatewayUpstreamTokenFailing", tmp_path, Trial(quiet=(well, well), wrong=(well, wrong)))


async def test_an_issuer_that_is_down_fires(tmp_path: Path) -> None:
    """Every quarter of an hour: its keys are read again a minute after that failed, or sooner."""
    clock = ShiftedClock()
    async with a_world(tmp_path, clock=clock) as (stack, server):
        assert (await ask(stack, pod("worker", now=clock.now())))[0] == 200
        well = page(stack)
        server.answers["/cluster"] = 500
        clock.jump(3_700.0)
        await eventually(lambda: stack.service._identity.issuers()[0].failures)
        wrong = page(stack)
        assert (await ask(stack, pod("worker", now=clock.now())))[0] == 200
        clock.jump(86_400.0)
        assert (await ask(stack, pod("busy", now=clock.now())))[0] == 529, "longer than `keep`"

    assert_fires("GatewayIssuerUnread", tmp_path, Trial(quiet=(well, well), wrong=(well, wrong)))
