"""Tokens of an upstream's, got for an identity: by real exchanges with the simulated API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anthropic
import pytest
from anthropic.lib.credentials import WorkloadIdentityCredentials

from gateway.adapters.federation import Federated, Federation
from gateway.adapters.outbound import Outbound
from gateway.core.errors import CredentialUnavailable
from gateway.core.federation import CALL_BETAS, EXCHANGE_BETAS, TOKEN_PATH, TokenRequest
from gateway.settings.secrets import secret_reader
from gateway.settings.shared import SecretRef
from gateway.sim.faults import Fault, FaultKind, Match
from gateway.sim.federation import FederationRule
from gateway.sim.server import Simulator
from gateway.tasks import TaskSet
from tests.support.clock import ShiftedClock
from tests.support.tokens import TokenIssuer

ORGANISATION = "00000000-0000-4000-8000-00000000000a"
RULE = FederationRule(
    id="fdrl_1",
    organisation=ORGANISATION,
    issuer="https://cluster.test",
    subject="system:serviceaccount:gateway:gateway",
    workspaces=("wrkspc_1", "wrkspc_2"),
)
POD = TokenIssuer(url=RULE.issuer)


@dataclass
class World:
    simulator: Simulator
    clock: ShiftedClock
    federation: Federation
    identity: Path

    def exchanges(self) -> int:
        return sum(each.target == TOKEN_PATH for each in self.simulator.requests)

    async def refresh(self) -> None:
        self.federation.refresh()
        await self.federation._tasks.settled(20.0)

    def token(self) -> bytes:
        return dict(self.federation.credential())[b"authorization"]


@asynccontextmanager
async def a_world(
    tmp_path: Path, change: Callable[[Federated], Federated] = lambda f: f
) -> AsyncIterator[World]:
    clock, outbound, tasks = ShiftedClock(), Outbound(timeout_seconds=20.0), TaskSet()
    simulator = Simulator(credentials={}, clock=clock)
    simulator.federation.add(RULE)
    url = await simulator.start()
    identity = write_identity(tmp_path, clock)
    federated = Federated(
        name="default",
        url=url + TOKEN_PATH,
        request=TokenRequest(
            rule=RULE.id, organisation=ORGANISATION, service_account="svac_1", workspace="wrkspc_2"
        ),
        identity=secret_reader(SecretRef(file=str(identity)), {}),
        identity_from=f"file {identity}",
        exchange_betas=EXCHANGE_BETAS,
        lines=((b"anthropic-beta", ",".join(CALL_BETAS).encode()),),
        early_seconds=120.0,
    )
    federation = Federation(
        change(federated), clock=clock, outbound=outbound, tasks=tasks, random=lambda: 0.0
    )
    try:
        yield World(simulator, clock, federation, identity)
    finally:
        await tasks.drain(0.0)
        await simulator.stop()


def write_identity(tmp_path: Path, clock: ShiftedClock, number: int = 1) -> Path:
    path = tmp_path / "identity"
    token = POD.token(clock.now(), sub=RULE.subject, exp=int(clock.now()) + 7_200, jti=f"jti-{number}")
    path.write_text(token + "\n")
    return path


async def test_asks_as_the_official_sdk_does(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.refresh()
        token = (await asyncio.to_thread(world.identity.read_text)).strip()
        credentials = WorkloadIdentityCredentials(
            identity_token_provider=lambda: token,
            federation_rule_id=RULE.id,
            organization_id=ORGANISATION,
            service_account_id="svac_1",
            workspace_id="wrkspc_2",
        )
        with anthropic.Anthropic(base_url=world.simulator.url, credentials=credentials) as client:
            await asyncio.to_thread(client.models.list)
        credentials.close()
        ours, theirs = [each for each in world.simulator.requests if each.target == TOKEN_PATH]

        assert json.loads(theirs.body) == json.loads(ours.body)
        assert (theirs.method, theirs.header("content-type")) == (ours.method, ours.header("content-type"))
        assert theirs.header("anthropic-beta") == ours.header("anthropic-beta")
        used = next(each for each in world.simulator.requests if each.target.startswith("/v1/models"))
        sdk_betas = {name.strip() for name in (used.header("anthropic-beta") or "").split(",")}
        assert set(CALL_BETAS) <= sdk_betas


async def test_before_the_first_token_calls_fail_with_what_is_wrong(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        with pytest.raises(CredentialUnavailable, match="none was got yet"):
            world.token()
        world.identity.unlink()
        await world.refresh()
        with pytest.raises(CredentialUnavailable, match=r"its identity .* cannot be used: No such file"):
            world.token()


async def test_a_token_is_replaced_before_its_end(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.refresh()
        first = world.token()
        world.clock.jump(3_470)
        await world.refresh()
        assert (world.token(), world.exchanges()) == (first, 1)

        world.clock.jump(15)
        write_identity(tmp_path, world.clock, 2)
        await world.refresh()

        assert world.token() != first
        sent = [json.loads(each.body)["assertion"] for each in world.simulator.requests]
        assert len(set(sent)) == 2  # the file was read again


async def test_the_old_token_goes_on_until_it_expires_and_no_longer(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.refresh()
        first = world.token()
        world.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=503, match=Match(path=TOKEN_PATH), times=100)
        )
        world.clock.jump(3_500)
        await world.refresh()
        assert world.token() == first

        world.clock.jump(101)
        with pytest.raises(CredentialUnavailable, match="503"):
            world.token()
        world.simulator.faults.clear()
        await world.refresh()
        assert world.token() != first
        status = world.federation.status()
        assert (status.refreshes, status.failures) == (2, 1)


async def test_failures_are_not_repeated_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path, lambda f: replace(f, request=replace(f.request, rule="fdrl_2"))) as world:
        for _ in range(5):
            await world.refresh()
            assert not await world.federation.renew(())

        assert world.exchanges() == 1
        world.clock.jump(1.0)
        await world.refresh()
        assert world.exchanges() == 2
        with pytest.raises(CredentialUnavailable, match=r"refused its identity \(401\)"):
            world.token()


async def test_calls_that_find_no_token_share_one_exchange(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        found = await asyncio.gather(*(world.federation.renew(()) for _ in range(20)))

        assert found == [True] * 20
        assert world.exchanges() == 1


async def test_a_refused_token_is_replaced_once_for_all_who_used_it(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.refresh()
        refused = world.federation.credential()
        world.simulator.federation.revoke()
        found = await asyncio.gather(*(world.federation.renew(tuple(refused)) for _ in range(20)))

        assert found == [True] * 20
        assert await world.federation.renew(tuple(refused))  # others had it replaced already
        assert world.exchanges() == 2
        again = tuple(world.federation.credential())
        assert not await world.federation.renew(again)  # whoever refuses this too refuses all of them
        assert world.exchanges() == 2


async def test_who_leaves_does_not_end_the_exchange_for_others(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        leaving = asyncio.get_running_loop().create_task(world.federation.renew(()))
        staying = asyncio.get_running_loop().create_task(world.federation.renew(()))
        await asyncio.sleep(0)
        leaving.cancel()

        assert await staying
        assert world.exchanges() == 1


async def test_what_is_too_long_to_be_a_token_is_not_sent(tmp_path: Path) -> None:
    async with a_world(tmp_path, lambda f: replace(f, identity=lambda: "x" * 20_000)) as world:
        await world.refresh()

        assert world.exchanges() == 0
        with pytest.raises(CredentialUnavailable, match="longer than 16384"):
            world.token()


async def test_neither_token_is_in_any_log_error_or_repr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with a_world(tmp_path) as world:
        await world.refresh()
        got = world.token().decode().removeprefix("Bearer ")
        identity = (await asyncio.to_thread(world.identity.read_text)).strip()
        world.simulator.federation.rules.clear()
        world.clock.jump(7_300)
        await world.refresh()
        with pytest.raises(CredentialUnavailable) as caught:
            world.token()
        shown = [
            caplog.text,
            str(caught.value),
            repr(world.federation.settings),
            repr(world.federation._token),
        ]

        assert "no token for upstream default" in caplog.text
        for secret in (got, identity, *identity.split(".")):
            assert not any(secret in text for text in shown)
