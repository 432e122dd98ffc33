"""The list of prefixes: by what is asked for, warm or cold, and as CSV; no text of a prompt in it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from gateway.web.page.prefixes import prefixes_screens
from tests.e2e.page.conftest import CANARY, ask
from tests.support.browser import a_tab
from tests.support.page_of_books import serving, some_prefixes
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(loop_scope="package")
async def url() -> AsyncIterator[str]:
    async with serving(prefixes_screens(some_prefixes)) as url:
        yield url


async def test_prefixes_come_in_the_order_that_is_asked_for(browser: Browser, url: str) -> None:
    async with a_tab(browser, url, javascript=False) as tab:
        page = tab.page
        await page.goto(f"{url}/prefixes")
        await page.get_by_label("Show first").select_option("tokens")
        await page.get_by_role("button", name="Show").click()
        assert "first=tokens" in page.url
        table = page.get_by_role("region", name="Prefixes", exact=True)
        tokens = await table.locator("tbody tr td:nth-child(4)").all_inner_texts()

        assert tokens == sorted(tokens, key=lambda text: -int(text.replace(",", "")))
        await expect(table.get_by_text("cold for").first).to_be_visible()
        assert len(await table.locator("tbody th code").first.inner_text()) == 12


async def test_the_list_as_csv_has_whole_digests_and_instants(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/prefixes?format=csv") as answer:
            rows = list(csv.DictReader(io.StringIO(await answer.text())))
        async with session.get(f"{url}/prefixes?first=size") as answer:
            assert answer.status == 400

    assert len(rows) == 36
    assert all(len(row["digest"]) == 16 for row in rows)
    assert all(row["warm_until"].startswith("2026-11-22T1") for row in rows)
    chances = [float(row["chance"]) for row in rows if row["chance"]]
    assert chances
    assert all(0.0 <= chance <= 1.0 for chance in chances)


async def test_a_policy_by_rule_has_no_list_and_says_so(browser: Browser) -> None:
    async with serving(prefixes_screens(lambda count, order: None)) as url, a_tab(browser, url) as tab:
        await tab.page.goto(f"{url}/prefixes")
        await expect(tab.page.get_by_role("status")).to_contain_text("placed by rule")


async def test_a_gateway_lists_what_its_calls_wrote_and_no_text_of_them(
    browser: Browser, stack: Stack
) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        row = tab.page.get_by_role("region", name="Prefixes", exact=True).locator("tbody tr").first
        for _ in range(50):  # as soon as one of its calls is billed, and known to write what others read
            assert await ask(stack, stack.keys["demo"]) == 200
            await tab.page.goto("/page/prefixes")
            if "demo" in await row.inner_text():
                break
        await expect(row).to_contain_text("demo")
        assert CANARY not in await tab.page.content()
