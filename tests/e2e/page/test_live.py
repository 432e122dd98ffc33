"""Live requests: what is open shows while it is open, refreshes by itself, and never shows a prompt."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from gateway.sim.pacing import Pacing
from tests.e2e.page.conftest import CANARY, IN_MEMORY, MODEL, ask
from tests.support.browser import a_tab
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.asyncio(loop_scope="package")

SLOW = Pacing(first_byte_seconds=60.0)
REFRESH_MS = 2_000


async def test_a_call_is_seen_while_it_is_open_and_once_it_has_ended(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        a_stack(tmp_path, pacing=SLOW, settings=IN_MEMORY) as stack,
        a_tab(browser, stack.service.admin_url) as tab,
    ):
        await tab.page.clock.install()
        await tab.page.goto("/page/live")
        opened = tab.page.get_by_role("region", name="Open now", exact=True)
        await expect(opened).to_contain_text("No request is open")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(stack, stack.keys["demo"]))
            row = opened.get_by_role("row").filter(has_text=MODEL).filter(has_text="admitted")
            await _let_time_pass_until(tab.page, row)
            await expect(row).to_contain_text("≤ $")
            asking.cancel()
        ended = tab.page.get_by_role("region", name="Ended in the last ten minutes", exact=True)
        row = ended.get_by_role("row").filter(has_text=MODEL)
        await _let_time_pass_until(tab.page, row)
        await expect(row).to_contain_text("cut by client")
        await expect(opened).to_contain_text("No request is open")


async def test_what_is_shown_has_numbers_and_no_prompt(browser: Browser, stack: Stack) -> None:
    for stream in (False, True):
        assert await ask(stack, stack.keys["demo"], stream=stream) == 200
    assert await ask(stack, stack.keys["poor"]) == 429
    base = stack.service.admin_url
    async with a_tab(browser, base) as tab:
        page = tab.page
        await page.goto("/page/live")
        ended = page.get_by_role("region", name="Ended in the last ten minutes", exact=True)
        await expect(ended.locator("tbody tr")).to_have_count(3)
        await expect(ended).to_contain_text("budget_exhausted")
        for path in ("/page/live", "/page/live/calls", "/page/live?format=csv&table=ended", "/v1/live"):
            answer = await page.request.get(base + path)
            text = await answer.text()
            assert answer.ok
            assert MODEL in text
            assert CANARY not in text
            assert "brief and kind" not in text


async def test_the_admin_api_says_the_same(stack: Stack) -> None:
    assert await ask(stack, stack.keys["demo"]) == 200
    base = stack.service.admin_url
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/v1/live?workspace=demo") as answer:
            live = json.loads(await answer.text())
        async with session.get(f"{base}/v1/live?workspace=other") as answer:
            nobody = json.loads(await answer.text())
        async with session.get(f"{base}/v1/live?workspaces=other") as answer:
            assert answer.status == 400
        async with session.get(f"{base}/v1/openapi.json") as answer:
            document = json.loads(await answer.text())

    assert (live["open"], nobody["ended"]) == ([], [])
    (call,) = live["ended"]
    assert (call["state"], call["status"], call["workspace"], call["model"]) == (
        "answered",
        200,
        "demo",
        MODEL,
    )
    assert call["prompt_tokens"] > 0
    assert call["output_tokens"] > 0
    assert call["cost_nanousd"] > 0
    shapes = document["components"]["schemas"]["LiveCallAnswer"]["properties"]
    assert set(shapes) == set(call)
    assert "/v1/live" in document["paths"]


async def test_it_refreshes_by_itself_until_it_is_paused(browser: Browser, stack: Stack) -> None:
    asked: list[str] = []
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        page.on("request", lambda request: asked.append(request.url))
        await page.clock.install()
        await page.goto("/page/live")
        ended = page.get_by_role("region", name="Ended in the last ten minutes", exact=True)
        assert await ask(stack, stack.keys["demo"]) == 200
        await _let_time_pass_until(page, ended.get_by_role("row").filter(has_text="demo"))

        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("status")).to_have_text("Paused.")
        assert await ask(stack, stack.keys["other"]) == 200
        before = len(asked)
        for _ in range(5):
            await page.clock.run_for(REFRESH_MS)
        assert len(asked) == before

        button = page.get_by_role("button", name="Go on")
        await expect(button).to_have_attribute("aria-pressed", "true")
        await button.click()
        await _let_time_pass_until(page, ended.get_by_role("row").filter(has_text="other"))


async def test_without_javascript_it_is_the_same_and_a_link_refreshes_it(
    browser: Browser, stack: Stack
) -> None:
    async with a_tab(browser, stack.service.admin_url, javascript=False) as tab:
        await tab.page.goto("/page/live")
        assert await ask(stack, stack.keys["demo"]) == 200
        await expect(tab.page.get_by_role("button", name="Pause")).to_have_count(0)
        await tab.page.get_by_role("link", name="Refresh").click()
        await expect(tab.page.get_by_role("cell").filter(has_text=MODEL)).to_have_count(1)


async def _let_time_pass_until(page: Page, seen: Locator) -> None:
    """The browser's timers run when they are told to: as often as it takes."""
    for _ in range(500):
        await page.clock.run_for(REFRESH_MS)
        if await seen.count():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not show")
