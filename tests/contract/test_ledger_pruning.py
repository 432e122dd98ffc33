"""Leaving old entries behind: what remains is whole, can be verified, and is written on."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_prune import prune
from gateway.adapters.ledger_queries import read_totals
from gateway.adapters.ledger_source import reading
from gateway.adapters.ledger_verify import verify
from gateway.adapters.postgres_ledger_schema import prune_months
from gateway.core.chain import ChainKey
from gateway.core.chain_walk import Tampering
from gateway.core.errors import ConfigError
from gateway.core.ledger import Dimension
from tests.support.ledgers import ALWAYS, KEY, NOVEMBER, Books, some_records
from tests.support.records import a_record

DAY = 86_400.0
KEYS = [ChainKey(KEY)]


def _prune(books: Books, before: float) -> None:
    if books.shared is not None:
        prune_months(books.shared, KEYS, before_ms=round(before * 1000))
    else:
        prune(books.outbox(), KEYS, before_ms=round(before * 1000), why="pruned")


def test_what_is_left_after_pruning_is_sound_and_goes_on(books: Books) -> None:
    # Calls are booked when they end: those of two months stand among each other at the turn of the month.
    october, november = some_records(6, "o", NOVEMBER - DAY), some_records(6, "n")
    books.hold([*october[:4], november[0], october[4], november[1], october[5], *november[2:]])
    noted = verify(books.source, KEYS).heads
    before = read_totals(books.source, [Dimension.MONTH], **ALWAYS)
    _prune(books, NOVEMBER)
    after = verify(books.source, KEYS, noted=noted)

    assert after.findings == ()
    assert after.entries == 6
    assert read_totals(books.source, [Dimension.MONTH], **ALWAYS) == tuple(
        total for total in before if total.group == ("2026-11",)
    )
    books.hold(some_records(3, "later"))
    _prune(books, NOVEMBER)  # nothing more to do
    assert verify(books.source, KEYS, noted=noted).entries == 9
    books.tamper("DELETE FROM entries WHERE id = 'n2'")
    assert [f.kind for f in verify(books.source, KEYS).findings] == [Tampering.REMOVED]


def test_a_ledger_that_was_pruned_to_nothing_keeps_its_place(books: Books) -> None:
    books.hold(some_records(5, at=NOVEMBER - DAY))
    (head,) = verify(books.source, KEYS).heads
    _prune(books, NOVEMBER)

    assert verify(books.source, KEYS).heads == (head,)
    books.hold(some_records(2, "later"))
    if books.shared is None:  # whoever ships remembers how far it came
        with reading(books.source) as ledger:
            assert list(ledger.rows("SELECT sequence FROM entries")) == [(6,), (7,)]
    found = verify(books.source, KEYS)
    assert found.findings == ()
    assert found.heads[0].position == 7


def test_pruning_asks_for_the_keys_of_all_chains_and_changes_nothing_without(books: Books) -> None:
    books.hold(some_records(3, at=NOVEMBER - DAY), key=b"a-key-that-is-not-at-hand-here....")

    with pytest.raises(ConfigError, match="key is not at hand"):
        _prune(books, NOVEMBER)
    (total,) = read_totals(books.source, [], **ALWAYS)
    assert total.requests == 3


def test_pruning_leaves_what_is_still_to_be_shipped(tmp_path: Path) -> None:
    books = Books(tmp_path, None)
    books.hold(some_records(5, at=NOVEMBER - DAY))

    assert prune(books.outbox(), KEYS, before_ms=round(NOVEMBER * 1000), why="pruned", up_to=3) == 3
    with reading(books.outbox()) as ledger:
        assert [row[0] for row in ledger.rows("SELECT id FROM entries ORDER BY sequence")] == ["e4", "e5"]


def test_a_writer_goes_on_over_a_pruning(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    ledger = Ledger(path, key=KEY, linger_seconds=0.0)
    for record in some_records(300, at=NOVEMBER - DAY):
        ledger.observe(record)
    stopped = threading.Event()

    def observe() -> None:
        n = 0
        while not stopped.is_set():
            ledger.observe(a_record(id=f"w{n}", received_at=NOVEMBER))
            n += 1
            stopped.wait(0.001)

    thread = threading.Thread(target=observe)
    thread.start()
    while prune(path, KEYS, before_ms=round(NOVEMBER * 1000), why="pruned") == 0:
        pass
    stopped.set()
    thread.join()
    assert ledger.close() == 0
    prune(path, KEYS, before_ms=round(NOVEMBER * 1000), why="pruned again")

    found = verify(path, KEYS)
    assert found.findings == ()
    assert found.heads[0].position == ledger.status().stored
    books = Books(tmp_path, None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        books.execute("DELETE FROM entries")
