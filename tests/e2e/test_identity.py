"""Callers by token and upstreams by federation, through a whole gateway on sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest

from gateway.adapters.clock import SystemClock
from gateway.core.ledger import Dimension
from gateway.settings import packaged_directory
from gateway.sim.federation import FederationRule
from gateway.sim.server import Simulator
from tests.e2e.whole.calls import ASK, call
from tests.support.adjusting import adjusting
from tests.support.clock import ShiftedClock
from tests.support.process import a_gateway_process
from tests.support.stack import WORKSPACES, Stack, a_simulator, a_stack
from tests.support.tokens import KeyServer, TokenIssuer, a_key_server

ADMIN_TOKEN = "an-admin-token-for-tests"
LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}
  - {id: rate, scope: key, unit: requests, amount: 2, per: day, comment: test}
  - {id: users, scope: tag, tag: x-team, unit: requests, amount: 1000, per: day, comment: test}
overrides:
  - {limit: rate, subject: "token:cluster:system:serviceaccount:payments:busy", amount: 100, comment: test}
"""
CLUSTER = TokenIssuer(url="https://kubernetes.default.svc.cluster.local", kind="RS256")
PEOPLE = TokenIssuer(url="https://login.test/", key_id="people-1", number=1)


def with_issuers(server: KeyServer, workspaces: str = WORKSPACES) -> str:
    return f"""{workspaces}
issuers:
  cluster:
    issuer: {CLUSTER.url}
    audience: claude-gateway
    jwks_url: {server.url}/cluster
    rules:
      - {{when: {{sub: "system:serviceaccount:payments:*"}}, workspace: demo,
         name: /kubernetes.io/serviceaccount/name, tags: {{x-team: /kubernetes.io/namespace}}}}
  people:
    issuer: {PEOPLE.url}
    audience: [claude-gateway]
    jwks_url: {server.url}/people
    subject: email
    rules:
      - {{when: {{groups: [haiku-users]}}, workspace: small}}
"""


def this_moment() -> float:
    return SystemClock().now()


def pod(name: str, *, now: float | None = None, issuer: TokenIssuer = CLUSTER, **changed: object) -> str:
    """As the kubelet puts it into a pod (Kubernetes docs, bound service account tokens)."""
    claims: dict[str, Any] = {
        "aud": ["claude-gateway"],
        "sub": f"system:serviceaccount:payments:{name}",
        "nbf": int(now or this_moment()),
        "kubernetes.io": {
            "namespace": "payments",
            "node": {"name": "node-1", "uid": "0a"},
            "pod": {"name": f"{name}-5c9", "uid": "0b"},
            "serviceaccount": {"name": name, "uid": "0c"},
        },
        **changed,
    }
    return issuer.token(now or this_moment(), header={"typ": None}, **claims)


@asynccontextmanager
async def a_world(tmp_path: Path, **given: Any) -> AsyncIterator[tuple[Stack, KeyServer]]:
    async with (
        a_key_server(cluster=CLUSTER.keys(), people=PEOPLE.keys()) as server,
        a_stack(tmp_path, limits=LIMITS, workspaces=with_issuers(server), **given) as stack,
    ):
        yield stack, server


async def ask(stack: Stack, token: str, header: str = "authorization", **more: str) -> tuple[int, Any, Any]:
    value = f"Bearer {token}" if header == "authorization" else token
    headers = {header: value, "anthropic-version": "2023-06-01", **more}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/messages", json=ASK, headers=headers) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


async def test_a_token_is_a_caller_with_limits_a_name_and_tags_of_its_own(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (stack, _):
        worker, busy = pod("worker"), pod("busy")
        for header in ("authorization", "x-api-key"):
            status, _, _ = await ask(stack, worker, header, **{"x-team": "spoofed"})
            assert status == 200
        assert (await ask(stack, pod("worker", jti="another")))[0] == 429  # one subject, whatever its token
        assert [(await ask(stack, busy))[0] for _ in range(3)] == [200] * 3
        sent = [each for each in stack.simulator.requests if each.method == "POST"]
        assert {each.header("authorization") for each in sent} == {"Bearer sk-test-upstream-canary"}
        assert not any(worker in repr(each.headers) for each in sent)

        totals = await stack.books(Dimension.WORKSPACE, Dimension.KEY)
        names = {total.group: total.requests for total in totals}
        assert sum(names.values()) >= 5
        assert any("system:serviceaccount:payments:worker" in repr(group) for group in names)


async def test_a_token_without_a_rule_or_that_is_bad_is_refused_in_the_apis_shape(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (stack, _):
        stranger = pod("x", sub="system:serviceaccount:other:x")
        expired = pod("worker", now=this_moment() - 3_600)
        refused = [await ask(stack, token) for token in (stranger, expired, "a.b.c")]

        assert [status for status, _, _ in refused] == [403, 401, 401]
        kinds = [body["error"]["type"] for _, body, _ in refused]
        assert kinds == ["permission_error", "authentication_error", "authentication_error"]
        assert "has expired" in refused[1][1]["error"]["message"]
        assert {headers["x-should-retry"] for _, _, headers in refused} == {"false"}
        assert stack.simulator.requests == []


async def test_the_official_sdk_calls_with_a_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (stack, _):
        person = PEOPLE.token(this_moment(), email="ada@example.com", groups=["staff", "haiku-users"])
        async with anthropic.AsyncAnthropic(base_url=stack.url, auth_token=person, api_key=None) as client:
            answer = await client.messages.create(
                model="claude-haiku-4-5", max_tokens=20, messages=[{"role": "user", "content": "Hello"}]
            )
            with pytest.raises(anthropic.PermissionDeniedError):
                await client.messages.create(
                    model="claude-opus-5-5", max_tokens=20, messages=[{"role": "user", "content": "Hello"}]
                )

        assert answer.usage.output_tokens > 0


async def test_keys_rotate_while_calls_go_on(tmp_path: Path) -> None:
    """The first call with a new key is told to come again, which SDKs do by themselves."""
    async with a_world(tmp_path) as (stack, server):
        newer = TokenIssuer(url=CLUSTER.url, kind="ES256", key_id="key-2", number=2)
        assert (await ask(stack, pod("busy")))[0] == 200
        server.answers["/cluster"] = newer.keys()
        token = pod("busy", issuer=newer)
        async with anthropic.AsyncAnthropic(base_url=stack.url, auth_token=token, api_key=None) as client:
            await client.messages.create(
                model="claude-haiku-4-5", max_tokens=20, messages=[{"role": "user", "content": "Hello"}]
            )

        assert (await ask(stack, pod("busy")))[0] == 401


async def test_a_subject_asks_about_itself_and_can_be_frozen(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (stack, _), adjusting(stack, token=ADMIN_TOKEN) as running:
        subject = "token:cluster:system:serviceaccount:payments:worker"
        headers = {"authorization": f"Bearer {pod('worker')}"}
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{running.url}/v1/me", headers=headers) as answer:
                me = await answer.json()
            assert (me["workspace"], me["key"]["id"], me["key"]["name"]) == ("demo", subject, "worker")
            assert "rate" in {limit["limit"] for limit in me["limits"]}

            freeze = {"scope": "key", "subject": subject, "reason": "A loop", "by": "lena"}
            await running.send("POST", "/v1/freezes", freeze)
            status, body, _ = await ask(stack, pod("worker"))
            assert (status, body["error"]["type"]) == (403, "permission_error")
            assert (await ask(stack, pod("busy")))[0] == 200
            async with session.get(f"{running.url}/v1/me", headers=headers) as answer:
                assert "A loop" in (await answer.json())["frozen"]


async def test_limits_of_a_subject_can_be_looked_at(tmp_path: Path) -> None:
    subject = "token:cluster:system:serviceaccount:payments:worker"
    async with a_world(tmp_path) as (stack, _), aiohttp.ClientSession() as session:
        assert (await ask(stack, pod("worker")))[0] == 200

        async def budgets(**asked: str) -> list[tuple[str, str, int]]:
            async with session.get(f"{stack.service.admin_url}/v1/budgets", params=asked) as answer:
                assert answer.status == 200, await answer.text()
                found = (await answer.json())["budgets"]
                # Set aside until it is settled, which the answer does not wait for.
                return [
                    (each["limit"], each["subject"], each["spent"]["value"] + each["set_aside"]["value"])
                    for each in found
                ]

        own = await budgets(key=subject)
        assert {limit for limit, _, _ in own} == {"rate"}, "nothing else: its workspace is not known"
        assert ("rate", subject, 1) in own
        of_workspace = await budgets(key=subject, workspace="demo")
        assert ("rate", subject, 1) in of_workspace
        assert "month" in {limit for limit, _, _ in of_workspace}

        page = f"{stack.service.admin_url}/page"
        async with session.get(f"{page}/live", params={"key": subject}) as answer:
            text = await answer.text()
        link = re.findall(r'<a href="(/page/budgets\?[^"]+)">Limits of', text)[0]
        async with session.get(stack.service.admin_url + link.replace("&amp;", "&")) as answer:
            text = await answer.text()
            assert answer.status == 200
        links = re.findall(r'<a href="(/page/budgets/limit\?limit=rate[^"]+)"', text)
        async with session.get(stack.service.admin_url + links[0].replace("&amp;", "&")) as answer:
            assert (answer.status, subject in await answer.text()) == (200, True)


async def test_keys_go_on_while_an_issuer_is_down(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (stack, server):
        server.answers["/cluster"] = 500

        assert (await call(stack, ASK)).status == 200
        assert (await ask(stack, pod("worker")))[0] == 200


# Upstream

RULE = FederationRule(
    id="fdrl_1",
    organisation="00000000-0000-4000-8000-00000000000a",
    issuer="https://cluster.test",
    subject="system:serviceaccount:gateway:gateway",
    workspaces=("wrkspc_1",),
)


def federated(tmp_path: Path, clock: ShiftedClock | None = None) -> dict[str, str]:
    """Variables that make the default upstream one with federation, and its identity."""
    now = clock.now() if clock else this_moment()
    identity = tmp_path / "identity"
    identity.parent.mkdir(exist_ok=True)
    token = TokenIssuer(url=RULE.issuer).token(now, sub=RULE.subject, exp=int(now) + 86_400)
    identity.write_text(token)
    section = "GATEWAY_UPSTREAMS__DEFAULT__FEDERATION__"
    return {
        f"{section}IDENTITY__FILE": str(identity),
        f"{section}RULE": RULE.id,
        f"{section}ORGANISATION": RULE.organisation,
        f"{section}SERVICE_ACCOUNT": "svac_1",
    }


@asynccontextmanager
async def a_federated_world(tmp_path: Path) -> AsyncIterator[tuple[Stack, Simulator, ShiftedClock]]:
    clock = ShiftedClock()
    simulator = a_simulator(clock=clock)
    simulator.federation.add(RULE)
    await simulator.start()
    try:
        async with a_stack(
            tmp_path, environ=federated(tmp_path, clock), clock=clock, simulator=simulator
        ) as stack:
            yield stack, simulator, clock
    finally:
        await simulator.stop()


def exchanges(simulator: Simulator) -> int:
    return sum(each.target == "/v1/oauth/token" for each in simulator.requests)


async def test_metrics_say_how_identities_stand(tmp_path: Path) -> None:
    async with a_federated_world(tmp_path) as (stack, _, clock):
        _, page = stack.service.metrics.render("text/plain")
        text = page.decode()
        (line,) = [
            each
            for each in text.splitlines()
            if each.startswith('gateway_upstream_token_expires_timestamp_seconds{upstream="default"}')
        ]

        assert 3_000 < float(line.split()[1]) - clock.now() <= 3_600
        assert 'gateway_upstream_token_refreshes_total{upstream="default"} 1.0' in text
        assert 'gateway_upstream_token_failures_total{upstream="default"} 0.0' in text


async def test_no_token_is_in_what_a_gateway_process_says_or_keeps(tmp_path: Path) -> None:
    config = tmp_path / "config"
    async with a_key_server(cluster=CLUSTER.keys(), people=PEOPLE.keys()) as server:
        simulator = Simulator(credentials={})
        simulator.federation.add(RULE)
        url = await simulator.start()
        identities = prepare(config, url, server, tmp_path)
        async with a_gateway_process(
            tmp_path / "state", "--config", str(config), environ={**federated(tmp_path), **identities}
        ) as running:
            good, bad = pod("worker"), pod("worker", aud="other")
            async with anthropic.AsyncAnthropic(
                base_url=running.url, auth_token=good, api_key=None
            ) as client:
                await client.messages.create(
                    model="claude-haiku-4-5", max_tokens=20, messages=[{"role": "user", "content": "Hello"}]
                )
            async with anthropic.AsyncAnthropic(base_url=running.url, auth_token=bad, api_key=None) as client:
                with pytest.raises(anthropic.AuthenticationError, match="not meant for this gateway"):
                    await client.models.list()
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{running.admin_url}/metrics") as page,
            ):
                metrics = await page.text()
            running.process.terminate()
            assert running.process.stdout is not None
            said = running.greeting + (await running.process.stdout.read()).decode()
            assert await running.ended() == 0
        upstream = [each for each in simulator.requests if each.target == "/v1/messages"]
        await simulator.stop()
        got = (upstream[0].header("authorization") or "").removeprefix("Bearer ")
        identity = await asyncio.to_thread((tmp_path / "identity").read_text)
        kept = await asyncio.to_thread(everything_in, tmp_path / "state")

        assert got.startswith("sk-test-oat01-")
        assert 'gateway_caller_tokens_total{issuer="cluster",outcome="accepted"} 1.0' in metrics
        for secret in (got, *good.split("."), bad.split(".")[1], *identity.split(".")[1:]):
            assert secret not in said
            assert secret not in metrics
            assert secret.encode() not in kept


def prepare(config: Path, upstream: str, server: KeyServer, tmp_path: Path) -> dict[str, str]:
    """A configuration directory; the variables that go with it."""
    config.mkdir()
    for name in ("gateway.yaml", "prices.yaml"):
        (config / name).write_bytes((packaged_directory() / name).read_bytes())
    (config / "limits.yaml").write_text("defaults: []\n")
    workspaces = with_issuers(server, "workspaces: {demo: {}, small: {}}")
    (config / "workspaces.yaml").write_text(workspaces)
    return {
        "GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": upstream,
        "GATEWAY_TAGS__HEADERS": "[x-team]",
        "GATEWAY_LOGGING__LEVEL": "debug",
        "GATEWAY_DRAIN__ANNOUNCE": "0s",
    }


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
