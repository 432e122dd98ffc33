"""A ledger in a file and one that replicas share say the same, and show the same tampering."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from gateway.adapters.booked import read_booked
from gateway.adapters.ledger_queries import read_losses, read_totals
from gateway.adapters.ledger_rows import CHAINED
from gateway.adapters.ledger_source import PostgresUrl, reading
from gateway.adapters.ledger_verify import verify
from gateway.adapters.postgres_ledger_schema import migrate
from gateway.core.chain import ChainKey
from gateway.core.chain_walk import Tampering
from gateway.core.entry import Entry, entry_of
from gateway.core.errors import ConfigError
from gateway.core.exchange import Basis, ExchangeRecord, State
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.ledger import Dimension
from gateway.core.misses import MissCause
from gateway.core.principal import Principal
from gateway.core.savings import Cohort, Savings
from tests.support.ledgers import ALWAYS, KEY, NOVEMBER, Books, ship, some_records
from tests.support.postgres_server import PostgresServer
from tests.support.records import a_record, a_refused_record

DAY = 86_400.0
KEYS = [ChainKey(KEY)]


def _diverse() -> list[ExchangeRecord]:
    """All that a sum distinguishes, over three months."""
    records = []
    for n in range(120):
        record = a_record(
            id=f"d{n}",
            received_at=NOVEMBER + (n - 60) * DAY / 2,
            model=["m1", 'm"2\\\u2028é', None][n % 3],
            state=[State.ANSWERED, State.CUT_BY_CLIENT, State.REFUSED][n % 3],
            basis=list(Basis)[n % len(Basis)],
            tags=(("team", "straße\n"),),
            principal=Principal(
                workspace=WorkspaceId(["search", "chat"][n % 2]), key_id=KeyId("k1"), key_name="app"
            ),
            savings=Savings(
                cohort=list(Cohort)[n % len(Cohort)],
                plain_nanousd=30_000_000,
                paid_nanousd=6_375_001,
                expected_read_tokens=8_900,
                shadow_nanousd=n * 1_000 if n % 5 == 0 else None,
                miss_cause=MissCause.EXPIRED if n % 4 == 0 else None,
                miss_tokens=n,
                miss_nanousd=2**52 + n,
            ),
        )
        records.append(record)
    records.append(a_refused_record(principal=records[0].principal, received_at=NOVEMBER))
    return records


def test_both_kinds_hold_what_was_observed_and_say_the_same_of_it(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    books = Books(tmp_path, postgres)
    records = _diverse()
    books.hold(records)

    columns = ", ".join((*Entry._fields, *CHAINED))
    for source in (books.outbox(), books.source):
        with reading(source) as ledger:
            rows = list(ledger.rows(f"SELECT {columns} FROM entries ORDER BY chain, position"))
        assert [row[:-3] for row in rows] == [tuple(entry_of(record)) for record in records]
    spans = [ALWAYS, {"start_ms": round(NOVEMBER * 1000), "end_ms": round((NOVEMBER + 30 * DAY) * 1000)}]
    for span in [*spans, {"start_ms": 0, "end_ms": 1}]:
        for by in ([], [Dimension.WORKSPACE, Dimension.MODEL], list(Dimension)):
            totals = [sorted(read_totals(s, by, **span), key=repr) for s in (books.outbox(), books.source)]
            losses = [sorted(read_losses(s, by, **span), key=repr) for s in (books.outbox(), books.source)]
            assert totals[0] == totals[1]
            assert losses[0] == losses[1]
    assert read_losses(books.source, [], **ALWAYS)[0].nanousd > 2**54
    booked = [
        read_booked(source, **ALWAYS, recent_ms=round((NOVEMBER + DAY) * 1000), model_of=str)
        for source in (books.outbox(), books.source)
    ]
    for one, other in zip(booked[0].booked, booked[1].booked, strict=True):
        assert one == other
    assert len(booked[0].booked) > 50
    assert booked[0].relayed == booked[1].relayed


def test_only_adding_is_allowed(books: Books) -> None:
    books.hold(some_records(3))
    for statement in (
        "UPDATE entries SET output_nanousd = 0",
        "DELETE FROM entries",
        "UPDATE anchors SET uncovered = 9",
        "DELETE FROM anchors",
        *(["TRUNCATE entries", "TRUNCATE entries_2026_11", "TRUNCATE anchors"] if books.shared else []),
    ):
        with pytest.raises((psycopg.Error, sqlite3.Error), match="append-only"):
            books.execute(statement)


def test_the_chains_of_several_replicas_are_sound_and_end_in_their_heads(books: Books) -> None:
    books.hold(some_records(5))
    books.hold(some_records(3, name="later"))
    if books.shared is not None:
        books.hold(some_records(4, name="other"), replica="b")
    found = verify(books.source, KEYS)

    assert found.findings == ()
    assert sorted(head.position for head in found.heads) == ([4, 8] if books.shared else [8])
    assert verify(books.source, KEYS, noted=found.heads).findings == ()


_SWAP = (
    "UPDATE entries SET position = -1 WHERE id = 'e3'",
    "UPDATE entries SET position = 3 WHERE id = 'e4'",
    "UPDATE entries SET position = 4 WHERE id = 'e3'",
)
_OTHERS = ", ".join((*Entry._fields[1:], "chain"))


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["UPDATE entries SET output_nanousd = 1 WHERE id = 'e5'"], [(Tampering.CHANGED, 5, "e5")]),
        (["UPDATE entries SET workspace = NULL WHERE id = 'e10'"], [(Tampering.CHANGED, 10, "e10")]),
        (["UPDATE entries SET total_seconds = 2.5000001 WHERE id = 'e1'"], [(Tampering.CHANGED, 1, "e1")]),
        (["DELETE FROM entries WHERE id IN ('e4', 'e5')"], [(Tampering.REMOVED, 4, None)]),
        (_SWAP, [(Tampering.MOVED, 3, "e4"), (Tampering.MOVED, 4, "e3")]),
        (
            [
                f"INSERT INTO entries (id, {_OTHERS}, position, digest) "
                f"SELECT 'forged', {_OTHERS}, 11, digest FROM entries WHERE id = 'e5'"
            ],
            [(Tampering.CHANGED, 11, "forged")],
        ),
        (
            [
                f"INSERT INTO entries (id, {_OTHERS}) "
                f"SELECT 'forged', {_OTHERS} FROM entries WHERE id = 'e5'",
                "UPDATE entries SET chain = NULL WHERE id = 'forged'",
            ],
            [(Tampering.UNCHAINED, 0, "forged")],
        ),
        (["UPDATE anchors SET uncovered = 1"], [(Tampering.ANCHOR, 0, None)]),
        (["DELETE FROM anchors"], [(Tampering.KEY, 0, None)]),
    ],
)
def test_tampering_is_found_and_named(
    books: Books, statements: list[str], expected: list[tuple[Tampering, int, str | None]]
) -> None:
    books.hold(some_records(10))
    books.tamper(*statements)
    found = verify(books.source, KEYS)

    named = [(finding.kind, finding.position, finding.entry) for finding in found.findings]
    assert [item for item in named if item != (Tampering.ANCHOR, 0, None)] == [
        item for item in expected if item != (Tampering.ANCHOR, 0, None)
    ]
    assert named


def test_a_tail_that_was_cut_off_is_found_by_a_noted_head_only(books: Books) -> None:
    books.hold(some_records(10))
    heads = verify(books.source, KEYS).heads
    books.tamper("DELETE FROM entries WHERE id IN ('e9', 'e10')")

    assert verify(books.source, KEYS).findings == ()
    (finding,) = verify(books.source, KEYS, noted=heads).findings
    assert (finding.kind, finding.position) == (Tampering.HEAD, 10)
    assert "ends at 8" in finding.sentence


def test_a_span_of_time_is_verified_by_itself(books: Books) -> None:
    books.hold(some_records(10))
    books.tamper("UPDATE entries SET output_nanousd = 1 WHERE id = 'e5'")
    ms = round(NOVEMBER * 1000)

    for first, last, named in [(0, 4, []), (4, 6, ["e5"]), (5, 10, [])]:
        found = verify(books.source, KEYS, span_ms=(ms + first * 1000, ms + last * 1000))
        assert [finding.entry for finding in found.findings] == named
        assert found.entries == last - first
    assert verify(books.source, KEYS, span_ms=(0, 1)).entries == 0


def test_another_key_begins_another_chain_and_both_are_needed(books: Books) -> None:
    books.hold(some_records(3))
    other = b"another-key-of-thirty-two-bytes.."
    books.hold(some_records(3, name="later"), key=other)

    assert [finding.kind for finding in verify(books.source, KEYS).findings] == [Tampering.KEY]
    found = verify(books.source, [*KEYS, ChainKey(other)])
    assert found.findings == ()
    assert len(found.heads) == 2


def test_two_processes_on_one_file_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    script = (
        "import sys; from pathlib import Path; from tests.support.ledgers import write; "
        "from tests.support.records import a_record; "
        "write(Path(sys.argv[1]), (a_record(id=f'{sys.argv[2]}{n}') for n in range(500)))"
    )
    root = Path(__file__).parents[2]
    running = [subprocess.Popen([sys.executable, "-c", script, str(path), name], cwd=root) for name in "ab"]
    assert [process.wait(120) for process in running] == [0, 0]

    found = verify(path, KEYS)
    assert found.findings == ()
    assert [head.position for head in found.heads] == [1000]


def test_an_id_that_is_there_already_takes_no_place(books: Books) -> None:
    records = some_records(6)
    books.hold(records[:3])
    books.hold([records[1], records[3], records[3], records[0], records[4]])
    found = verify(books.source, KEYS)

    assert found.findings == ()
    assert [head.position for head in found.heads] == [5]


def test_a_new_chain_does_not_vouch_for_what_was_put_in_without_a_digest(books: Books) -> None:
    books.hold(some_records(3))
    books.tamper(
        f"INSERT INTO entries (id, {_OTHERS}) SELECT 'forged', {_OTHERS} FROM entries WHERE id = 'e2'",
        "UPDATE entries SET chain = NULL WHERE id = 'forged'",
    )
    other = b"another-key-of-thirty-two-bytes.."
    books.hold(some_records(1, "later"), key=other)

    found = verify(books.source, [*KEYS, ChainKey(other)])
    assert [(finding.kind, finding.entry) for finding in found.findings] == [(Tampering.UNCHAINED, "forged")]


def test_many_make_the_tables_at_once(postgres: PostgresServer) -> None:
    source = PostgresUrl(postgres.database())
    outcomes: list[object] = []

    def make() -> None:
        try:
            outcomes.append(migrate(source))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert outcomes == [3] * 6


def test_without_tables_or_a_server_the_error_says_what_to_do(postgres: PostgresServer) -> None:
    empty = PostgresUrl(postgres.database())
    with pytest.raises(ConfigError, match="gateway ledger migrate"):
        read_totals(empty, [], **ALWAYS)
    nowhere = PostgresUrl("postgresql://ledger:sk-test-secret@127.0.0.1:1/none")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_totals(nowhere, [], **ALWAYS)
    assert "sk-test-secret" not in f"{caught.value!r} {nowhere!r} {nowhere}"


def test_a_ledger_of_before_chains_is_covered_from_where_they_began(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    script = (Path(__file__).parents[1] / "support" / "ledger_1.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    with pytest.raises(ConfigError, match="no chains"):
        verify(path, KEYS)
    books = Books(tmp_path, None)
    path.rename(books.outbox())
    books.hold(some_records(3))

    found = verify(books.source, KEYS)
    assert (found.entries, found.findings) == (5, ())
    books.tamper("UPDATE entries SET chain = NULL, position = NULL WHERE id = 'e3'")
    assert [f.kind for f in verify(books.source, KEYS).findings] == [Tampering.UNCHAINED]


def test_a_copied_state_directory_loses_nothing_and_shows_as_a_fork(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    books = Books(tmp_path, postgres)
    books.hold(some_records(3))
    books.outbox("b").write_bytes(books.outbox("a").read_bytes())
    for name in ("x", "y"):
        books.hold(some_records(1, f"a{name}"), replica="a")
        books.hold(some_records(1, f"b{name}"), replica="b")

    (total,) = read_totals(books.source, [], **ALWAYS)
    assert total.requests == 7
    found = verify(books.source, KEYS)
    assert [(finding.kind, finding.position) for finding in found.findings] == [(Tampering.FORKED, 4)]
    assert sorted(head.position for head in found.heads if head.position) == [1, 5]


def test_a_state_directory_restored_from_a_copy_goes_on_in_a_new_chain(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    books = Books(tmp_path, postgres)
    books.hold(some_records(3))
    copy = books.outbox().read_bytes()
    books.hold(some_records(2, "after"))
    books.outbox().write_bytes(copy)
    assert books.shared
    ship(books.outbox(), books.shared)
    books.hold(some_records(4, "anew"))

    found = verify(books.source, KEYS)
    assert (found.entries, found.findings) == (9, ())
    assert sorted(head.position for head in found.heads) == [4, 5]


def test_what_the_shared_ledger_lost_is_shipped_again(tmp_path: Path, postgres: PostgresServer) -> None:
    books = Books(tmp_path, postgres)
    books.hold(some_records(10))
    books.tamper("DELETE FROM entries WHERE position > 4")
    books.hold([])

    assert verify(books.source, KEYS).entries == 10


def test_a_new_month_does_not_wait_for_who_is_reading(tmp_path: Path, postgres: PostgresServer) -> None:
    books = Books(tmp_path, postgres)
    books.hold(some_records(3))
    with reading(books.source) as ledger:
        rows = ledger.rows("SELECT id FROM entries")
        next(rows)
        books.hold(some_records(3, "december", NOVEMBER + 31 * DAY))
        assert len(list(rows)) == 2  # in the state it was

    assert verify(books.source, KEYS).entries == 6
    with pytest.raises(psycopg.Error, match="append-only"):
        books.execute("DELETE FROM entries_2026_12")
