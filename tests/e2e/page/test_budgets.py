"""Budgets on the page: what is granted there lets a refused call through, what is frozen stops one."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from gateway.adapters.guarded_budgets import GuardedBudgets
from tests.e2e.page.conftest import IN_MEMORY, ask
from tests.support.browser import a_tab
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_more_is_granted_and_a_refused_call_goes_through(browser: Browser, stack: Stack) -> None:
    assert await ask(stack, stack.keys["poor"]) == 429
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await page.goto("/page/budgets?workspace=poor")
        await page.get_by_role("row").filter(has_text="month").get_by_role("link").first.click()
        form = page.get_by_role("form", name="Grant more, for a while")
        await form.get_by_label("How much more").fill("$25.00")
        await form.get_by_label("Reason").fill("quarter end")
        await form.get_by_label("Your name").fill("Ada Lovelace")
        await form.get_by_role("button", name="Grant").click()

        await expect(page.get_by_role("status")).to_contain_text("More was granted")
        await expect(page.get_by_role("definition").filter(has_text="configured")).to_contain_text("$25.00")
        assert await ask(stack, stack.keys["poor"]) == 200

        in_force = page.get_by_role("region", name="Changes in force", exact=True)
        await expect(in_force).to_contain_text("Ada Lovelace")
        await in_force.get_by_role("link", name="Take back").click()
        await page.get_by_label("Reason").fill("was a test")
        await page.get_by_label("Your name").fill("Ada Lovelace")
        await page.get_by_role("button", name="Take back").click()
        await expect(page.get_by_role("status")).to_contain_text("Taken back")
        trail = page.get_by_role("region", name="Audit trail", exact=True)
        await expect(trail.locator("tbody tr")).to_have_count(2)
        await expect(trail).to_contain_text("grant taken back")
    assert await ask(stack, stack.keys["poor"]) == 429


async def test_an_amount_that_cannot_be_read_is_told_and_nothing_is_lost(
    browser: Browser, stack: Stack
) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        await tab.page.goto("/page/budgets/limit?limit=month&subject=demo")
        form = tab.page.get_by_role("form", name="Set another amount")
        await form.get_by_label("New amount").fill("a lot")
        await form.get_by_label("Reason").fill("more work")
        await form.get_by_label("Your name").fill("Ada")
        await form.get_by_role("button", name="Set").click()

        await expect(form.get_by_role("alert")).to_contain_text("amount")
        await expect(form.get_by_label("Reason")).to_have_value("more work")
        await form.get_by_label("New amount").fill("$70.00")
        await form.get_by_role("button", name="Set").click()
        await expect(tab.page.get_by_role("status")).to_contain_text("The amount was set")
        await expect(tab.page.get_by_role("definition").filter(has_text="configured")).to_contain_text("$70")


async def test_who_is_frozen_is_refused_until_that_is_taken_back(browser: Browser, stack: Stack) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await page.goto("/page/budgets/limit?limit=month&subject=demo")
        await page.get_by_role("link", name="Freeze workspace demo").click()
        await expect(page.get_by_label("Name", exact=True)).to_have_value("demo")
        await page.get_by_label("Reason").fill("a loop that spends")
        await page.get_by_label("Your name").fill("Ada")
        await page.get_by_role("button", name="Freeze").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Freeze workspace demo?")
        await expect(page.get_by_text("1 workspace and 1 key")).to_be_visible()
        assert await ask(stack, stack.keys["demo"]) == 200, "not before it is confirmed"
        await page.get_by_role("button", name="Freeze").click()
        await expect(page.get_by_role("status")).to_contain_text("Frozen")
        assert await ask(stack, stack.keys["demo"]) == 403
        assert await ask(stack, stack.keys["other"]) == 200

        await page.goto("/page/budgets")
        await expect(page.get_by_text("Workspace demo is frozen")).to_be_visible()
        await page.goto("/page/changes")
        await page.get_by_role("link", name="Unfreeze").click()
        await page.get_by_label("Reason").fill("fixed")
        await page.get_by_label("Your name").fill("Ada")
        await page.get_by_role("button", name="Unfreeze").click()
        await expect(page.get_by_text("Nobody is frozen.")).to_be_visible()
    assert await ask(stack, stack.keys["demo"]) == 200


async def test_who_is_in_trouble_comes_first_and_can_be_shown_alone(browser: Browser, stack: Stack) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await _set(page, "poor", "$0.00")
        await page.goto("/page/budgets")
        first = page.locator("tbody tr").first
        await expect(first).to_contain_text("poor")
        await expect(first).to_contain_text("exhausted")
        assert await page.locator("tbody tr").count() > 1

        await page.get_by_label("Show").select_option("trouble")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("tbody tr")).to_have_count(1)


async def test_a_tag_of_an_app_has_its_own_budget(browser: Browser, tmp_path: Path) -> None:
    limit = "{id: per-team, scope: tag, tag: x-team, unit: usd, amount: $1.00, per: day, comment: test}"
    async with (
        a_stack(tmp_path, settings=IN_MEMORY, limits=f"defaults: [{limit}]\n") as stack,
        a_tab(browser, stack.service.admin_url) as tab,
    ):
        await tab.page.goto("/page/budgets?limit=per-team")
        await tab.page.get_by_label("Tag").fill("x-team:search")
        await tab.page.get_by_role("button", name="Show").click()
        await tab.page.get_by_role("link", name="per-team").click()
        form = tab.page.get_by_role("form", name="Set another amount")
        await form.get_by_label("New amount").fill("$3.00")
        await form.get_by_label("Reason").fill("more work")
        await form.get_by_label("Your name").fill("Ada")
        await form.get_by_role("button", name="Set").click()
        await expect(tab.page.get_by_role("heading", level=1)).to_contain_text("per-team of tag search")
        await expect(tab.page.get_by_role("definition").filter(has_text="configured")).to_contain_text(
            "$3.00"
        )


async def test_the_export_is_exact(browser: Browser, stack: Stack) -> None:
    assert await ask(stack, stack.keys["demo"]) == 200
    async with a_tab(browser, stack.service.admin_url) as tab:
        answer = await tab.page.request.get(
            f"{stack.service.admin_url}/page/budgets?workspace=demo&limit=month&format=csv"
        )
        header, line = (await answer.text()).splitlines()
        row = dict(zip(header.split(","), line.split(","), strict=True))
        assert (row["limit"], row["subject"], row["mode"]) == ("month", "demo", "enforce")
        spent, aside, left = (Decimal(row[name]) for name in ("spent", "set_aside", "left"))
        assert spent + aside + left == Decimal("50")
        assert spent + aside > 0


async def test_while_counters_are_computed_anew_nobody_is_told_that_nothing_was_spent(
    browser: Browser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuardedBudgets, "is_rebuilding", property(lambda _: True))
    where = f"{stack.service.admin_url}/page/budgets?workspace=demo&limit=month"
    async with a_tab(browser, stack.service.admin_url) as tab:
        await tab.page.goto(where)
        await expect(tab.page.get_by_role("status")).to_contain_text("computed anew from the ledgers")
        await expect(tab.page.locator("tbody tr").first).to_contain_text("computed anew")
        header, line = (await (await tab.page.request.get(f"{where}&format=csv")).text()).splitlines()
        row = dict(zip(header.split(","), line.split(","), strict=True))
        assert [row[name] for name in ("used", "spent", "set_aside", "left")] == [""] * 4
        await tab.page.get_by_role("link", name="month").click()
        await expect(tab.page.get_by_role("status")).to_contain_text("computed anew from the ledgers")
        await expect(tab.page.locator("dl.figures")).not_to_contain_text("$0.00")


async def _set(page: Page, subject: str, amount: str) -> None:
    await page.goto(f"/page/budgets/limit?limit=month&subject={subject}")
    form = page.get_by_role("form", name="Set another amount")
    await form.get_by_label("New amount").fill(amount)
    await form.get_by_label("Reason").fill("a stop")
    await form.get_by_label("Your name").fill("Ada")
    await form.get_by_role("button", name="Set").click()
    await expect(page.get_by_role("status")).to_be_visible()
