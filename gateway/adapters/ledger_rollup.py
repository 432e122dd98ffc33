"""Hourly sums of the ledger in a file of their own, so that a page over a year comes at once.

The file is derived: delete it, and it is made again from what the ledger has. It is brought up to date by how
far it has come (the sequence of a local ledger, the position in each chain of a shared one), in steps of one
transaction each: sums and how far they reach are written together, so that dying in between loses nothing and
counts nothing twice. Entries that come late belong to the hour in which they were received, as everywhere.

What is pruned from the ledger stays in the sums, and its months are marked. A ledger that is another one, or
has less than was summed, is summed anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from gateway.adapters.ledger_rollup_file import LOSSES, SUMS, forget, months, open_sums, question, take_in
from gateway.adapters.ledger_source import LedgerSource, Reading, reading
from gateway.core.errors import ConfigError
from gateway.core.ledger import SUMMED, Dimension, Loss, Total, add_up, add_up_losses, month_bounds
from gateway.core.rollup import EVERYTHING, Only, RollupState

log = logging.getLogger(__name__)

STEP = 50_000
"""Entries that one transaction takes in: some tenths of a second."""
RETRY_SECONDS = 10.0
"""A ledger that does not answer is not asked again by each page that is looked at."""
UNCHAINED = ""
"""How far entries without a chain reach: the sequence of a local ledger; of a shared one, their number."""


class LedgerRollup:
    """`core.rollup.SpendBook` over one ledger. `update` is for one thread at a time; the questions are for
    any."""

    def __init__(
        self, source: LedgerSource, path: Path, now: Callable[[], float], *, step: int = STEP
    ) -> None:
        """`path` is the file of the sums; made, with its folder, at the first update. `now` is the wall
        clock, in seconds. `step` is how many entries one transaction takes in."""
        self._step_entries = step
        self._source = source
        self._path = path
        self._now = now
        self._state = RollupState()
        self._updating = threading.Lock()
        self._tried_at = 0.0

    def state(self) -> RollupState:
        return self._state

    def update(self) -> RollupState:
        """Take in what the ledger has and the sums have not. Blocks: for milliseconds where there is little,
        else some five seconds of CPU per million entries. Raises nothing: what went wrong is in the state,
        and the next update goes on from where this one came to."""
        with self._updating:
            while self._try_step() is not None:
                pass
            return self._state

    def refresh(self) -> RollupState:
        """As `update`, but one step at most, and none where another thread updates: for who waits for a
        page. Where there is more to take in, the sums are as they were complete last."""
        if self._updating.acquire(blocking=False):
            try:
                if not (self._state.trouble and self._now() < self._tried_at + RETRY_SECONDS):
                    self._try_step()
            finally:
                self._updating.release()
        return self._state

    def _try_step(self) -> int | None:
        """How many entries are left; None where there are none, or it failed."""
        at = self._tried_at = self._now()
        try:
            with closing(open_sums(self._path)) as sums:
                waiting = self._step(sums)
                self._state = self._told(sums, self._state.as_of if waiting else at, waiting)
            return waiting or None
        except (sqlite3.Error, ConfigError, OSError) as error:
            if not self._state.trouble:
                log.warning("the sums of the ledger are not up to date: %s", error)
            self._state = replace(self._state, trouble=str(error))
            return None

    def totals(
        self, by: Sequence[Dimension], start_ms: int, end_ms: int, only: Only = EVERYTHING
    ) -> tuple[Total, ...]:
        asked = question(
            SUMS, by, ", ".join(f"SUM({name})" for name in SUMMED), (start_ms, end_ms), [*only.items()]
        )
        with self._reading() as file:
            rows = file.execute(*asked).fetchall()
        return add_up(
            Total(group=tuple(row[: len(by)]), **dict(zip(SUMMED, row[len(by) :], strict=True)))
            for row in rows
            if any(row[len(by) :])  # without groups there is a row even where nothing was found
        )

    def losses(
        self, by: Sequence[Dimension], start_ms: int, end_ms: int, only: Only = EVERYTHING
    ) -> tuple[Loss, ...]:
        # Beside a single MAX, SQLite takes other columns from the row that has it (documented so).
        sums, dearest = (
            question(LOSSES, by, columns, (start_ms, end_ms), [*only.items()], more=("cause",))
            for columns in (
                "SUM(calls), SUM(tokens), SUM(nanousd), MIN(first_ms), MAX(last_ms)",
                "detail, MAX(detail_nanousd)",
            )
        )
        with self._reading() as file:
            file.execute("BEGIN")
            rows = file.execute(*sums).fetchall()
            told = {row[:-2]: row[-2:] for row in file.execute(*dearest).fetchall()}
        return add_up_losses(
            Loss(
                group=tuple(row[: len(by)]),
                cause=row[len(by)],
                calls=row[-5],
                tokens=row[-4],
                nanousd=row[-3],
                first_ms=row[-2],
                last_ms=row[-1],
                detail=told[row[:-5]][0],
                detail_nanousd=told[row[:-5]][1],
            )
            for row in rows
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(open_sums(self._path)) as file:
                yield file
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"The sums of the ledger cannot be read: {error}.") from error

    def _step(self, sums: sqlite3.Connection) -> int:
        """Take in some entries; how many at most are left. 0: the sums have all that there is."""
        sums.execute("BEGIN IMMEDIATE")  # first: who else updates this file waits, and goes on from here
        try:
            with reading(self._source) as ledger:
                there = _ends(ledger)
                if _is_another(sums, ledger, there):
                    log.warning("the ledger is not the one that was summed, or has less: it is summed anew")
                    forget(sums)
                left = 0
                for part in there:
                    left += _advance(sums, ledger, part, there[part], self._step_entries)
                if not left:
                    _mark_pruned(sums, ledger)
            sums.execute("COMMIT")
        except BaseException:
            if sums.in_transaction:
                sums.execute("ROLLBACK")
            raise
        return left

    def _told(self, sums: sqlite3.Connection, as_of: float | None, waiting: int) -> RollupState:
        (entries,) = sums.execute("SELECT COALESCE(SUM(entries), 0) FROM reached").fetchone()
        pruned = sums.execute("SELECT month FROM pruned").fetchall()
        return RollupState(
            as_of=as_of,
            entries=entries,
            waiting=waiting,
            pruned_months=frozenset(month for (month,) in pruned),
        )


CHAINS_SINCE = 3
"""The schema from which on there are anchors."""


def _ends(ledger: Reading) -> dict[str, int]:
    """How far each part of the ledger goes, pruned entries included where that is known."""
    if not ledger.postgres:
        rows = list(ledger.rows("SELECT seq FROM sqlite_sequence WHERE name = 'entries'"))
        return {UNCHAINED: rows[0][0] if rows else 0}
    chains = [chain for (chain,) in ledger.rows("SELECT DISTINCT chain FROM anchors")]
    ends = {
        chain: _number(
            ledger,
            "SELECT GREATEST((SELECT MAX(position) FROM entries WHERE chain = ?), "
            "(SELECT MAX(last) FROM anchors WHERE chain = ?), 0)",
            chain,
            chain,
        )
        for chain in chains
    }
    return ends | {UNCHAINED: _number(ledger, "SELECT COUNT(*) FROM entries WHERE chain IS NULL")}


def _is_another(sums: sqlite3.Connection, ledger: Reading, there: dict[str, int]) -> bool:
    """Whether what was summed is not what is there, or the beginning of it. Of a shared ledger that has
    entries without a chain nobody knows which of them are new."""
    parts = sums.execute("SELECT part, at, last_sequence, last_id FROM reached").fetchall()
    for part, at, sequence, entry_id in parts:
        end = there.get(part, -1)
        if ledger.postgres and part == UNCHAINED:
            if end > at > 0:
                return True
            continue
        if end < at:
            return True
        if sequence is not None:
            rows = list(ledger.rows("SELECT id FROM entries WHERE sequence = ?", (sequence,)))
            if rows and rows[0][0] != entry_id:
                return True
    return False


def _advance(sums: sqlite3.Connection, ledger: Reading, part: str, end: int, step: int) -> int:
    """Take in what comes next of one part; how much of it is left."""
    found = sums.execute("SELECT at FROM reached WHERE part = ?", (part,)).fetchone()
    at = found[0] if found else 0
    if end == at:
        return 0
    to, count = min(end, at + step), 0
    if not ledger.postgres:
        count = take_in(sums, ledger, "sequence > ? AND sequence <= ?", (at, to))
    elif part != UNCHAINED:
        count = take_in(sums, ledger, "chain = ? AND position > ? AND position <= ?", (part, at, to))
    else:
        to = end
        if at == 0:
            count = take_in(sums, ledger, "chain IS NULL", ())
    last: tuple[int | None, str | None] = (None, None)
    if not ledger.postgres:
        asked = "SELECT sequence, id FROM entries WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1"
        last = next(iter(ledger.rows(asked, (to,))), last)
    sums.execute(
        "INSERT INTO reached VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, "
        "entries = entries + excluded.entries, last_sequence = excluded.last_sequence, "
        "last_id = excluded.last_id",
        (part, to, count, *last),
    )
    return end - to


def _mark_pruned(sums: sqlite3.Connection, ledger: Reading) -> None:
    """Find the months of which the ledger has less than the sums; only where it looks as if some was pruned,
    for it counts all entries."""
    (first,) = next(iter(ledger.rows("SELECT MIN(received_at_ms) FROM entries")))
    said = f"{first}, {_anchors(ledger)}"
    before = sums.execute("SELECT said FROM seen WHERE what = 'pruning'").fetchone()
    if before == (said,):
        return
    sums.execute("DELETE FROM pruned")
    for month, count in months(sums):
        start_ms, end_ms = month_bounds(month)
        asked = "SELECT COUNT(*) FROM entries WHERE received_at_ms >= ? AND received_at_ms < ?"
        if _number(ledger, asked, start_ms, end_ms) < count:
            sums.execute("INSERT INTO pruned VALUES (?)", (month,))
    sums.execute("INSERT OR REPLACE INTO seen VALUES ('pruning', ?)", (said,))


def _anchors(ledger: Reading) -> int:
    return _number(ledger, "SELECT COUNT(*) FROM anchors") if ledger.version >= CHAINS_SINCE else 0


def _number(ledger: Reading, sql: str, *values: int | str) -> int:
    return int(next(iter(ledger.rows(sql, values)))[0])
