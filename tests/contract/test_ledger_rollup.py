"""The sums of a ledger say what the ledger says, whenever they were brought up to date."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters import ledger_rollup
from gateway.adapters.ledger_file import open_for_writing
from gateway.adapters.ledger_prune import prune
from gateway.adapters.ledger_queries import read_losses, read_totals
from gateway.adapters.ledger_rollup import LedgerRollup
from gateway.adapters.ledger_rows import insert
from gateway.adapters.ledger_source import LedgerSource
from gateway.adapters.postgres_ledger_schema import prune_months
from gateway.core.bucket import Payer, Presumed
from gateway.core.chain import ChainKey
from gateway.core.entry import Entry, entry_of
from gateway.core.ids import ReservationId
from gateway.core.ledger import Dimension, Loss, Total, add_up, add_up_losses
from gateway.core.presumed import presumed_record
from gateway.core.rollup import HOUR_MS, KEPT, Only
from tests.support.ledgers import KEY, NOVEMBER, Books, some_records
from tests.support.records import a_record
from tests.support.year_of_ledger import UNTIL_MS, write_year

NOVEMBER_MS = round(NOVEMBER * 1000)
DAY_MS = 24 * HOUR_MS
ALL_TIME = (0, 2**60)
SPLITS = [(), *((one,) for one in Dimension), (Dimension.DAY, Dimension.WORKSPACE), tuple(Dimension)]
_ENTRY = entry_of(a_record())


def _now() -> float:
    return UNTIL_MS / 1000


def _sums(rollup: LedgerRollup, by: Sequence[Dimension], span: tuple[int, int], only: Only) -> list[Total]:
    return sorted(rollup.totals(by, *span, only), key=repr)


def _ledger(source: LedgerSource, by: Sequence[Dimension], span: tuple[int, int]) -> list[Total]:
    return sorted(add_up(read_totals(source, by, start_ms=span[0], end_ms=span[1])), key=repr)


def _told(losses: Sequence[Loss]) -> list[Loss]:
    """Without the sentence: of two that cost the same, either may be told."""
    return sorted((replace(loss, detail="") for loss in losses), key=repr)


def _say_the_same(rollup: LedgerRollup, source: LedgerSource, spans: Sequence[tuple[int, int]]) -> None:
    for by, span in itertools.product(SPLITS, spans):
        assert _ledger(source, by, span) == _sums(rollup, by, span, {})
        there = read_losses(source, by, start_ms=span[0], end_ms=span[1])
        assert _told(add_up_losses(there)) == _told(rollup.losses(by, *span))


_entries = st.builds(
    lambda hours, workspace, key, model, state, basis, cohort, cause, cost: _ENTRY._replace(
        received_at_ms=NOVEMBER_MS + hours * HOUR_MS // 3,
        workspace=workspace,
        key_id=key,
        model=model,
        state=state,
        basis=basis,
        cohort=cohort,
        miss_cause=cause,
        miss_detail=None if cause is None else f"it cost {cost}",
        miss_tokens=0 if cause is None else cost % 97,
        miss_nanousd=0 if cause is None else cost,
        output_nanousd=cost * 3,
        counterfactual_nanousd=cost * 7,
        shadow_nanousd=cost if cohort == "shadow" else None,
        price_fallback=cost % 2,
    ),
    st.integers(-200, 400),
    st.sampled_from(["search", "chat", None]),
    st.sampled_from(["k1", "k2", None]),
    st.sampled_from(["m1", 'm"2\\é', None]),
    st.sampled_from(["answered", "refused", "failed", "cut_by_client"]),
    st.sampled_from(["reported", "partial", "presumed", "none"]),
    st.sampled_from(["placed", "shadow", None]),
    st.sampled_from(["expired", "changed", None]),
    st.integers(0, 2**40),
)
_moments = st.lists(st.tuples(st.lists(_entries, max_size=8), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(
    moments=_moments,
    step=st.sampled_from([1, 3, 50_000]),
    start=st.integers(-70, 100),
    hours=st.integers(1, 200),
)
def test_any_sum_is_that_of_the_ledger_whatever_came_when(
    moments: list[tuple[list[Entry], bool]], step: int, start: int, hours: int
) -> None:
    """Entries in any order of arrival, sums brought up to date at any moments, in steps of any length."""
    folder = Path(tempfile.mkdtemp())
    try:
        path, number = folder / "ledger.sqlite3", itertools.count()
        rollup = LedgerRollup(path, folder / "sums.sqlite3", _now, step=step)
        with closing(open_for_writing(path)) as ledger:
            for entries, updated in moments:
                named = [entry._replace(id=f"e{next(number)}") for entry in entries]
                insert(ledger, named, ChainKey(KEY))
                if updated:
                    rollup.update()
        state = rollup.update()

        assert (state.trouble, state.waiting) == ("", 0)
        assert state.entries == sum(len(entries) for entries, _ in moments)
        span_of_hours = (NOVEMBER_MS + start * HOUR_MS, NOVEMBER_MS + (start + hours) * HOUR_MS)
        days = (NOVEMBER_MS - 2 * DAY_MS, NOVEMBER_MS + 3 * DAY_MS)
        _say_the_same(rollup, path, [ALL_TIME, span_of_hours, days])
        for one in KEPT:  # sums of one value alone are those that all sums have of it
            for value in ("search", "k1", "-"):
                apart = [total for total in rollup.totals((one,), *days) if total.group == (value,)]
                assert apart == list(rollup.totals((one,), *days, {one: value}))
    finally:
        shutil.rmtree(folder)


def test_both_kinds_of_ledger_are_summed_alike_with_several_replicas(books: Books, tmp_path: Path) -> None:
    rollup = LedgerRollup(books.source, tmp_path / "sums.sqlite3", _now)
    assert rollup.update().entries == 0 or books.shared is None
    books.hold(some_records(7))
    rollup.update()
    books.hold(some_records(5, name="later", at=NOVEMBER - 40 * 86_400))
    if books.shared is not None:
        rollup.refresh()
        books.hold(some_records(6, name="b"), replica="b")
    state = rollup.update()

    assert state.entries == (18 if books.shared else 12)
    _say_the_same(rollup, books.source, [ALL_TIME, (NOVEMBER_MS, NOVEMBER_MS + DAY_MS)])


def test_what_is_pruned_stays_in_the_sums_and_its_month_is_marked(books: Books, tmp_path: Path) -> None:
    october = NOVEMBER - 20 * 86_400
    books.hold(some_records(6, at=october))
    books.hold(some_records(4, name="n"))
    rollup = LedgerRollup(books.source, tmp_path / "sums.sqlite3", _now)
    before = rollup.update()
    sums = rollup.totals((Dimension.MONTH,), *ALL_TIME)
    if books.shared is not None:
        assert prune_months(books.shared, [ChainKey(KEY)], before_ms=NOVEMBER_MS) == ("entries_2026_10",)
    else:
        assert prune(books.outbox(), [ChainKey(KEY)], before_ms=NOVEMBER_MS, why="old") == 6
    books.hold(some_records(3, name="after", at=NOVEMBER + 86_400))
    after = rollup.update()

    assert (before.pruned_months, after.pruned_months) == (frozenset(), frozenset({"2026-10"}))
    assert after.entries == 13
    by_month = {total.group: total for total in rollup.totals((Dimension.MONTH,), *ALL_TIME)}
    assert by_month["2026-10",] == next(total for total in sums if total.group == ("2026-10",))
    _say_the_same(rollup, books.source, [(NOVEMBER_MS, NOVEMBER_MS + 30 * DAY_MS)])


def test_requests_are_calls_and_not_what_the_store_corrected_of_them(books: Books, tmp_path: Path) -> None:
    """Two calls, one of them presumed for a while; a third of which only that is left; and what was presumed
    of a call that was released."""
    payer = Payer(
        received_at_ms=NOVEMBER_MS + DAY_MS, organisation="acme", workspace="gone", endpoint="messages"
    )
    back = Presumed(reservation_id=ReservationId("e1"), payer=payer, nanousd=-60, taken_back=True)
    never = replace(back, reservation_id=ReservationId("never"))
    there = [replace(each, nanousd=60, taken_back=False) for each in (back, never)]
    third = replace(there[0], reservation_id=ReservationId("third"))
    presumed = [presumed_record(each) for each in (back, never, *there, third)]
    rollup = LedgerRollup(books.source, tmp_path / "sums.sqlite3", _now)
    books.hold([*some_records(2), *presumed[:1]])
    rollup.update()
    books.hold(presumed[1:])

    assert rollup.update().entries == 7
    by_workspace = {total.group: total.requests for total in rollup.totals((Dimension.WORKSPACE,), *ALL_TIME)}
    assert by_workspace == {("search",): 2, ("gone",): 1}
    _say_the_same(rollup, books.source, [ALL_TIME])
    if books.shared is None:  # more entries are left than there were requests
        assert prune(books.outbox(), [ChainKey(KEY)], before_ms=NOVEMBER_MS + DAY_MS, why="old") == 2
        assert rollup.update().pruned_months == frozenset({"2026-11"})


def test_another_ledger_in_the_same_place_is_summed_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    rollup = LedgerRollup(path, tmp_path / "sums.sqlite3", _now)
    for name, count in (("first", 9), ("shorter", 4), ("longer", 30)):
        for file in tmp_path.glob("ledger.sqlite3*"):
            file.unlink()
        with closing(open_for_writing(path)) as ledger:
            insert(ledger, [_ENTRY._replace(id=f"{name}{n}") for n in range(count)], ChainKey(KEY))
        assert rollup.update().entries == count
        _say_the_same(rollup, path, [ALL_TIME])


def test_a_damaged_file_of_sums_is_made_again_and_a_foreign_one_left_alone(tmp_path: Path) -> None:
    path, sums = tmp_path / "ledger.sqlite3", tmp_path / "sums.sqlite3"
    write_year(path, entries=200, days=20)
    sums.write_bytes(b"this is no database at all, though as long as the head of one must be" * 40)
    rollup = LedgerRollup(path, sums, _now)
    assert rollup.update().trouble == ""
    _say_the_same(rollup, path, [ALL_TIME])

    foreign = tmp_path / "foreign.sqlite3"
    with closing(sqlite3.connect(foreign)) as other:
        other.execute("CREATE TABLE precious (x)")
    assert "something else" in LedgerRollup(path, foreign, _now).update().trouble
    with closing(sqlite3.connect(foreign)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]


def test_two_that_update_one_file_at_once_count_nothing_twice(tmp_path: Path) -> None:
    path, sums = tmp_path / "ledger.sqlite3", tmp_path / "sums.sqlite3"
    write_year(path, entries=600, days=20)
    rollups = [LedgerRollup(path, sums, _now, step=40) for _ in range(2)]
    threads = [threading.Thread(target=rollup.update) for rollup in rollups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [rollup.state().trouble for rollup in rollups] == ["", ""]
    _say_the_same(rollups[0], path, [ALL_TIME])


def test_a_page_takes_one_step_and_says_how_much_is_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    write_year(path, entries=300, days=20)
    rollup = LedgerRollup(path, tmp_path / "sums.sqlite3", _now, step=100)
    first = rollup.refresh()

    assert not first.complete
    assert (first.entries, first.waiting > 0) == (100, True)
    while rollup.refresh().waiting:
        pass
    assert rollup.state().complete


def test_a_ledger_that_cannot_be_read_is_said_and_not_asked_by_each_page(tmp_path: Path) -> None:
    time = [_now()]
    path = tmp_path / "ledger.sqlite3"
    rollup = LedgerRollup(path, tmp_path / "sums.sqlite3", lambda: time[0])
    assert "cannot be read" in rollup.refresh().trouble
    write_year(path, entries=50, days=5)
    assert "cannot be read" in rollup.refresh().trouble
    time[0] += ledger_rollup.RETRY_SECONDS
    assert rollup.refresh().trouble == ""


def test_a_made_up_year_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_year(tmp_path / name, entries=400)
    assert _ledger(tmp_path / "a", tuple(Dimension), ALL_TIME) == _ledger(
        tmp_path / "b", tuple(Dimension), ALL_TIME
    )
