"""The screens about money over a ledger in a file, served on a loopback port: the page without a gateway."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
from aiohttp import web

from gateway.adapters.ledger_queries import read_charges
from gateway.adapters.ledger_rollup import LedgerRollup
from gateway.adapters.sign_outs import MemorySignOuts
from gateway.core.focus import Charge
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.ledger import Dimension
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.news import Billed, Sent, pack_keys
from gateway.core.planner import Kind, Planner, PlannerOptions, Prices, Question, Reported
from gateway.core.planner.listing import Order, PrefixListing
from gateway.core.statement import month_budgets
from gateway.core.warming_book import WarmedPrefix, WarmingTotals
from gateway.core.warmup import WarmCause
from gateway.web.admin_warming import WarmingStatus
from gateway.web.page.app import page_app
from gateway.web.page.asking import Books
from gateway.web.page.prefixes import Prefixes
from gateway.web.page.rendering import Screen, make_page
from gateway.web.page.session import Sessions
from tests.support.clock import FakeClock
from tests.support.year_of_ledger import UNTIL_MS

USD = 1_000_000_000
NOW = UNTIL_MS / 1000
KEY_NAMES = {
    "key_coding_ide": "IDE",
    "key_coding_review": "Code review",
    "key_coding_ci": "CI",
    "key_support_bot": "Support bot",
    "key_support_desk": "Help desk",
    "key_search_app": "Search app",
    "key_research_notebooks": "Notebooks",
    "key_research_nightly": "Nightly runs",
    "key_marketing_copy": "Copywriting",
}
TEAMS = {"coding": "platform", "search": "platform", "support": "care", "marketing": "care"}


def month_limit(scope: Scope, dollars: float, *subjects: str) -> Limit:
    return Limit(
        id=f"{scope.value}-month",
        scope=scope,
        unit=Unit.NANOUSD,
        amount=round(dollars * USD),
        period=Period.CALENDAR_MONTH,
        subjects=subjects,
    )


def books_of(ledger: Path, limits: Sequence[Limit] = (), *, now: float = NOW) -> Books:
    """Of a ledger; its sums lie beside it and are brought up to date when a page asks."""
    rollup = LedgerRollup(ledger, ledger.with_name("sums.sqlite3"), lambda: now)
    in_force = Limits(tuple(limits))

    def budgets(by: Dimension, names: Collection[str]) -> Mapping[str, int]:
        return month_budgets(in_force, by, names, {})

    def charges(start_ms: int, end_ms: int) -> Iterator[Charge]:
        return read_charges([ledger], start_ms=start_ms, end_ms=end_ms)

    return Books(
        book=rollup,
        refresh=rollup.update,
        budgets=budgets,
        team_of=lambda: TEAMS,
        key_names=lambda: KEY_NAMES,
        charges=charges,
        now=lambda: now,
    )


@asynccontextmanager
async def serving(screens: Sequence[Screen], *, now: float = NOW) -> AsyncIterator[str]:
    """The URL of a page with these screens, for whoever asks on this machine."""
    page = make_page(
        screens, clock=FakeClock(now), timezone="UTC", version="0.1.0", new_id=lambda: "form-0001"
    )
    sessions = Sessions(
        secrets.token_bytes(32), MemorySignOuts(), idle_seconds=3600, longest_seconds=3600, secure=False
    )
    app = web.Application()
    app.add_subapp("/page", page_app(page, sessions, loopback=True, signing_in=False, public_url=None))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/page"
    finally:
        await runner.cleanup()


async def some_warming() -> WarmingStatus:
    """A replica that keeps entries alive at a profit, and warms by a schedule at a loss."""
    totals = {cause: WarmingTotals() for cause in WarmCause}
    totals[WarmCause.KEEP_ALIVE] = WarmingTotals(
        warm_ups=412, cost_nanousd=1_930_000_000, reads=390, bridged=301, saved_nanousd=21_470_000_000
    )
    totals[WarmCause.SCHEDULE] = WarmingTotals(
        warm_ups=22, cost_nanousd=610_000_000, reads=5, bridged=4, saved_nanousd=240_000_000
    )
    return WarmingStatus(at=NOW, prefixes=(), totals=totals, schedules=(), budgets=())


def some_prefixes(count: int, order: Order) -> Prefixes:
    """Of a planner that was told of the traffic of an afternoon."""
    planner = Planner(PlannerOptions(capacity=1 << 12))
    time = [NOW]
    listing = PrefixListing(planner, lambda: time[0])
    random = Random(5)
    for n in range(36):
        workspace, model, tokens = (
            ("coding", "claude-sonnet-5-5", 52_000),
            ("support", "claude-sonnet-5-5", 14_000),
            ("research", "claude-opus-5-5", 38_000),
        )[n % 3]
        key = random.getrandbits(64) | 1
        ends = (round(tokens * random.uniform(0.5, 1.3)),)
        question = Question(n, 1, 2, (key,), ends, bytes([Kind.SYSTEM]), Prices(), fixed=((0, n % 7 == 0),))
        at = time[0] = NOW - 920.0 + n * 25.0
        planner.plan(question, at)
        planner.billed(n, Reported(0, 0, ends[0], 0), at)
        sent = Sent(
            call=f"c{n}",
            at=at,
            workspace=workspace,
            model=model,
            scope=1,
            keys=pack_keys([key]),
            ends=ends,
            kinds=bytes([Kind.SYSTEM]),
            marks=((0, n % 7 == 0),),
            prices=(0.1, 1.25, 2.0, 512),
            price=2_000.0,
        )
        listing.tell(sent)
        listing.tell(Billed(f"c{n}", at, 0, 0, ends[0], 0, 100))
        for reader in range(random.randrange(9)):
            listing.tell(msgspec.structs.replace(sent, call=f"c{n}.{reader}"))
            listing.tell(Billed(f"c{n}.{reader}", at, 0, ends[0], 0, 0, 100))
    time[0] = NOW
    listed = listing.top(count, order)
    warmed = {
        one.key: WarmedPrefix(
            key=PrefixKey(one.key.to_bytes(8, "little") * 2),
            workspace=WorkspaceId(one.workspace),
            model=one.model,
            cause=WarmCause.KEEP_ALIVE,
            name="keep alive",
            tokens=one.tokens,
            warm_ups=6,
            bridged=4,
            cost_nanousd=one.tokens * 1_200,
            saved_nanousd=one.tokens * (5_000 if one.reads > 2 else 400),
        )
        for one in listed[::4]
    }
    return Prefixes(at=NOW, listed=listed, known=len(listing), remembered=planner.table.used, warmed=warmed)
