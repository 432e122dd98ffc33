"""Lines of reports for machines."""

from __future__ import annotations

import csv
import io

from gateway.core.ledger import Dimension, Total
from gateway.core.report_lines import csv_lines, total_row


def test_lines_are_csv_with_a_header_even_without_rows() -> None:
    assert list(csv_lines(["a", "b"], [])) == ["a,b\r\n"]
    lines = list(csv_lines(["a", "b"], [{"a": 'with "quotes", and\nlines', "b": 1}, {"a": None, "b": -2.5}]))

    assert list(csv.reader(io.StringIO("".join(lines)))) == [
        ["a", "b"],
        ['with "quotes", and\nlines', "1"],
        ["", "-2.5"],
    ]


def test_what_a_spreadsheet_would_reckon_is_text() -> None:
    (_, line) = csv_lines(["a", "b"], [{"a": "=1+1", "b": "-4.20"}])

    assert line == "'=1+1,-4.20\r\n"


def test_the_row_of_a_total_has_exact_dollars_and_its_group_first() -> None:
    row = total_row([Dimension.WORKSPACE], Total(group=("search",), requests=2, output_nanousd=1))

    assert list(row)[:2] == ["workspace", "requests"]
    assert (row["workspace"], row["cost_usd"], row["cache_read_ratio"]) == ("search", "0.000000001", None)
