"""The simulator's usage and cost reports: shapes of both generations, pages, delay, and edits on purpose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import anthropic
import pytest

from gateway.sim import Simulator
from gateway.sim.answers import Scripted
from gateway.sim.wire import JsonObject
from tests.sim.calls import LONG, call, post
from tests.sim.conftest import KEY, MODEL
from tests.support.clock import FakeClock

ADMIN = "sk-test-admin-one"
BETA = {"anthropic-beta": "analytics-usage-cost-2026-08-24"}
START = datetime.fromtimestamp(FakeClock().now(), UTC)  # 2027-01-15
DAY = START.strftime("%Y-%m-%dT00:00:00Z")
NEXT = (START + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
SPAN = [("starting_at", DAY), ("ending_at", NEXT)]
SIX = ("model", "actor", "speed", "product", "agent_id", "api_key_id")
OLDER = "/v1/organizations/usage_report/messages"
NEWER = "/v1/organizations/analytics/usage"


@pytest.fixture
async def admin(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"x-api-key": ADMIN, "anthropic-version": "2023-06-01", **BETA}
    async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
        yield session


@pytest.fixture
async def official(simulator: Simulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=simulator.url, api_key=ADMIN, max_retries=0) as client:
        yield client


async def get(admin: aiohttp.ClientSession, path: str, query: Any) -> tuple[int, JsonObject]:
    async with admin.get(path, params=query) as response:
        return response.status, await response.json()


async def usage_of_two(raw: aiohttp.ClientSession) -> None:
    """A prompt that is written and then read."""
    for _ in range(2):
        status, _ = await post(raw, call(system=LONG))
        assert status == 200


async def edit(simulator: Simulator, **what: Any) -> int:
    url = f"{simulator.url}/_sim/reports"
    async with aiohttp.ClientSession() as session, session.post(url, json=what) as response:
        return response.status


async def test_the_newer_usage_is_what_the_official_client_expects(
    simulator: Simulator, raw: aiohttp.ClientSession, official: anthropic.AsyncAnthropic
) -> None:
    await usage_of_two(raw)
    page = await official.beta.organization.analytics.usage.list(
        starting_at=DAY, ending_at=NEXT, time_bucket_width="1d", group_by=["workspace_id", "model"]
    )
    (row,) = page.data
    lines = simulator.bill.lines

    assert (row.group.model, row.group.workspace_id) == (MODEL, lines[0].workspace)
    assert row.group.service_tier is None
    assert (row.starting_at, row.ending_at) == (
        datetime.fromisoformat(DAY),
        datetime.fromisoformat(NEXT),
    )
    assert row.usage.requests == 2
    assert row.usage.uncached_input_tokens == sum(line.usage["input_tokens"] for line in lines)
    assert row.usage.cache_read_input_tokens == lines[1].usage["cache_read_input_tokens"] > 0
    written = lines[0].usage["cache_creation_input_tokens"]
    assert row.usage.cache_creation.ephemeral_5m_input_tokens == written > 0
    assert page.data_refreshed_at is not None


async def test_the_newer_cost_is_the_bill_in_cents(
    simulator: Simulator, raw: aiohttp.ClientSession, official: anthropic.AsyncAnthropic
) -> None:
    await usage_of_two(raw)
    answer = Scripted(
        content="Found.", usage={"server_tool_use": {"web_search_requests": 2}, "output_tokens": 9}
    )
    simulator.script.add(answer)
    await post(raw, call())
    rows = [
        row
        async for row in official.beta.organization.analytics.cost.list(
            starting_at=DAY, ending_at=NEXT, time_bucket_width="1d", group_by=["cost_type", "token_type"]
        )
    ]
    dollars = sum(Decimal(row.cost.list_amount) for row in rows) / 100

    assert dollars == Decimal(simulator.bill.total_nanousd) / 10**9
    by_kind = {row.group.token_type or row.group.cost_type: row.cost for row in rows}
    assert by_kind["web_search"].list_amount == "2"
    assert by_kind["output_tokens"].requests is None
    assert set(by_kind) == {
        "uncached_input_tokens",
        "cache_read_input_tokens",
        "cache_creation.ephemeral_5m_input_tokens",
        "output_tokens",
        "web_search",
    }


async def test_the_older_reports_have_a_bucket_for_each_day_empty_or_not(
    simulator: Simulator, raw: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    await usage_of_two(raw)
    before = (START - timedelta(days=2)).strftime("%Y-%m-%dT00:00:00Z")
    span = [("starting_at", before), ("ending_at", NEXT)]
    _, usage = await get(admin, OLDER, [*span, ("group_by[]", "model"), ("group_by[]", "workspace_id")])
    _, cost = await get(admin, "/v1/organizations/cost_report", [*span, ("group_by[]", "description")])

    assert [len(bucket["results"]) for bucket in usage["data"]] == [0, 0, 1]
    (result,) = usage["data"][2]["results"]
    assert (result["model"], result["api_key_id"]) == (MODEL, None)
    assert result["cache_creation"]["ephemeral_1h_input_tokens"] == 0
    assert result["server_tool_use"] == {"web_search_requests": 0}
    costs = cost["data"][2]["results"]
    assert sum(Decimal(item["amount"]) for item in costs) / 100 == Decimal(
        simulator.bill.total_nanousd
    ) / Decimal(10**9)
    assert {item["token_type"] for item in costs} >= {"output_tokens", "cache_read_input_tokens"}
    assert {item["currency"] for item in costs} == {"USD"}


async def test_pages_continue_where_the_last_one_ended(
    raw: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    await usage_of_two(raw)
    await post(raw, call(model="claude-haiku-4-5"))
    span = [("starting_at", DAY), ("ending_at", NEXT), ("limit", "1")]
    hourly = [*span, ("bucket_width", "1h")]
    days = [*span, ("time_bucket_width", "1d"), ("group_by[]", "model")]

    for path, query, pages in ((OLDER, hourly, 24), (NEWER, days, 2)):
        seen, token = [], ""
        while True:
            _, page = await get(admin, path, [*query, ("page", token)] if token else query)
            seen += page["data"]
            if not page["has_more"]:
                break
            token = page["next_page"]
        assert len(seen) == pages
        assert len({str(item) for item in seen}) == pages


async def test_what_is_recent_comes_later(
    simulator: Simulator, clock: FakeClock, raw: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    assert await edit(simulator, do="delay", seconds=300) == 200
    await usage_of_two(raw)
    query = [("starting_at", DAY), ("ending_at", NEXT)]
    _, at_once = await get(admin, NEWER, query)
    clock.advance(301)
    _, later = await get(admin, NEWER, query)

    assert at_once["data"] == []
    assert later["data"][0]["usage"]["requests"] == 2


async def test_only_an_admin_key_opens_reports(
    raw: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    for path in (OLDER, "/v1/organizations/cost_report", NEWER, "/v1/organizations/analytics/cost"):
        assert (await get(raw, path, [("starting_at", DAY)]))[0] == 401
        assert (await get(admin, path, [("starting_at", DAY)]))[0] == 200


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (OLDER, []),
        (OLDER, [("starting_at", "yesterday")]),
        (OLDER, [("starting_at", DAY), ("bucket_width", "1w")]),
        (OLDER, [("starting_at", DAY), ("limit", "32")]),
        (OLDER, [("starting_at", DAY), ("group_by[]", "speed")]),
        (OLDER, [("starting_at", DAY), ("page", "???")]),
        ("/v1/organizations/cost_report", [("starting_at", DAY), ("bucket_width", "1h")]),
        (NEWER, [("starting_at", "2025-12-31T00:00:00Z")]),
        (NEWER, [("starting_at", DAY), ("time_bucket_width", "1d")]),
        (NEWER, [("starting_at", "2026-12-01T00:00:00Z"), ("ending_at", NEXT)]),
        (NEWER, [("starting_at", DAY), ("group_by[]", "token_type")]),
        (NEWER, [("starting_at", DAY), *(("group_by[]", name) for name in SIX)]),
    ],
)
async def test_what_the_reference_forbids_is_refused(
    admin: aiohttp.ClientSession, path: str, query: list[tuple[str, str]]
) -> None:
    status, answer = await get(admin, path, query)

    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_without_its_beta_the_newer_report_is_refused(simulator: Simulator) -> None:
    headers = {"x-api-key": ADMIN, "anthropic-version": "2026-10-21"}
    async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
        assert (await get(session, NEWER, [("starting_at", DAY)]))[0] == 400


async def test_edits_change_the_reports_and_never_the_bill(
    simulator: Simulator, raw: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    await usage_of_two(raw)
    billed = simulator.bill.total_nanousd
    query = [("starting_at", DAY), ("ending_at", NEXT)]
    first, second = (line.message_id for line in simulator.bill.lines)

    async def requests() -> int:
        rows = (await get(admin, NEWER, query))[1]["data"]
        return sum(row["usage"]["requests"] for row in rows)

    await edit(simulator, do="double", message_id=first)
    assert await requests() == 3
    await edit(simulator, do="drop", message_id=second)
    assert await requests() == 2
    await edit(simulator, do="move", message_id=first, at=START.timestamp() - 86_400)
    assert await requests() == 0
    await edit(simulator, do="foreign", workspace="w", model=MODEL, usage={"input_tokens": 4})
    assert await requests() == 1
    async with aiohttp.ClientSession() as session, session.delete(f"{simulator.url}/_sim/reports") as done:
        assert done.status == 200
    assert await requests() == 2
    assert simulator.bill.total_nanousd == billed
    assert await edit(simulator, do="nonsense") == 400
    assert await edit(simulator, do="move") == 400


async def test_keys_are_named_without_being_shown(
    raw: aiohttp.ClientSession, admin: aiohttp.ClientSession
) -> None:
    await usage_of_two(raw)
    _, page = await get(admin, NEWER, [*SPAN, ("group_by[]", "api_key_id")])

    (row,) = page["data"]
    assert row["group"]["api_key_id"].startswith("apikey_")
    assert KEY not in str(page)
