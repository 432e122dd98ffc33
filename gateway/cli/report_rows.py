"""The lines of `gateway report` for machines, printed: CSV and JSON. What is in them is
`core/report_lines.py`'s, tables for people are `report_tables.py`'s."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from gateway.core.report_lines import Value, csv_lines


def print_csv(
    columns: Sequence[str], rows: Iterable[Mapping[str, Value]], file: TextIO | None = None
) -> None:
    """As in RFC 4180, with a header even where there are no rows. To standard output unless said."""
    (file or sys.stdout).writelines(csv_lines(columns, rows))


def print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
