"""The admin plane over sockets: probes tell the truth, metrics are served without stalling anybody."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient

from gateway.adapters.prometheus import Metrics
from gateway.core.errors import StoreUnavailable
from gateway.web.admin import admin_app
from gateway.web.admission import Admission
from gateway.web.health import Conditions
from tests.support.records import a_record

AdminClient = Callable[..., Awaitable[TestClient[Any, Any]]]
TOKEN = "an-admin-token-for-tests"


async def _serves() -> None:
    return None


async def _is_away() -> None:
    raise StoreUnavailable("the store is away")


async def _hangs() -> None:
    await asyncio.Event().wait()


def _conditions(**changes: Any) -> Conditions:
    values: dict[str, Any] = {
        "started": lambda: True,
        "draining": lambda: False,
        "store_needed": lambda: True,
        "ping_store": _serves,
        "store_timeout_seconds": 0.05,
    }
    return Conditions(**(values | changes))


@pytest.fixture
def serve(aiohttp_client: Any) -> AdminClient:
    async def start(
        render: Callable[[str], tuple[str, bytes]] | None = None,
        token: str | None = None,
        metrics_token: str | None = None,
        now: Sequence[float] = (0.0,),
        **changes: Any,
    ) -> TestClient[Any, Any]:
        def page(accept: str) -> tuple[str, bytes]:
            return "text/plain", b"page"

        app = admin_app(
            conditions=_conditions(**changes),
            render=render or page,
            admission=Admission(token, lambda: now[0], metrics_token=metrics_token),
        )
        client: TestClient[Any, Any] = await aiohttp_client(app)
        return client

    return start


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, []),
        ({"started": lambda: False}, ["starting"]),
        ({"draining": lambda: True}, ["draining"]),
        ({"ping_store": _is_away}, ["store"]),
        ({"ping_store": _hangs}, ["store"]),
        ({"ping_store": _is_away, "store_needed": lambda: False}, []),
        ({"started": lambda: False, "draining": lambda: True}, ["starting", "draining"]),
        ({"unread": lambda: ["keys", "adjustments"]}, ["keys", "adjustments"]),
        ({"unread": lambda: ["adjustments"], "ping_store": _is_away}, ["adjustments", "store"]),
    ],
)
async def test_readiness_names_what_is_missing(
    serve: AdminClient, changes: dict[str, Any], failing: list[str]
) -> None:
    client = await serve(**changes)
    answer = await client.get("/readyz")

    assert answer.status == (503 if failing else 200)
    assert (await answer.json()).get("failing", []) == failing
    assert answer.headers["cache-control"] == "no-store"


async def test_a_replica_that_drains_or_waits_for_its_store_is_alive(serve: AdminClient) -> None:
    client = await serve(draining=lambda: True, ping_store=_is_away, unread=lambda: ["keys"])

    assert (await client.get("/livez")).status == 200
    assert (await client.get("/startupz")).status == 200


async def test_start_up_is_told_from_life(serve: AdminClient) -> None:
    client = await serve(started=lambda: False)

    assert (await client.get("/livez")).status == 200
    assert (await client.get("/startupz")).status == 503


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics"])
async def test_head_works_as_get_without_a_body(serve: AdminClient, path: str) -> None:
    client = await serve()
    answer = await client.head(path)

    assert answer.status == 200
    assert await answer.read() == b""


async def test_prometheus_gets_its_format_compressed(serve: AdminClient) -> None:
    metrics = Metrics(canonical=lambda model: model, version="1")
    metrics.observe(a_record())
    client = await serve(render=metrics.render)
    url = client.make_url("/metrics")
    accept = {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "gzip"}

    async with ClientSession(auto_decompress=False) as session:
        async with session.get(url, headers=accept) as answer:
            page = gzip.decompress(await answer.read())
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.content_type == "application/openmetrics-text"
        async with session.get(url, headers={"accept-encoding": "gzip;q=0, br"}) as answer:
            assert "content-encoding" not in answer.headers
            assert b"gateway_requests_total{" in await answer.read()
    assert page.endswith(b"# EOF\n")


async def test_a_slow_page_stalls_no_probe(serve: AdminClient) -> None:
    rendering, go_on = threading.Event(), threading.Event()

    def render(accept: str) -> tuple[str, bytes]:
        rendering.set()
        go_on.wait(10)
        return "text/plain", b"late"

    client = await serve(render=render)
    scrape = asyncio.get_running_loop().create_task(_body(client, "/metrics"))
    await asyncio.to_thread(rendering.wait, 5)

    assert (await client.get("/livez")).status == 200
    assert not scrape.done()
    go_on.set()
    assert await scrape == b"late"


async def _body(client: TestClient[Any, Any], path: str) -> bytes:
    answer = await client.get(path)
    return bytes(await answer.read())


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", TOKEN]
)
async def test_metrics_need_the_token(serve: AdminClient, given: str | None) -> None:
    client = await serve(token=TOKEN)
    headers = {"authorization": given} if given else {}

    for path in ("/metrics", "/anything"):
        answer = await client.get(path, headers=headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "token" in (await answer.json())["error"]["message"]


async def test_the_token_opens_metrics_and_probes_need_none(serve: AdminClient) -> None:
    client = await serve(token=TOKEN)

    assert (await client.get("/metrics", headers={"authorization": f"bearer {TOKEN}"})).status == 200
    for path in ("/livez", "/readyz", "/startupz"):
        assert (await client.get(path)).status == 200


async def test_a_token_of_their_own_opens_the_metrics_and_nothing_else(serve: AdminClient) -> None:
    client = await serve(token=TOKEN, metrics_token="sk-test-for-metrics")
    scraper, admin = ({"authorization": f"Bearer {token}"} for token in ("sk-test-for-metrics", TOKEN))

    assert (await client.get("/metrics", headers=scraper)).status == 200
    assert (await client.get("/metrics", headers=admin)).status == 200
    assert (await client.get("/v1/budgets", headers=scraper)).status == 401
    assert (await client.get("/metrics")).status == 401


async def test_metrics_alone_can_have_a_token(serve: AdminClient) -> None:
    client = await serve(metrics_token="sk-test-for-metrics")

    assert (await client.get("/metrics")).status == 401
    headers = {"authorization": "Bearer sk-test-for-metrics"}
    assert (await client.get("/metrics", headers=headers)).status == 200
    assert (await client.get("/v1/budgets", headers=headers)).status == 403


async def test_wrong_tokens_are_told_to_wait_and_the_right_one_never_is(serve: AdminClient) -> None:
    now = [0.0]
    client = await serve(token=TOKEN, now=now)

    async def status(token: str) -> int:
        return (await client.get("/metrics", headers={"authorization": f"Bearer {token}"})).status

    assert [await status("wrong") for _ in range(7)] == [401] * 5 + [429] * 2
    assert await status(TOKEN) == 200, "nobody is locked out by what another shows"
    assert (await client.get("/metrics")).status == 401, "nothing is no guess"
    now[0] = 10.0
    assert await status("wrong") == 401, "refusals took nothing"


async def test_errors_are_json(serve: AdminClient) -> None:
    def broken(accept: str) -> tuple[str, bytes]:
        raise RuntimeError("secret detail")

    client = await serve(render=broken, token=TOKEN)
    headers = {"authorization": f"Bearer {TOKEN}"}
    missing, wrong, failed = (
        await client.get("/v1/messages", headers=headers),
        await client.post("/metrics", headers=headers),
        await client.get("/metrics", headers=headers),
    )

    assert (missing.status, wrong.status, failed.status) == (404, 405, 500)
    assert set(wrong.headers["allow"].split(",")) == {"GET", "HEAD"}
    for answer in (missing, wrong, failed):
        assert (await answer.json())["error"]["status"] == answer.status
    assert "secret" not in await failed.text()
