"""Questions to the ledger, read-only: totals by any dimension, what misses cost by cause.

A file may be read beside its writer, and one of an older schema as it is: what it does not have counts as
nothing. Sums are exact integers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.core.errors import ConfigError
from gateway.core.ledger import SUMMED, Dimension, Loss, Total

_GROUPS = {
    Dimension.ORGANISATION: "COALESCE(organisation, '-')",
    Dimension.WORKSPACE: "COALESCE(workspace, '-')",
    Dimension.KEY: "COALESCE(key_id, '-')",
    Dimension.MODEL: "COALESCE(model, '-')",
    Dimension.ENDPOINT: "endpoint",
    Dimension.DAY: "strftime('%Y-%m-%d', received_at_ms / 1000, 'unixepoch')",
    Dimension.COHORT: "COALESCE(cohort, '-')",
    Dimension.MONTH: "strftime('%Y-%m', received_at_ms / 1000, 'unixepoch')",
}

_INPUT = "(uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd)"
_COST = f"({_INPUT} + output_nanousd + server_tools_nanousd)"

_SUMS = {
    "requests": "COUNT(*)",
    "refused": "SUM(state = 'refused')",
    "failed": "SUM(state IN ('failed', 'cut_by_client', 'cut_by_upstream', 'cut_by_gateway'))",
    "guessed_nanousd": f"SUM({_COST} * (basis IN ('partial', 'estimated')))",
    "fallback_nanousd": f"SUM({_COST} * price_fallback)",
    "shadow_nanousd": "COALESCE(SUM(shadow_nanousd), 0)",
    "shadow_paid_nanousd": f"SUM({_INPUT} * (shadow_nanousd IS NOT NULL))",
}

CAUSES_SINCE = 2
_SINCE: dict[str, int] = dict.fromkeys(
    (Dimension.COHORT, "miss_nanousd", "held_saved_nanousd", "shadow_nanousd", "shadow_paid_nanousd"),
    CAUSES_SINCE,
)
"""The schema from which on there are such columns."""

_BETWEEN = "WHERE received_at_ms >= ? AND received_at_ms < ?"


def read_totals(path: Path, by: Sequence[Dimension], *, start_ms: int, end_ms: int) -> tuple[Total, ...]:
    """Totals of the entries received from `start_ms` up to but not including `end_ms`, by group.

    Raises `ConfigError` where the file is missing or is no ledger.
    """
    with _reading(path) as (connection, version):
        groups = _groups(by, version)
        sums = [f"CAST({_sum(name, version)} AS INTEGER)" for name in SUMMED]
        rows = connection.execute(
            f"SELECT {', '.join([*groups, *sums])} FROM entries {_BETWEEN} {_grouped(groups)}",  # noqa: S608
            (start_ms, end_ms),
        ).fetchall()
    return tuple(
        Total(group=tuple(row[: len(by)]), **dict(zip(SUMMED, row[len(by) :], strict=True)))
        for row in rows
        if row[len(by)]  # without groups there is a row even where nothing was found
    )


def read_losses(path: Path, by: Sequence[Dimension], *, start_ms: int, end_ms: int) -> tuple[Loss, ...]:
    """What misses cost in the same span of time, by group and cause. Raises as `read_totals`."""
    with _reading(path) as (connection, version):
        if version < CAUSES_SINCE:
            return ()
        groups = [*_groups(by, version), "miss_cause"]
        among = f"FROM entries {_BETWEEN} AND miss_cause IS NOT NULL {_grouped(groups)}"
        sums = "COUNT(*), SUM(miss_tokens), SUM(miss_nanousd), MIN(received_at_ms), MAX(received_at_ms)"
        rows = connection.execute(
            f"SELECT {', '.join(groups)}, {sums} {among}",
            (start_ms, end_ms),
        ).fetchall()
        # With one MAX and nothing else, SQLite takes the bare column from the row that has the maximum.
        dearest = {
            tuple(row[: len(groups)]): (row[-1] or "", row[-2])
            for row in connection.execute(
                f"SELECT {', '.join(groups)}, MAX(miss_nanousd), miss_detail {among}",
                (start_ms, end_ms),
            )
        }
    return tuple(
        Loss(
            group=tuple(row[: len(by)]),
            cause=row[len(by)],
            calls=row[-5],
            tokens=row[-4],
            nanousd=row[-3],
            first_ms=row[-2],
            last_ms=row[-1],
            detail=dearest[tuple(row[: len(groups)])][0],
            detail_nanousd=dearest[tuple(row[: len(groups)])][1],
        )
        for row in rows
    )


@contextmanager
def _reading(path: Path) -> Iterator[tuple[sqlite3.Connection, int]]:
    """The file and its schema, in one state throughout: a writer may be adding to it."""
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            yield connection, version
    except sqlite3.Error as error:
        raise ConfigError(f"The ledger {path} cannot be read: {error}.") from error


def _groups(by: Sequence[Dimension], version: int) -> list[str]:
    return ["'-'" if version < _SINCE.get(dimension, 0) else _GROUPS[dimension] for dimension in by]


def _sum(name: str, version: int) -> str:
    return "0" if version < _SINCE.get(name, 0) else _SUMS.get(name, f"SUM({name})")


def _grouped(groups: Sequence[str]) -> str:
    """By number: a group may be a constant, which GROUP BY would take for a column's number or name."""
    return f"GROUP BY {', '.join(str(n + 1) for n in range(len(groups)))}" if groups else ""
