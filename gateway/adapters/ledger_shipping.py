"""From a replica's own ledger to the one that several share: in order, in batches, each entry once.

The file of the state directory is the outbox. What was shipped is not written down here: on each connection
the shared ledger is asked how far this file's chain goes there. So nothing can be marked as shipped that is
not there, and what the shared ledger lost (a restored backup) is shipped anew.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.adapters.ledger import Ledger, LedgerStatus, ShippingStatus
from gateway.adapters.ledger_rows import CHAINED, leave_chains, read_anchors
from gateway.core.chain import GENESIS, Anchor, ChainKey, Head
from gateway.core.entry import Entry
from gateway.core.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord

log = logging.getLogger(__name__)

BATCH = 1_000
FIRST_RETRY_SECONDS = 0.25
MAX_RETRY_SECONDS = 30.0
LOOK_SECONDS = 1.0
"""How often the outbox is looked into where nobody says that something was added: others write to it too."""
_READ = (
    f"SELECT {', '.join((*Entry._fields, *CHAINED))}, sequence FROM entries "  # noqa: S608 - our own names
    "WHERE sequence > ? ORDER BY sequence LIMIT ?"
)
_CHAIN = len(Entry._fields) + CHAINED.index("chain")
_RECEIVED = Entry._fields.index("received_at_ms")


class Refused(Exception):
    """A row that the shared ledger does not take, whatever happens."""


class SharedLedger(Protocol):
    """Where entries are shipped to. Its methods raise `StoreUnavailable`, within a bound of its own."""

    def reached(self, chain: str) -> Head | None:
        """How far a chain goes there, pruned entries included; None where nothing of it is there."""
        ...

    def add_anchors(self, anchors: Sequence[Anchor]) -> None:
        """Those that are not there yet."""
        ...

    def add(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Add entries with their links, all or none, ids that are there already left alone; how many were
        new. Raises `Refused`."""
        ...

    def close(self) -> None: ...


class Shipper:
    """Ships from a thread of its own, from construction on, for as long as it takes."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], SharedLedger],
        now: Callable[[], float],
        *,
        key: ChainKey,
        wake: threading.Event,
    ) -> None:
        """`connect` may raise `StoreUnavailable`. `now` is the wall clock, in seconds. `key` is that of the
        outbox's writer; `wake` is set when something was added."""
        self._key = key
        self._path = path
        self._connect = connect
        self._now = now
        self._wake = wake
        self._closing = threading.Event()
        self._status = ShippingStatus(backlog=0, oldest_at=now(), shipped=0, refused=0, failures=0)
        self._trouble = False
        self._at: int | None = None
        """The last sequence that is known to be there."""
        self._thread = threading.Thread(target=self._run, name="ledger shipping", daemon=True)
        self._thread.start()

    def status(self) -> ShippingStatus:
        return self._status

    def close(self, timeout_seconds: float) -> None:
        """Ship what there is, for at most so long, if the shared ledger answers; the rest stays in the outbox
        for the next start. Blocks."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                with closing(self._connect()) as shared, closing(_open(self._path)) as outbox:
                    self._at = self._resume(outbox, shared)
                    pause = FIRST_RETRY_SECONDS
                    self._ship_all(outbox, shared)
                    return
            except (StoreUnavailable, sqlite3.Error) as error:
                self._note(failures=self._status.failures + 1)
                if not self._trouble:  # once an outage
                    log.warning("entries wait in the outbox, the shared ledger does not take them: %s", error)
                self._trouble = True
            except Exception:  # nothing may end this thread while entries wait
                self._note(failures=self._status.failures + 1)
                log.exception("shipping the ledger failed")
            self._look_again()
            if self._closing.wait(pause):
                return
            pause = min(pause * 2, MAX_RETRY_SECONDS)

    def _resume(self, outbox: sqlite3.Connection, shared: SharedLedger) -> int:
        """Where to go on."""
        at, forked = _compare(outbox, shared)
        if forked:
            with closing(sqlite3.connect(self._path, timeout=5, isolation_level=None)) as writing:
                if leave_chains(writing, self._key, forked):
                    log.error(
                        "this ledger is a copy, or was restored from one: the shared ledger has other "
                        "entries of its chain. It goes on in a new one; see `gateway ledger verify`"
                    )
        return at

    def _ship_all(self, outbox: sqlite3.Connection, shared: SharedLedger) -> None:
        """Until closed, and then until there is nothing left."""
        begun: set[str | None] = set()
        while True:
            self._wake.clear()
            if rows := self._look(outbox, BATCH):
                if not {row[_CHAIN] for row in rows} <= begun:
                    # Only how chains begin: what was pruned here is still there.
                    anchors = [anchor for anchor in read_anchors(outbox) if anchor.why == GENESIS]
                    shared.add_anchors(anchors)
                    begun |= {None, *(anchor.chain for anchor in anchors)}
                self._add(shared, [row[:-1] for row in rows])
                self._at = rows[-1][-1]
                continue
            if self._trouble:
                log.warning("the shared ledger takes entries again, and has them all")
                self._trouble = False
            if self._closing.is_set():
                return
            self._wake.wait(LOOK_SECONDS)

    def _add(self, shared: SharedLedger, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            shared.add(rows)
            self._note(shipped=self._status.shipped + len(rows))
        except Refused:
            for row in rows:  # one of them must not keep the others waiting for ever
                self._add_alone(shared, row)

    def _add_alone(self, shared: SharedLedger, row: tuple[Any, ...]) -> None:
        try:
            shared.add([row])
            self._note(shipped=self._status.shipped + 1)
        except Refused as error:
            self._note(refused=self._status.refused + 1)
            log.critical(
                "the shared ledger refuses entry %s, which stays in the outbox only: %s", row[0], error
            )

    def _look(self, outbox: sqlite3.Connection, limit: int) -> list[tuple[Any, ...]]:
        """The next rows, and how many there are."""
        rows = outbox.execute(_READ, (self._at, limit)).fetchall()
        (last,) = outbox.execute("SELECT MAX(sequence) FROM entries").fetchone()
        backlog = last - self._at if rows and self._at is not None else 0
        self._note(backlog=backlog, oldest_at=rows[0][_RECEIVED] / 1000 if rows else None)
        return rows

    def _look_again(self) -> None:
        """In an outage the backlog grows, and should be seen to."""
        if self._at is not None:
            with contextlib.suppress(sqlite3.Error), closing(_open(self._path)) as outbox:
                self._look(outbox, 1)

    def _note(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)


class ShippedLedger:
    """`ports.Observer`: a ledger whose entries are shipped."""

    def __init__(self, ledger: Ledger, shipper: Shipper) -> None:
        self._ledger = ledger
        self._shipper = shipper

    def observe(self, record: ExchangeRecord) -> None:
        """As `Ledger.observe`: the shared ledger is never waited for."""
        self._ledger.observe(record)

    async def written(self) -> None:
        """As `Ledger.written`: committed here; the shared ledger has it when it has it."""
        await self._ledger.written()

    def shipping(self) -> ShippingStatus:
        """How shipping stands."""
        return self._shipper.status()

    def status(self) -> LedgerStatus:
        return replace(self._ledger.status(), shipping=self._shipper.status())

    def close(self, timeout_seconds: float = 5.0) -> int:
        """As `Ledger.close`; ships what it can within the same time again."""
        left = self._ledger.close(timeout_seconds)
        self._shipper.close(timeout_seconds)
        return left


def shipped_up_to(path: Path, shared: SharedLedger) -> int:
    """The last sequence of the outbox that the shared ledger has. Raises `StoreUnavailable` and
    `sqlite3.Error`."""
    with closing(_open(path)) as outbox:
        return _compare(outbox, shared)[0]


def _compare(outbox: sqlite3.Connection, shared: SharedLedger) -> tuple[int, set[str]]:
    """The last sequence that is there, and the chains that went on differently there: this file is a copy, or
    was restored from one. One batch is one commit, in the order of sequences: all before the newest that is
    there, is."""
    newest, forked = 0, set()
    chains = outbox.execute("SELECT chain, MAX(last) FROM anchors GROUP BY chain").fetchall()
    for chain, anchored in chains:
        there = shared.reached(chain)
        if there is None:
            continue
        (end,) = outbox.execute("SELECT MAX(position) FROM entries WHERE chain = ?", (chain,)).fetchone()
        here = outbox.execute(
            "SELECT position, digest, sequence FROM entries WHERE chain = ? AND position <= ? "
            "ORDER BY position DESC LIMIT 1",
            (chain, there.position),
        ).fetchone()
        position, digest, sequence = here or (0, b"", 0)
        differs = position == there.position and digest != there.digest
        if differs or there.position > max(end or 0, anchored):
            forked.add(chain)
        else:
            newest = max(newest, sequence)
    return newest, forked


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
