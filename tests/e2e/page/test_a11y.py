"""Whoever uses a keyboard, a screen reader, a small screen or large contrast can do all that others can."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.page.conftest import ask
from tests.e2e.page.test_csp import SCREENS
from tests.support.browser import a_tab
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="package")

TABS = 200
"""Presses of the tab key after which something was to be reached."""

FAULTS = """() => {
    const faults = [];
    const named = control => control.labels?.length || control.getAttribute("aria-label")
        || control.textContent.trim() || control.closest("label");
    const controls = "input:not([type=hidden]), select, textarea, button, a[href]";
    for (const control of document.querySelectorAll(controls))
        if (!named(control)) faults.push("no name: " + control.outerHTML.slice(0, 120));
    for (const table of document.querySelectorAll("table")) {
        if (!table.caption?.textContent.trim()) faults.push("a table without a caption");
        for (const header of table.querySelectorAll("th"))
            if (!header.scope) faults.push("a header without a scope");
    }
    const ids = [...document.querySelectorAll("[id]")].map(part => part.id);
    for (const id of new Set(ids))
        if (ids.filter(each => each === id).length > 1) faults.push("an id twice: " + id);
    for (const part of document.querySelectorAll("[aria-describedby], [aria-labelledby], label[for]"))
        for (const name of ["aria-describedby", "aria-labelledby", "for"])
            for (const id of (part.getAttribute(name) || "").split(" ").filter(Boolean))
                if (!ids.includes(id)) faults.push("refers to nothing: " + id);
    for (const picture of document.querySelectorAll("svg, img"))
        if (!picture.getAttribute("aria-label") && picture.getAttribute("aria-hidden") !== "true"
            && !picture.querySelector("title")) faults.push("a picture without a text");
    if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
    if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
    if (!document.documentElement.lang) faults.push("no language");
    return faults;
}"""

POOR_CONTRASTS = """() => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(each => {
            const share = each / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = part => {
        for (let at = part; at; at = at.parentElement) {
            const colour = channels(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const poor = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const part = walker.currentNode.parentElement;
        const unseen = !part.checkVisibility() || part.closest(".hidden, .skip");
        if (unseen || !walker.currentNode.textContent.trim()) continue;
        const [one, other] = [light(channels(getComputedStyle(part).color)), light(ground(part))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) poor.add(`${ratio.toFixed(2)} ${part.tagName}.${part.className}`);
    }
    return [...poor];
}"""


async def test_every_control_has_a_name_every_table_a_caption(browser: Browser, guarded: Stack) -> None:
    async with a_tab(browser, guarded.service.admin_url) as tab:
        await tab.page.goto("/page")
        assert await tab.page.evaluate(FAULTS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_screen_can_be_read_and_heard(
    browser: Browser, stack: Stack, scheme: Literal["light", "dark"]
) -> None:
    assert await ask(stack, stack.keys["demo"]) == 200
    assert await ask(stack, stack.keys["poor"]) == 429
    async with a_tab(browser, stack.service.admin_url, scheme=scheme) as tab:
        await _freeze(tab.page)
        for path in SCREENS:
            await tab.page.goto(path)
            assert await tab.page.evaluate(FAULTS) == [], path
            assert await tab.page.evaluate(POOR_CONTRASTS) == [], path


async def test_more_can_be_granted_by_the_keyboard_alone(browser: Browser, stack: Stack) -> None:
    assert await ask(stack, stack.keys["poor"]) == 429
    async with a_tab(browser, stack.service.admin_url) as tab:
        page = tab.page
        await page.goto("/page/budgets?workspace=poor&limit=month")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await _tab_to(page, "month")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("month of workspace poor")
        await _tab_to(page, "How much more")
        await page.keyboard.type("$5.00")
        await _tab_to(page, "Reason")
        await page.keyboard.type("by hand")
        await _tab_to(page, "Your name")
        await page.keyboard.type("Ada")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_contain_text("More was granted")
    assert await ask(stack, stack.keys["poor"]) == 200


async def test_a_small_screen_does_not_scroll_sideways(browser: Browser, stack: Stack) -> None:
    async with a_tab(browser, stack.service.admin_url) as tab:
        await tab.page.set_viewport_size({"width": 360, "height": 740})
        for path in SCREENS:
            await tab.page.goto(path)
            assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 360, path


async def _tab_to(page: Page, name: str) -> None:
    """Press the tab key until the control of this name has the focus, and it can be seen that it has."""
    for _ in range(TABS):
        await page.keyboard.press("Tab")
        found = await page.evaluate(
            """() => {
                const at = document.activeElement;
                const outline = getComputedStyle(at).outlineStyle;
                return [at.labels?.[0]?.textContent ?? at.textContent, outline];
            }"""
        )
        if found[0].strip() == name:
            assert found[1] != "none"
            return
    raise AssertionError(f"the tab key does not lead to {name!r}")


async def _freeze(page: Page) -> None:
    await page.goto("/page/changes?scope=workspace&subject=shadow")
    await page.get_by_label("Reason").fill("a loop")
    await page.get_by_label("Your name").fill("Ada")
    await page.get_by_role("button", name="Freeze").click()
    assert await page.evaluate(FAULTS) == []
    await page.get_by_role("button", name="Freeze").click()
    await expect(page.get_by_role("status")).to_be_visible()
