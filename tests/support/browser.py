"""A real browser, Debian's Chromium, that reports what it complains of and asks nobody but the gateway."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
WAIT_MS = 60_000
"""For a page, and for what is expected of it: playwright's own five seconds are few on a busy machine."""
_QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
)


@dataclass(kw_only=True)
class Tab:
    """One page of a browser of its own: no cookie is shared with another."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """What the console was told of at level error: violations of the policy are among it."""
    hosts: set[str] = field(default_factory=set)
    """Whom it asked for anything."""

    def _hear(self, message: ConsoleMessage) -> None:
        # A status of 4xx is told of too; tests look at these themselves.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _see(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(_QUIET), timeout=WAIT_MS
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def a_tab(
    browser: Browser,
    base: str,
    *,
    scheme: Literal["light", "dark"] = "light",
    javascript: bool = True,
) -> AsyncIterator[Tab]:
    """A tab in a context of its own. Once it is done with, nothing but `base` was asked for anything, and the
    console has no complaint."""
    context = await browser.new_context(
        base_url=base,
        color_scheme=scheme,
        java_script_enabled=javascript,
        viewport={"width": 1360, "height": 900},
    )
    context.set_default_timeout(WAIT_MS)
    try:
        tab = Tab(page=await context.new_page())
        tab.page.on("console", tab._hear)
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.page.on("request", tab._see)
        yield tab
        assert tab.complaints == [], tab.complaints
        assert tab.hosts <= {urlsplit(base).netloc}, tab.hosts
    finally:
        await context.close()
