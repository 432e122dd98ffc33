"""The pictures of docs/page.md, drawn anew: `python -m tests.support.page_pictures docs/page`.

A made-up year of 200,000 entries, the same each time; so a picture differs only where the page does.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Literal

from gateway.core.limits import Scope
from gateway.web.page.caching import caching_screens
from gateway.web.page.prefixes import prefixes_screens
from gateway.web.page.spend import spend_screens
from tests.support.browser import a_browser
from tests.support.page_of_books import books_of, month_limit, serving, some_prefixes, some_warming
from tests.support.year_of_ledger import write_year

ENTRIES = 200_000
LIMITS = [
    month_limit(Scope.ORGANISATION, 750.0),
    month_limit(Scope.WORKSPACE, 250.0, "research"),
    month_limit(Scope.WORKSPACE, 320.0, "coding"),
    month_limit(Scope.WORKSPACE, 100.0, "support"),
]
SHOTS = {
    "spend": ("/spend", 980),
    "spend-why": ("/spend?workspace=research&by=key", 1_180),
    "spend-year": ("/spend?period=365d&by=model", 820),
    "caching": ("/caching", 800),
    "caching-incident": ("/caching?workspace=support&cause=changed&period=7d", 1_040),
    "prefixes": ("/prefixes", 900),
}
"""Path, and so many pixels from the top."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


async def draw(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Path(scratch) / "ledger.sqlite3"
        write_year(ledger, entries=ENTRIES)
        books = books_of(ledger, LIMITS)
        screens = [
            *spend_screens(books),
            *caching_screens(books, some_warming),
            *prefixes_screens(some_prefixes),
        ]
        async with serving(screens) as url, a_browser() as browser:
            for scheme in SCHEMES:
                for name, (path, height) in SHOTS.items():
                    page = await browser.new_page(
                        viewport={"width": 1280, "height": height}, color_scheme=scheme
                    )
                    await page.goto(url + path)
                    await page.screenshot(path=folder / f"{name}-{scheme}.png")
                    await page.close()


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
