"""The screen about spend: how much, of which budget, by whom and on what, why more than before, and exports.

Every view has a URL. Who overspent stands at the top of the first view, in sentences; each leads to what that
workspace spent by key and why. What is read is `spend_found.py`'s, what is drawn `spend_view.py`'s and
`spend_tables.py`'s, what is asked for `asking.py`'s.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO

from aiohttp import web

from gateway.core.errors import ConfigError
from gateway.core.focus import COLUMNS, focus_rows
from gateway.core.ledger import Dimension, Total, month_bounds
from gateway.core.report_lines import csv_lines, total_row
from gateway.web.admin_api import AdminError
from gateway.web.page.asking import (
    Books,
    read_asked,
    readable,
    unreadable,
)
from gateway.web.page.rendering import HEADERS, Screen, render
from gateway.web.page.spend_found import BY, read_spend
from gateway.web.page.spend_tables import spend_tables
from gateway.web.page.spend_view import spend_values
from gateway.web.page.tables import Table

EXPORTED_BY = (Dimension.DAY, Dimension.WORKSPACE, Dimension.KEY, Dimension.MODEL)
CHUNK_BYTES = 1 << 16


def spend_screens(books: Books) -> list[Screen]:
    """The screen, and the month for other programs."""
    exporting = asyncio.Lock()

    async def show(request: web.Request) -> web.StreamResponse:
        now = books.now()
        asked = read_asked(request, now, BY, "workspace")

        def work() -> tuple[list[Table], dict[str, object]]:
            found = read_spend(books, asked, now)
            return spend_tables(found), spend_values(found, now) | {"alone": books.alone}

        try:  # in a thread, charts and all: a year has a thousand shapes, and streams go on meanwhile
            tables, shown = await asyncio.to_thread(work)
        except ConfigError as error:
            raise unreadable(error) from None
        return await render(request, "spend.html", tables=tables, shown=shown)

    async def month(request: web.Request) -> web.StreamResponse:
        name, lines = await asyncio.to_thread(_month_lines, books, request.query.get("month", ""))
        return web.Response(
            body=lines.encode(), content_type="text/csv", charset="utf-8", headers=_download(name)
        )

    async def focus(request: web.Request) -> web.StreamResponse:
        span = _month(request.query.get("month", ""))
        with tempfile.TemporaryFile("w+b") as file:
            async with exporting:  # each reads the whole month's ledger; sending waits for the browser alone
                try:
                    await asyncio.to_thread(_write_focus, books, span, file)
                except ConfigError as error:
                    raise unreadable(error) from None
            name = f"focus-{request.query['month']}-as-of-{_stamp(books.now())}.csv"
            response = web.StreamResponse(
                headers=_download(name) | {"content-type": "text/csv; charset=utf-8"}
            )
            await response.prepare(request)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await response.write(chunk)
            await response.write_eof()
            return response

    return [
        Screen(path="/spend", title="Spend", respond=show),
        Screen(path="/spend/month.csv", respond=month),
        Screen(path="/spend/focus.csv", respond=focus),
    ]


def _month(name: str) -> tuple[int, int]:
    try:
        return month_bounds(name)
    except ValueError as error:
        raise AdminError(400, f"{error}.") from None


def _month_lines(books: Books, month: str) -> tuple[str, str]:
    """Name and text of the month's totals; blocks."""
    start_ms, end_ms = _month(month)
    state = readable(books)
    totals = books.book.totals(EXPORTED_BY, start_ms, end_ms)
    ordered = sorted(totals, key=lambda total: total.group)
    columns = list(total_row(EXPORTED_BY, Total(group=("",) * len(EXPORTED_BY))))
    text = "".join(csv_lines(columns, (total_row(EXPORTED_BY, total) for total in ordered)))
    return f"spend-{month}-as-of-{_stamp(state.as_of or 0)}.csv", text


def _write_focus(books: Books, span: tuple[int, int], file: IO[bytes]) -> None:
    def rows() -> Iterator[dict[str, str | None]]:
        for charge in books.charges(*span):
            yield from focus_rows(charge)

    for line in csv_lines(COLUMNS, rows()):
        file.write(line.encode())
    file.seek(0)


def _download(name: str) -> dict[str, str]:
    return {**HEADERS, "content-disposition": f'attachment; filename="{name}"'}


def _stamp(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}"
