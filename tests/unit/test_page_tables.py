"""Tables of the page: order, pages and links by the URL; the CSV is exact and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
from zoneinfo import ZoneInfo

import pytest

from gateway.web.admin_api import AdminError
from gateway.web.page import showing, tables
from gateway.web.page.tables import Cell, Column, Table, View, as_csv, drawn

BERLIN = ZoneInfo("Europe/Berlin")
COLUMNS = (Column("name", "Name"), Column("spent", "Spent", number=True), Column("act", "", sortable=False))


def a_table(*rows: tuple[str, int | None], **changes: object) -> Table:
    built = [(name, tables.money(spent), Cell(text="Act", href="/x")) for name, spent in rows]
    return Table(caption="Spend", columns=COLUMNS, rows=built, **changes)  # type: ignore[arg-type]


def names(table: Table, query: dict[str, str]) -> list[str]:
    return [row[0].text for row in drawn(table, View("/page/spend", query)).rows]


def test_sorts_numbers_as_numbers_with_the_unknown_last_and_texts_without_case() -> None:
    table = a_table(("b", 900), ("A", 10_000), ("c", None))

    assert names(table, {"table.sort": "-spent"}) == ["A", "b", "c"]
    assert names(table, {"table.sort": "name"}) == ["A", "b", "c"]
    assert names(table, {"table.sort": "-name"}) == ["c", "b", "A"]
    assert names(table, {}) == ["b", "A", "c"]


def test_a_header_sorts_numbers_by_the_largest_first_and_then_turns_round() -> None:
    table = a_table(("b", 900), sort="name")
    first = drawn(table, View("/p", {"workspace": "a&b", "table.page": "1"}))
    _, spent, act = first.headers

    assert first.headers[0].order == "ascending"
    assert first.headers[0].href == "/p?workspace=a%26b&table.sort=-name"
    assert spent.href == "/p?workspace=a%26b&table.sort=-spent"
    assert act.href == ""
    again = drawn(table, View("/p", {"table.sort": "-spent"}))
    assert again.headers[1].order == "descending"
    assert again.headers[1].href == "/p?table.sort=spent"


@pytest.mark.parametrize(
    "query", [{"table.sort": "nothing"}, {"table.sort": "-act"}, {"table.page": "0"}, {"table.page": "x"}]
)
def test_what_a_table_has_not_is_an_error_of_who_asks(query: dict[str, str]) -> None:
    with pytest.raises(AdminError) as error:
        drawn(a_table(("a", 1)), View("/p", query))
    assert error.value.status == 400


def test_long_tables_come_in_pages_and_are_exported_whole() -> None:
    table = a_table(*((f"{n:03d}", n) for n in range(25)), per_page=10)
    last = drawn(table, View("/p", {"table.page": "3", "q": "1"}))

    assert (last.first, len(last.rows), last.total, last.next) == (21, 5, 25, "")
    assert last.previous == "/p?table.page=2&q=1"
    assert drawn(table, View("/p", {"table.page": "2"})).previous == "/p"
    assert len(as_csv(table, {"table.page": "3"}).splitlines()) == 26
    with pytest.raises(AdminError):
        drawn(table, View("/p", {"table.page": "4"}))


def test_the_csv_has_exact_numbers_and_no_buttons() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(a_table(("a, b", 1_234_567_890_123), ("c", None)), {}))))

    assert rows == [["name", "spent"], ["a, b", "1234.567890123"], ["c", ""]]


@pytest.mark.parametrize(
    "name", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "-x", "=HYPERLINK(1)"]
)
def test_what_a_spreadsheet_would_run_is_text(name: str) -> None:
    table = Table(caption="x", columns=(Column("name", "Name"),), rows=[(name,)])
    _, row = csv.reader(io.StringIO(as_csv(table, {}), newline=""))

    assert row == [f"'{name}"]


def test_numbers_below_zero_stay_numbers() -> None:
    table = Table(caption="x", columns=(Column("n", "N"),), rows=[(tables.money(-5),), (-3,)])

    assert as_csv(table, {}).split() == ["n", "-0.000000005", "-3"]


def test_columns_for_machines_are_in_the_csv_only() -> None:
    table = Table(
        caption="x", columns=(Column("a", "A"), Column("b", "B", shown=False)), rows=[("one", "two")]
    )
    page = drawn(table, View("/p"))

    assert [header.column.key for header in page.headers] == ["a"]
    assert [[cell.text for cell in row] for row in page.rows] == [["one"]]
    assert as_csv(table, {}).split() == ["a,b", "one,two"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (showing.usd(0), "$0.00"),
        (showing.usd(1_234_567_890_000), "$1,234.57"),
        (showing.usd(12_340_000), "$0.0123"),
        (showing.usd(1_234_000), "$0.001234"),
        (showing.usd(-2_500_000_000), "−$2.50"),
        (showing.usd(None), "–"),
        (showing.percent(0.054), "5.4%"),
        (showing.percent(0.54), "54%"),
        (showing.percent(0.0), "0%"),
        (showing.short_count(999), "999"),
        (showing.short_count(12_345), "12.3k"),
        (showing.short_count(4_560_000), "4.56M"),
        (showing.count(1_234_567), "1,234,567"),
        (showing.seconds(0.85), "850 ms"),
        (showing.seconds(1.24), "1.2 s"),
        (showing.seconds(125), "2 min 5 s"),
        (showing.seconds(59.96), "60.0 s"),
        (showing.seconds(12_000), "3 h 20 min"),
        (showing.seconds(3 * 86_400), "3 d"),
        (showing.when(1_780_272_000, BERLIN), "2026-06-01 02:00:00"),
        (showing.day(1_780_264_800, BERLIN), "2026-06-01"),
        (showing.iso(1_780_272_000, BERLIN), "2026-06-01T02:00:00+02:00"),
        (showing.when(None, BERLIN), "–"),
    ],
)
def test_numbers_and_instants_are_written_one_way(shown: str, expected: str) -> None:
    assert shown == expected
