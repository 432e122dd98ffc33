"""The client of the provider's reports: pages, second attempts, and what it refuses to take for a report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.adapters.claude_report_shapes import Generation, ReportsUnavailable
from gateway.adapters.claude_reports import ATTEMPTS, ClaudeReports
from gateway.adapters.clock import SystemClock
from gateway.core.reconcile_cells import Kind
from gateway.sim import Fault, FaultKind, Match, Simulator

KEY = "sk-test-admin-canary"
DAY = date(2026, 11, 18)
ORGANISATION = Match(path="/v1/organizations")


class HastyClock(SystemClock):
    """Remembers how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return datetime(2026, 11, 20, tzinfo=UTC).timestamp()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def credential() -> Sequence[tuple[bytes, bytes]]:
    return ((b"x-api-key", KEY.encode()),)


@pytest.fixture
def clock() -> HastyClock:
    return HastyClock()


@pytest.fixture
async def simulator(clock: HastyClock) -> AsyncIterator[Simulator]:
    simulator = Simulator(clock=clock)
    await simulator.start()
    at = datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp()
    for number in range(45):
        simulator.bill.charge(
            at=at - number * 86_400,
            workspace="wrkspc_1",
            model="claude-opus-5-5",
            request_id=f"req_{number}",
            message_id=f"msg_{number}",
            usage={"input_tokens": 10, "output_tokens": 1, "service_tier": "standard"},
        )
    yield simulator
    await simulator.stop()


@pytest.fixture
async def reports(simulator: Simulator, clock: HastyClock) -> AsyncIterator[ClaudeReports]:
    async with ClaudeReports(simulator.url, credential=credential, clock=clock) as client:
        yield client


@asynccontextmanager
async def answering(body: str, status: int = 200, **headers: str) -> AsyncIterator[ClaudeReports]:
    """A client of something that always says the same."""

    async def say(_request: web.Request) -> web.Response:
        return web.Response(text=body, status=status, headers=headers)

    app = web.Application()
    app.router.add_get("/{any:.*}", say)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        async with ClaudeReports(url, credential=credential, clock=HastyClock()) as client:
            yield client


@pytest.mark.parametrize("generation", list(Generation))
async def test_spans_longer_than_a_query_or_a_page_are_read_whole(
    reports: ClaudeReports, generation: Generation
) -> None:
    found = await reports.fetch(DAY - timedelta(days=44), DAY, generation=generation)
    uncached = [figure for figure in found.billed if figure.kind is Kind.UNCACHED_INPUT]

    assert len({figure.day for figure in uncached}) == 45
    assert sum(figure.amount.tokens for figure in uncached) == 450
    assert sum(figure.amount.nanousd for figure in uncached) == sum(
        figure.charged_nanousd for figure in uncached
    )
    assert {(figure.workspace_id, figure.model, figure.tier) for figure in found.billed} == {
        ("wrkspc_1", "claude-opus-5-5", "standard")
    }


async def test_both_generations_say_the_same(reports: ClaudeReports, simulator: Simulator) -> None:
    newer, older = [
        await reports.fetch(DAY - timedelta(days=44), DAY, generation=generation)
        for generation in (Generation.ANALYTICS, Generation.OLDER)
    ]

    assert set(map(repr, newer.billed)) == set(map(repr, older.billed))
    assert sum(figure.amount.nanousd for figure in newer.billed) == simulator.bill.total_nanousd


async def test_amounts_are_kept_to_the_last_decimal(simulator: Simulator, reports: ClaudeReports) -> None:
    simulator.reports.factors["claude-opus-5-5", "output_tokens"] = Fraction("1.000000001")
    found = await reports.fetch(DAY, DAY)
    (cost,) = (f.amount.nanousd for f in found.billed if f.kind is Kind.OUTPUT and f.amount.nanousd)

    assert cost == 20_000 * Fraction("1.000000001")
    assert found.smallest_nanousd == Fraction(1, 10**5)


async def test_it_waits_as_long_as_it_is_asked_to(
    simulator: Simulator, reports: ClaudeReports, clock: HastyClock
) -> None:
    for status, retry_after in ((429, 7.0), (529, None), (500, 3600.0)):
        fault = Fault(kind=FaultKind.STATUS, status=status, retry_after=retry_after, match=ORGANISATION)
        simulator.faults.add(fault)
    found = await reports.fetch(DAY, DAY)

    assert found.billed
    assert clock.slept == [7.0, 1.0, 60.0]


async def test_a_connection_that_breaks_is_tried_again(
    simulator: Simulator, reports: ClaudeReports, clock: HastyClock
) -> None:
    simulator.faults.add(Fault(kind=FaultKind.CUT, times=3, match=ORGANISATION))

    assert (await reports.fetch(DAY, DAY)).billed
    assert clock.slept[0] == 0.5


async def test_it_gives_up_in_the_end_and_says_why_without_the_key(
    simulator: Simulator, reports: ClaudeReports, clock: HastyClock
) -> None:
    simulator.faults.add(
        Fault(kind=FaultKind.STATUS, status=503, message="Not today", times=None, match=ORGANISATION)
    )
    with pytest.raises(ReportsUnavailable, match="answered with 503: Not today") as raised:
        await reports.fetch(DAY, DAY)

    assert len(clock.slept) == ATTEMPTS - 1
    assert KEY not in str(raised.value) + repr(raised.value.__cause__)


@pytest.mark.parametrize("status", [401, 422])
async def test_what_will_not_change_is_not_tried_again(
    simulator: Simulator, reports: ClaudeReports, clock: HastyClock, status: int
) -> None:
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=status, match=ORGANISATION))
    with pytest.raises(ReportsUnavailable) as raised:
        await reports.fetch(DAY, DAY)

    assert raised.value.status == status
    assert clock.slept == []


async def test_without_the_newer_reports_the_older_are_read(
    simulator: Simulator, reports: ClaudeReports
) -> None:
    path = Match(path="/v1/organizations/analytics")
    simulator.faults.add(Fault(kind=FaultKind.STATUS, status=404, times=None, match=path))

    assert (await reports.fetch(DAY, DAY)).generation is Generation.OLDER
    with pytest.raises(ReportsUnavailable):
        await reports.fetch(DAY, DAY, generation=Generation.ANALYTICS)
    with pytest.raises(ReportsUnavailable, match="API keys"):
        await reports.fetch(DAY, DAY, by_key=True)


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with answering("", 302, location="http://127.0.0.1:9/") as client:
        with pytest.raises(ReportsUnavailable, match="302"):
            await client.fetch(DAY, DAY)


_COST = '{"starting_at":"2026-11-18T00:00:00Z","group":{"cost_type":"tokens"},"cost":%s}'
_USAGE = (
    '{"starting_at":"2026-11-18T00:00:00Z","group":{},"usage":{"uncached_input_tokens":1,'
    '"cache_read_input_tokens":0,"output_tokens":0,"cache_creation":{}}}'
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>", "cannot be read"),
        ('{"data":[{"starting_at":"now"}]}', "cannot be read"),
        ('{"data":[],"has_more":true,"next_page":"again"}', "come to an end"),
    ],
)
async def test_what_is_no_report_is_refused(body: str, words: str) -> None:
    async with answering(body) as client:
        with pytest.raises(ReportsUnavailable, match=words):
            await client.fetch(DAY, DAY, generation=Generation.ANALYTICS)


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ('{"amount":"1","list_amount":"1","currency":"EUR"}', "EUR"),
        ('{"amount":"1","list_amount":"1e3","currency":"USD"}', "not a number"),
    ],
)
async def test_an_amount_that_is_not_in_cents_is_refused(cost: str, words: str) -> None:
    async def usage(_request: web.Request) -> web.Response:
        return web.Response(text=f'{{"data":[{_USAGE}]}}')

    async def costs(_request: web.Request) -> web.Response:
        return web.Response(text=f'{{"data":[{_COST % cost}]}}')

    app = web.Application()
    app.router.add_get("/v1/organizations/analytics/usage", usage)
    app.router.add_get("/v1/organizations/analytics/cost", costs)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        async with ClaudeReports(url, credential=credential, clock=HastyClock()) as client:
            with pytest.raises(ReportsUnavailable, match=words):
                await client.fetch(DAY, DAY)
