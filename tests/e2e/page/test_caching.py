"""What misses cost is said with its time and its dollars, and leads to where."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from gateway.adapters.ledger_queries import read_losses, read_totals
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import WorkspaceId
from gateway.core.ledger import Dimension, dollars, month_bounds
from gateway.core.principal import warming_principal
from gateway.core.savings import Cohort, Savings
from gateway.web.admin_warming import WarmingStatus
from gateway.web.page.caching import caching_screens
from gateway.web.page.showing import usd
from tests.support.browser import a_tab
from tests.support.ledgers import write as write_ledger
from tests.support.page_of_books import NOW, books_of, serving, some_warming
from tests.support.records import a_record
from tests.support.year_of_ledger import write_year

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "ledger.sqlite3"
    write_year(path, entries=12_000)
    return path


@pytest_asyncio.fixture(loop_scope="package")
async def url(ledger: Path) -> AsyncIterator[str]:
    async with serving(caching_screens(books_of(ledger), some_warming)) as url:
        yield url


async def _get(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()


async def test_an_incident_is_a_sentence_with_its_time_and_dollars_and_leads_to_where(
    browser: Browser, url: str, ledger: Path
) -> None:
    start_ms, end_ms = month_bounds("2026-11")
    losses = read_losses(ledger, [Dimension.WORKSPACE], start_ms=start_ms, end_ms=end_ms)
    (changed,) = (loss for loss in losses if loss.cause == "changed")
    async with a_tab(browser, url, javascript=False) as tab:
        page = tab.page
        await page.goto(f"{url}/caching")
        told = page.get_by_role("listitem").filter(has_text="support: prompts changed")
        await expect(told).to_contain_text(f"${dollars(changed.nanousd, 2)} since 2026-11-19 14:")
        await expect(told).to_contain_text("tools[3] changed at byte 118, where a timestamp stands")
        await told.get_by_role("link").click()

        await expect(page.get_by_text("cause: changed")).to_be_visible()
        table = page.get_by_role("region", name="Misses by workspace, key, model and cause")
        rows = table.locator("tbody tr")
        assert {await row.locator("td").first.inner_text() for row in await rows.all()} == {
            "Support bot",
            "Help desk",
        }
        assert "workspace=support" in page.url
        assert "cause=changed" in page.url


async def test_what_was_saved_and_lost_is_what_the_ledger_says(url: str, ledger: Path) -> None:
    start_ms, end_ms = month_bounds("2026-11")
    (whole,) = read_totals(ledger, [], start_ms=start_ms, end_ms=end_ms)
    for name, column, expected in (
        ("table", "saved_usd", whole.saved_nanousd),
        ("misses", "lost_usd", whole.miss_nanousd),
        ("days", "lost_by_misses_usd", whole.miss_nanousd),
    ):
        text = await _get(f"{url}/caching?format=csv&table={name}")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert expected == sum(round(float(row[column]) * 10**9) for row in rows)


async def test_saving_is_defined_and_holdouts_shadow_mode_and_warming_are_told(url: str) -> None:
    page = await _get(f"{url}/caching?period=365d")

    assert "Saved: what the same prompts would have cost with each of their tokens" in page
    assert "held out" in page
    assert "marketing: in shadow mode, prompts that cost $" in page
    assert "$19.54" in page
    assert "−$0.37" in page
    assert "By the books " in page
    assert "Profit and loss of warming on this replica, since its start" in page


async def test_what_warming_cost_is_of_the_books_and_books_of_one_replica_say_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    records = [
        a_record(
            id=f"w{number}",
            received_at=NOW - 60,
            principal=warming_principal(WorkspaceId("demo"), "us"),
            savings=Savings(cohort=Cohort.WARMING, plain_nanousd=0, paid_nanousd=0),
        )
        for number in range(3)
    ]
    cost = sum(record.cost.total_nanousd for record in records if record.cost)
    write_ledger(path, records)
    books = books_of(path)
    for alone in (True, False):
        async with serving(caching_screens(replace(books, alone=alone), some_warming)) as url:
            page = await _get(f"{url}/caching?period=24h")
        assert f"By the books 3 warm-ups cost {usd(cost)} in this period: demo {usd(cost)}." in page
        assert ("These are the books of this replica alone" in page) is alone


async def test_the_last_hours_are_told_by_the_hour(url: str) -> None:
    text = await _get(f"{url}/caching?period=24h&format=csv&table=days")
    hours = [row["hour"] for row in csv.DictReader(io.StringIO(text))]

    assert (len(hours), hours[0], hours[-1]) == (24, "2026-11-21 16:00", "2026-11-22 15:00")


async def test_budgets_that_cannot_be_read_leave_the_rest_of_the_page(ledger: Path) -> None:
    async def away() -> WarmingStatus:
        raise StoreUnavailable("it is away")

    async with serving(caching_screens(books_of(ledger), away)) as url:
        page = await _get(f"{url}/caching")
    assert "The budgets of warming cannot be read: it is away" in page
    assert "Prompts by workspace" in page
