"""Tables of the page: columns, cells, sorting and paging by the URL, and the same rows as CSV. Pure.

How a table is drawn is `templates/parts.html`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from gateway.core.ledger import usd as exact_usd
from gateway.core.report_lines import inert
from gateway.web.admin_api import AdminError
from gateway.web.page import showing

PER_PAGE = 100
Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `key` is its name in URLs and in the first line of the CSV."""

    key: str
    title: str
    number: bool = False
    """Right-aligned; sorted with the largest first."""
    help: str = ""
    """A sentence on what it says, shown with its header."""
    sortable: bool = True
    wide: bool = False
    """For sentences."""
    shown: bool = True
    """Otherwise it is in the CSV only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of one row."""

    text: str
    """For people."""
    value: Value = None
    """To sort by; `text` where it is None."""
    exported: str | None = None
    """In the CSV; the value where it is None."""
    href: str = ""
    tone: str = ""
    """`good`, `warn`, `bad` or `quiet`."""
    note: str = ""
    """A second, smaller line."""
    title: str = ""
    """All of what text or note have in short."""
    code: bool = False
    """An id or another text for machines."""
    badge: bool = False
    share: float | None = None
    """Draws a meter of so much of 1 below the text."""
    more: float = 0.0
    """Of the meter, what is only set aside: comes on top."""
    post: str = ""
    """Draws the text as a button of a form that posts there (its fields: `fields`)."""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns. Rows may have texts and whole numbers in place of cells."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str | int]]
    name: str = "table"
    """Where a page has several: each has a name."""
    sort: str = ""
    """The key of the column that it is sorted by unless the URL says otherwise, with a `-` in front for
    descending; as the rows come where it is empty."""
    empty: str = "There is nothing to show."
    exported: bool = True
    """Whether it can be had as CSV."""
    per_page: int = PER_PAGE


def text(value: str, **more: object) -> Cell:
    return Cell(text=value or showing.NOTHING, value=value, **more)  # type: ignore[arg-type]


def link(value: str, href: str, *, note: str = "", code: bool = False) -> Cell:
    return Cell(text=value or showing.NOTHING, value=value, href=href, note=note, code=code)


def badge(value: str, tone: str = "", *, note: str = "") -> Cell:
    return Cell(text=value, value=value, tone=tone, badge=True, note=note)


def money(nanousd: int | None, *, tone: str = "", note: str = "") -> Cell:
    """Dollars; all nine decimals in the CSV."""
    return Cell(
        text=showing.usd(nanousd),
        value=_least(nanousd),
        exported="" if nanousd is None else exact_usd(nanousd),
        tone=tone,
        note=note,
    )


def number(value: int | None, *, tone: str = "", note: str = "") -> Cell:
    exported = "" if value is None else str(value)
    return Cell(text=showing.count(value), value=_least(value), exported=exported, tone=tone, note=note)


def share(value: float | None, *, tone: str = "", note: str = "") -> Cell:
    """A share of 1, in percent; as a decimal in the CSV."""
    exported = "" if value is None else f"{value:.6f}"
    return Cell(text=showing.percent(value), value=_least(value), exported=exported, tone=tone, note=note)


def duration(seconds: float | None, *, note: str = "") -> Cell:
    exported = "" if seconds is None else f"{seconds:.3f}"
    return Cell(text=showing.seconds(seconds), value=_least(seconds), exported=exported, note=note)


def instant(at: float | None, zone: ZoneInfo, *, note: str = "", tone: str = "") -> Cell:
    """In the page's time zone; with its offset in the CSV."""
    exported = showing.iso(at, zone)
    return Cell(text=showing.when(at, zone), value=_least(at), exported=exported, note=note, tone=tone)


def _least(value: float | None) -> float:
    """What is not known comes last where the largest comes first."""
    return float("-inf") if value is None else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A column's header as it is drawn."""

    column: Column
    order: str
    """`ascending`, `descending`, or `none`: as aria-sort has it."""
    href: str
    """Sorts by it; the other way round where it is sorted by it already. Empty where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A table as one page of it is drawn."""

    name: str
    caption: str
    empty: str
    headers: Sequence[Header]
    rows: Sequence[Sequence[Cell]]
    total: int
    first: int
    """Number of the first row that is shown, from 1."""
    previous: str
    next: str
    """Links to other pages of it; empty where there are none."""
    csv: str
    """Link to all of it as CSV; empty where there is none."""


@dataclass(frozen=True, slots=True)
class View:
    """What a URL asks of a table: its path and query."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)

    def with_query(self, **changes: str | None) -> str:
        """The same URL with other parameters; None takes one out."""
        kept = {**self.query, **changes}
        told = urlencode({name: value for name, value in kept.items() if value is not None and value != ""})
        return f"{self.path}?{told}" if told else self.path


def drawn(table: Table, view: View) -> Drawn:
    """One page of it, sorted as the URL says. Raises `AdminError` for a column or page that is not there."""
    sort_name, page_name = f"{table.name}.sort", f"{table.name}.page"
    sort = view.query.get(sort_name, table.sort)
    rows = _sorted(table, sort)
    page = _page(view.query.get(page_name, "1"))
    start = (page - 1) * table.per_page
    if page > 1 and start >= len(rows):
        raise AdminError(404, "The table has fewer pages than that.")

    shown = [place for place, column in enumerate(table.columns) if column.shown]

    def page_link(number: int) -> str:
        return view.with_query(**{page_name: None if number == 1 else str(number)})

    return Drawn(
        name=table.name,
        caption=table.caption,
        empty=table.empty,
        headers=[_header(table.columns[place], sort, sort_name, page_name, view) for place in shown],
        rows=[[row[place] for place in shown] for row in rows[start : start + table.per_page]],
        total=len(rows),
        first=start + 1,
        previous=page_link(page - 1) if page > 1 else "",
        next=page_link(page + 1) if start + table.per_page < len(rows) else "",
        csv=view.with_query(format="csv", table=table.name) if table.exported and rows else "",
    )


def as_csv(table: Table, query: Mapping[str, str]) -> str:
    """All rows, sorted as the URL says. A text that a spreadsheet would take for a formula has a ' in
    front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    told = [place for place, column in enumerate(table.columns) if column.title]  # others are buttons
    writer.writerow([table.columns[place].key for place in told])
    for row in _sorted(table, query.get(f"{table.name}.sort", table.sort)):
        writer.writerow([_exported(row[place]) for place in told])
    return out.getvalue()


def _exported(cell: Cell) -> str:
    told = cell.exported
    if told is None:
        told = cell.text if cell.value is None else str(cell.value)
    return inert(told)


def _cell(value: Cell | str | int) -> Cell:
    if isinstance(value, Cell):
        return value
    return text(value) if isinstance(value, str) else number(value)


def _sorted(table: Table, sort: str) -> list[list[Cell]]:
    rows = [[_cell(value) for value in row] for row in table.rows]
    key = sort.removeprefix("-")
    if not key:
        return rows
    places = [place for place, column in enumerate(table.columns) if column.key == key and column.sortable]
    if not places:
        known = ", ".join(column.key for column in table.columns if column.sortable)
        raise AdminError(400, f"The table has no column {key[:40]!r} to sort by; it has: {known}.")
    place = places[0]

    def order(row: Sequence[Cell]) -> tuple[bool, float, str]:
        value = row[place].text if row[place].value is None else row[place].value
        if isinstance(value, str):
            return True, 0.0, value.casefold()
        assert value is not None
        return False, float(value), ""

    return sorted(rows, key=order, reverse=sort.startswith("-"))


def _header(column: Column, sort: str, sort_name: str, page_name: str, view: View) -> Header:
    order = "none"
    if sort.removeprefix("-") == column.key:
        order = "descending" if sort.startswith("-") else "ascending"
    down = f"-{column.key}"
    wanted = down if (order == "none" and column.number) or order == "ascending" else column.key
    href = view.with_query(**{sort_name: wanted, page_name: None}) if column.sortable else ""
    return Header(column=column, order=order, href=href)


def _page(asked: str) -> int:
    if not asked.isascii() or not asked.isdigit() or not 1 <= len(asked) <= 6 or int(asked) < 1:
        raise AdminError(400, "The number of a page is a whole number from 1.")
    return int(asked)
