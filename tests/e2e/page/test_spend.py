"""Who overspent and why is found in two clicks; the month that is exported sums to the ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from gateway.adapters.ledger_queries import read_totals
from gateway.core.ledger import month_bounds, usd
from gateway.core.limits import Scope
from gateway.web.page.spend import spend_screens
from gateway.web.page.spend_found import MAX_OFFERED
from tests.e2e.page.conftest import ask
from tests.support.browser import a_tab
from tests.support.fakes import MODEL
from tests.support.ledgers import write
from tests.support.page_of_books import NOW, books_of, month_limit, serving
from tests.support.records import a_record
from tests.support.stack import Stack
from tests.support.year_of_ledger import write_year

pytestmark = pytest.mark.asyncio(loop_scope="package")

LIMITS = [
    month_limit(Scope.ORGANISATION, 100.0),
    month_limit(Scope.WORKSPACE, 8.0, "research"),
    month_limit(Scope.WORKSPACE, 1_000.0, "coding"),
]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "ledger.sqlite3"
    write_year(path, entries=12_000)
    return path


@pytest_asyncio.fixture(loop_scope="package")
async def url(ledger: Path) -> AsyncIterator[str]:
    async with serving(spend_screens(books_of(ledger, LIMITS))) as url:
        yield url


_FIRST_AND_LAST_BAR = """() => {
  const bars = [...document.querySelectorAll('.chart-scroll.days rect')];
  return [bars.at(0).getBoundingClientRect().left, bars.at(-1).getBoundingClientRect().right];
}"""


async def _get(url: str, status: int = 200) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == status, await answer.text()
        return await answer.text()


def _sum(text: str, column: str) -> int:
    return sum(round(float(row[column]) * 10**9) for row in csv.DictReader(io.StringIO(text)))


def _of_month(ledger: Path) -> int:
    start_ms, end_ms = month_bounds("2026-11")
    (whole,) = read_totals(ledger, [], start_ms=start_ms, end_ms=end_ms)
    return whole.cost_nanousd


async def test_on_a_small_screen_nothing_sticks_out_and_charts_show_the_last_days_first(
    browser: Browser, url: str
) -> None:
    async with a_tab(browser, url, javascript=False) as tab:
        await tab.page.set_viewport_size({"width": 390, "height": 800})
        for path in ("/spend", "/spend?workspace=research"):
            await tab.page.goto(url + path)
            assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 390, path
            first, last = await tab.page.evaluate(_FIRST_AND_LAST_BAR)
            assert first < 0 < last <= 390, path


async def test_who_overspent_and_why_is_found_in_two_clicks(browser: Browser, url: str) -> None:
    async with a_tab(browser, url, javascript=False) as tab:
        page = tab.page
        await page.goto(f"{url}/spend")
        finding = page.get_by_role("listitem").filter(has_text="over budget")
        await expect(finding).to_contain_text("research has spent $")
        await expect(finding).to_contain_text("more by volume (more tokens)")
        await finding.get_by_role("link", name="Why did research spend that?").click()

        await expect(page.get_by_text("workspace: research")).to_be_visible()
        first = page.get_by_role("region", name="Spend by key").locator("tbody tr").first
        await expect(first).to_contain_text("Nightly runs")
        await expect(first).to_contain_text("volume +$")
        await first.get_by_role("link").click()

        await expect(page.get_by_text("key: Nightly runs")).to_be_visible()
        await expect(page.get_by_role("region", name="Spend by model")).to_be_visible()
        assert "workspace=research" in page.url
        assert "key=key_research_nightly" in page.url


async def test_filters_and_sorting_are_in_the_url_and_survive_it(browser: Browser, url: str) -> None:
    async with a_tab(browser, url) as tab:
        page = tab.page
        await page.goto(f"{url}/spend?period=90d")
        await page.get_by_label("Workspace", exact=True).select_option("coding")
        await page.get_by_label("Split by").select_option("model")
        await page.get_by_role("button", name="Show").click()
        table = page.get_by_role("region", name="Spend by model")
        await table.get_by_role("link", name="Calls").click()
        for text in ("period=90d", "workspace=coding", "by=model", "sort=-requests"):
            assert text in page.url

        calls = await table.locator("tbody tr td:last-child").all_inner_texts()
        assert calls == sorted(calls, key=lambda text: -int(text.replace(",", "")))
        assert len(calls) == 2
        await expect(table.get_by_role("columnheader", name="Calls")).to_have_attribute(
            "aria-sort", "descending"
        )
        await expect(page.get_by_label("Workspace", exact=True)).to_have_value("coding")


async def test_every_chart_has_a_name_a_description_and_its_numbers_beside_it(
    browser: Browser, url: str
) -> None:
    async with a_tab(browser, url) as tab:
        page = tab.page
        await page.goto(f"{url}/spend")
        charts = page.locator("svg.chart")
        assert await charts.count() == 3
        for n in range(3):
            assert await charts.nth(n).get_attribute("role") == "img"
            assert await charts.nth(n).locator("title").first.text_content()
            assert "$" in str(await charts.nth(n).locator("desc").text_content())
        summary = page.get_by_text("The same in numbers")
        await summary.focus()
        await page.keyboard.press("Enter")
        days = page.get_by_role("region", name="Values of the chart, by day")
        assert await days.locator("tbody tr").count() == 22
        assert await charts.first.locator("rect title").count() > 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_colours_of_a_chart_can_be_told_from_the_ground(
    browser: Browser, url: str, scheme: str
) -> None:
    """At least 3:1, as WCAG 2.2 has it for graphics (1.4.11)."""
    async with a_tab(browser, url, scheme="dark" if scheme == "dark" else "light") as tab:
        await tab.page.goto(f"{url}/spend?by=kind")
        colours = await tab.page.evaluate(
            "[...new Set([...document.querySelectorAll('svg.chart rect[class^=c]')]"
            ".map(shape => getComputedStyle(shape).fill))]"
        )
        ground = await tab.page.evaluate(
            "getComputedStyle(document.querySelector('.chart-box')).backgroundColor"
        )
        assert len(colours) == 5
        for colour in colours:
            assert _contrast(colour, ground) >= 3.0, (colour, ground)


def _contrast(one: str, other: str) -> float:
    lights = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def _luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour.strip("rgb()").split(",")[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


async def test_the_month_as_csv_and_as_focus_sums_to_the_ledger(
    browser: Browser, url: str, ledger: Path
) -> None:
    async with a_tab(browser, url) as tab:
        page = tab.page
        await page.goto(f"{url}/spend")
        texts = {}
        for name in ("2026-11 as CSV", "2026-11 as FOCUS 1.3"):
            async with page.expect_download() as download:
                await page.get_by_role("link", name=name).click()
            file = await download.value
            assert file.suggested_filename.endswith("-as-of-20261122T153000Z.csv")
            texts[name] = Path(await file.path()).read_text()  # noqa: ASYNC240

    expected = _of_month(ledger)
    assert _sum(texts["2026-11 as CSV"], "cost_usd") == expected
    assert _sum(texts["2026-11 as FOCUS 1.3"], "BilledCost") == expected


@pytest.mark.parametrize("by", ["workspace", "team", "model", "kind", "key", "day"])
async def test_a_table_as_csv_sums_to_the_ledger_whatever_it_is_split_by(
    url: str, ledger: Path, by: str
) -> None:
    assert _sum(await _get(f"{url}/spend?by={by}&format=csv"), "cost_usd") == _of_month(ledger)


async def test_the_figures_are_those_of_the_command(url: str, ledger: Path) -> None:
    page = await _get(f"{url}/spend?period=2026-10")
    start_ms, end_ms = month_bounds("2026-10")
    (whole,) = read_totals(ledger, [], start_ms=start_ms, end_ms=end_ms)

    assert f"${round(float(usd(whole.cost_nanousd)), 2):,.2f}" in page
    assert f"{whole.requests:,} calls" in page
    assert "gateway report --month 2026-10 --by workspace" in page


@pytest.mark.parametrize(
    "query", ["period=2026-13", "period=0d", "period=2027-01", "by=colour", "sort=x", "period=2026-11-09..x"]
)
async def test_what_cannot_be_understood_is_said_and_is_no_error_of_the_gateway(url: str, query: str) -> None:
    query = query.replace("sort=", "table.sort=")
    assert "<h1" in await _get(f"{url}/spend?{query}", 400)


async def test_what_comes_from_a_url_is_text_on_the_page(url: str) -> None:
    page = await _get(f"{url}/spend?workspace=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script>alert" not in page


async def test_a_gateway_shows_what_a_call_cost_a_moment_ago(browser: Browser, stack: Stack) -> None:
    assert await ask(stack, stack.keys["demo"]) == 200
    async with a_tab(browser, stack.service.admin_url) as tab:
        row = tab.page.get_by_role("region", name="Spend by workspace").locator("tbody tr").first
        for _ in range(200):  # it is settled behind its answer, and the books are read when the page is asked
            await tab.page.goto("/page/spend")
            if "demo" in await row.inner_text():
                break
        await expect(row).to_contain_text("$")
        await expect(row).to_contain_text("demo")
        await tab.page.goto("/page/caching")
        await expect(tab.page.get_by_role("heading", name="Caching", exact=True)).to_be_visible()
        await tab.page.goto("/page/prefixes")
        await expect(tab.page.get_by_role("heading", name="Cache", exact=True)).to_be_visible()


async def test_of_very_many_models_the_dearest_are_offered(tmp_path: Path) -> None:
    """Clients may write any name, at no cost to them."""
    path, at = tmp_path / "ledger.sqlite3", NOW - 60.0
    dear = a_record(id="dear", received_at=at, model=MODEL)
    made_up = [
        a_record(id=f"e{n}", received_at=at, model=f"claude-a{n}", usage=None, cost=None)
        for n in range(2 * MAX_OFFERED)
    ]
    write(path, [*made_up, dear])
    async with serving(spend_screens(books_of(path, LIMITS))) as url:
        page = await _get(f"{url}/spend")

    assert f'<option value="{MODEL}">' in page
    assert page.count('<option value="claude-') == MAX_OFFERED
