"""What a browser may do with the page: nothing inline, nothing from elsewhere, no frame around it."""

from __future__ import annotations

import aiohttp
import pytest
from playwright.async_api import Browser, expect

from tests.e2e.page.conftest import CANARY, ask
from tests.support.browser import a_tab
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="package")

SCREENS = (
    "/page/budgets",
    "/page/budgets/limit?limit=month&subject=demo",
    "/page/changes",
    "/page/keys",
    "/page/keys/new",
    "/page/live",
    "/page/nowhere",
)


async def test_no_screen_violates_the_policy_asks_elsewhere_or_shows_a_prompt(
    browser: Browser, stack: Stack
) -> None:
    assert await ask(stack, stack.keys["demo"]) == 200
    async with a_tab(
        browser, stack.service.admin_url
    ) as tab:  # which checks what is asked, and complained of
        for path in SCREENS:
            await tab.page.goto(path)
            await expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
            assert CANARY not in await tab.page.content()


async def test_an_inline_script_does_not_run_and_is_complained_of(browser: Browser, stack: Stack) -> None:
    """The check above can fail."""
    with pytest.raises(AssertionError, match="Content Security Policy"):
        async with a_tab(browser, stack.service.admin_url) as tab:
            await tab.page.goto("/page/keys")
            await tab.page.evaluate(
                """() => {
                    const script = document.createElement("script");
                    script.textContent = "document.title = 'ran'";
                    document.body.append(script);
                }"""
            )
            assert await tab.page.title() != "ran"


async def test_every_answer_has_the_headers_that_guard_it(guarded: Stack, stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        for path in (*SCREENS, "/page/live/calls", "/page/keys?format=csv"):
            await _check_headers(session, f"{stack.service.admin_url}{path}")
        await _check_headers(session, f"{guarded.service.admin_url}/page/sign-in")


async def _check_headers(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url, allow_redirects=False) as answer:
        assert answer.status in (200, 404)
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'",
            "style-src": "'self'",
            "script-src": "'self'",
            "img-src": "'self'",
            "connect-src": "'self'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
        }
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_what_people_wrote_is_text(browser: Browser, stack: Stack) -> None:
    mark = "<img src=x onerror=alert(1)>"
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await page.goto("/page/keys/new")
        await page.get_by_label("Name").fill(mark)
        await page.get_by_label("Workspace").select_option("demo")
        await page.get_by_role("button", name="Make the key").click()
        await page.goto("/page/keys")
        await expect(page.get_by_role("rowheader", name=mark)).to_be_visible()
        assert await page.locator("img").count() == 0


async def test_static_files_are_named_by_what_they_hold_and_kept(stack: Stack) -> None:
    base = stack.service.admin_url
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/page/static/page.css?123") as answer:
            assert answer.content_type == "text/css"
            assert "immutable" in answer.headers["cache-control"]
        async with session.get(f"{base}/page/static/..%2ftemplates%2fbase.html") as answer:
            assert answer.status == 404
