"""Several rows by one statement.

For each statement Python lets go of the interpreter's lock and asks for it again, twice or more, and while
the loop computes, who asks may wait for a millisecond each time: `executemany` does so for each row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Final

AT_ONCE: Final = 8
"""Rows that one statement writes at most."""


class RowWriter:
    """`before` ends with VALUES; `after` may say what a conflict does."""

    def __init__(self, before: str, columns: int, after: str = "") -> None:
        row = f"({', '.join('?' * columns)})"
        self._statements = tuple(
            f"{before} {', '.join([row] * number)} {after}" for number in range(1, AT_ONCE + 1)
        )

    def write(self, connection: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
        """Within the caller's transaction. Raises what `execute` does; some rows may be written then."""
        for first in range(0, len(rows), AT_ONCE):
            some = rows[first : first + AT_ONCE]
            connection.execute(self._statements[len(some) - 1], tuple(chain.from_iterable(some)))
