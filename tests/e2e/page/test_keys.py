"""Keys on the page: one that is made opens the gateway, one that is revoked does not any more."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.page.conftest import ask
from tests.support.browser import a_tab
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_key_is_made_shown_once_used_and_revoked(browser: Browser, stack: Stack) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await page.goto("/page/keys")
        await page.get_by_role("link", name="New key").click()
        await page.get_by_label("Name").fill("=billing-bot")
        await page.get_by_label("Workspace").select_option("demo")
        await page.get_by_role("button", name="Make the key").click()
        secret = (await page.get_by_label("The key", exact=True).text_content() or "").strip()

        assert secret.startswith("cgw_")
        assert await ask(stack, secret) == 200

        await page.get_by_role("link", name="I have it").click()
        row = page.get_by_role("row").filter(has_text="=billing-bot")
        await expect(row).to_contain_text("active")
        await expect(row).to_contain_text(f"ends in {secret[-4:]}")
        assert secret not in await page.content()

        await row.get_by_role("link", name="Revoke").click()
        await expect(page.get_by_role("heading")).to_contain_text("Revoke =billing-bot?")
        await page.get_by_role("button", name="Revoke the key").click()
        await expect(page.get_by_role("status")).to_contain_text("is revoked")
        await expect(row).to_contain_text("revoked")
        await expect(row.get_by_role("link", name="Revoke")).to_have_count(0)
        assert await ask(stack, secret) == 401


async def test_a_key_that_the_store_did_not_make_can_be_revoked(browser: Browser, stack: Stack) -> None:
    """As one that workspaces.yaml declares."""
    async with a_tab(browser, stack.service.admin_url) as tab:
        await tab.page.goto("/page/keys?workspace=other")
        await tab.page.get_by_role("link", name="Revoke").click()
        await tab.page.get_by_role("button", name="Revoke the key").click()
        await expect(tab.page.get_by_role("status")).to_contain_text("is revoked")

    assert await ask(stack, stack.keys["other"]) == 401


async def test_a_form_with_a_fault_says_so_and_keeps_what_was_typed(browser: Browser, stack: Stack) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        await tab.page.goto("/page/keys/new")
        name = tab.page.get_by_label("Name")
        await name.evaluate("field => field.removeAttribute('required')")
        await name.fill("   ")
        await tab.page.get_by_label("Ends after").select_option("365")
        await tab.page.get_by_role("button", name="Make the key").click()

        await expect(tab.page.get_by_role("alert")).to_have_text("A name has 1 to 100 printable characters.")
        await expect(tab.page.get_by_label("Ends after")).to_have_value("365")


async def test_the_list_is_filtered_sorted_and_exported_by_its_url(browser: Browser, stack: Stack) -> None:
    await ask(stack, stack.keys["demo"])
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await page.goto("/page/keys")
        await page.get_by_label("State").select_option("expired")
        await page.get_by_role("button", name="Show").click()
        await expect(page).to_have_url(re.compile("state=expired"))
        await expect(page.locator("tbody tr")).to_have_count(1)

        await page.goto("/page/keys")
        header = page.get_by_role("columnheader", name="Name")
        await header.get_by_role("link").click()
        await expect(header).to_have_attribute("aria-sort", "ascending")
        names = await page.locator("tbody th").all_text_contents()
        assert [name.strip() for name in names] == sorted(name.strip() for name in names)

        used = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="demo", exact=True))
        await expect(used.get_by_role("cell").nth(5)).not_to_have_text("–")

        export = await page.get_by_role("link", name="Export as CSV").get_attribute("href")
        answer = await page.request.get(f"{stack.service.admin_url}{export}")
        lines = (await answer.text()).splitlines()
        assert lines[0] == "name,id,workspace,state,created,expires,last_used"
        assert [line.partition(",")[0] for line in lines[1:]] == [name.strip() for name in names]
        assert answer.headers["content-disposition"] == 'attachment; filename="keys.csv"'
