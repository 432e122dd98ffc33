"""Walking a chain: each kind of tampering is found, named, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.chain import Anchor, ChainKey, Head, link_all
from gateway.core.chain_walk import MAX_FINDINGS, Row, Tampering, Walk, unchained, walk
from gateway.core.entry import entry_of
from tests.support.records import a_record

KEY = ChainKey(b"k" * 32)
ENTRY = entry_of(a_record())


def _chain(name: str, count: int) -> tuple[list[Row], Anchor]:
    anchor = KEY.begin(name, 0)
    entries = [ENTRY._replace(id=f"{name}-{n + 1}") for n in range(count)]
    rows, _ = link_all(KEY, Head(name, 0, anchor.digest), entries)
    return [(*row[-3:], *row[:-3]) for row in rows], anchor


ROWS, GENESIS = _chain("c1", 10)


def _walk(rows: list[Row], *anchors: Anchor, noted: tuple[Head, ...] = ()) -> Walk:
    rows = sorted(rows, key=lambda row: row[:2])
    return walk(rows, anchors or (GENESIS,), [KEY], noted=noted)


def _found(found: Walk) -> list[tuple[Tampering, int, str | None]]:
    return [(finding.kind, finding.position, finding.entry) for finding in found.findings]


def _altered(row: Row) -> Row:
    return (*row[:-1], 12_345)


def _pruned(first: int, last: int) -> Anchor:
    digest = next(row[2] for row in ROWS if row[1] == last)
    return KEY.sealed(Anchor(chain="c1", first=first, last=last, digest=digest, key_id=KEY.id, why="pruned"))


def test_chains_as_they_were_written_are_sound() -> None:
    others, second = _chain("c2", 3)
    found = _walk([*ROWS, *others], GENESIS, second)

    assert _found(found) == []
    assert found.entries == 13
    assert found.heads == (Head("c1", 10, ROWS[-1][2]), Head("c2", 3, others[-1][2]))


@pytest.mark.parametrize("position", [1, 5, 10])
def test_a_changed_entry_is_named_and_no_other(position: int) -> None:
    rows = [_altered(row) if row[1] == position else row for row in ROWS]

    assert _found(_walk(rows)) == [(Tampering.CHANGED, position, f"c1-{position}")]


def test_removed_entries_are_named_by_position() -> None:
    found = _walk([row for row in ROWS if row[1] not in (1, 4, 5, 6)])

    assert _found(found) == [(Tampering.REMOVED, 1, None), (Tampering.REMOVED, 4, None)]
    assert "entry 1 of" in found.findings[0].sentence
    assert "entries 4 to 6 of" in found.findings[1].sentence


def test_two_entries_that_changed_places_are_both_named() -> None:
    places = {5: 6, 6: 5}
    rows = [(row[0], places.get(row[1], row[1]), *row[2:]) for row in ROWS]
    found = _walk(rows)

    assert _found(found) == [(Tampering.MOVED, 5, "c1-6"), (Tampering.MOVED, 6, "c1-5")]
    assert "was written at 6" in found.findings[0].sentence


def test_an_entry_that_was_put_in_beside_another_is_named() -> None:
    forged = ("c1", 5, b"f" * 32, "forged", *ROWS[4][4:])
    for rows in ([*ROWS[:5], forged, *ROWS[5:]], [*ROWS[:4], forged, *ROWS[4:]]):
        assert _found(_walk(rows)) == [(Tampering.INSERTED, 5, "forged")]


def test_an_entry_that_was_put_in_between_is_told_from_those_that_moved_on() -> None:
    forged = ("c1", 5, b"f" * 32, "forged", *ROWS[4][4:])
    rows = [*ROWS[:4], forged, *((row[0], row[1] + 1, *row[2:]) for row in ROWS[4:])]
    found = _found(_walk(rows))

    assert (Tampering.INSERTED, 5, "forged") in found
    assert [item for item in found if item[0] is Tampering.MOVED] == [
        (Tampering.MOVED, n + 1, f"c1-{n}") for n in range(5, 11)
    ]
    assert len(found) == 7


def test_an_entry_that_another_hand_added_at_the_end_does_not_pass() -> None:
    other = ChainKey(b"j" * 32)
    digest = other.link(ROWS[-1][2], "c1", 11, ("forged", *ROWS[4][4:]))
    found = _walk([*ROWS, ("c1", 11, digest, "forged", *ROWS[4][4:])])

    assert _found(found) == [(Tampering.CHANGED, 11, "forged")]


def test_two_histories_of_one_writer_are_a_fork() -> None:
    values = ("another", *ROWS[9][4:])
    twin = ("c1", 10, KEY.link(ROWS[8][2], "c1", 10, values), *values)

    assert _found(_walk([*ROWS, twin])) == [(Tampering.FORKED, 10, "another")]


def test_what_was_pruned_is_not_missed_and_what_was_removed_beside_it_is() -> None:
    anchors = (GENESIS, _pruned(1, 4), _pruned(6, 6))
    assert _found(_walk([row for row in ROWS if row[1] in (5, 7, 8, 9, 10)], *anchors)) == []
    found = _walk([row for row in ROWS if row[1] in (5, 8, 9, 10)], *anchors)
    assert _found(found) == [(Tampering.REMOVED, 7, None)]

    overlapping = (GENESIS, _pruned(1, 4), _pruned(3, 6))  # put back from a backup, and pruned again
    assert _found(_walk(ROWS[6:], *overlapping)) == []
    everything = _walk([], GENESIS, _pruned(1, 10))
    assert _found(everything) == []
    assert everything.heads == (Head("c1", 10, ROWS[-1][2]),)


def test_an_anchor_of_another_hand_does_not_hide_a_removal() -> None:
    forged = ChainKey(b"j" * 32).sealed(replace(_pruned(1, 4), key_id=KEY.id))
    found = _walk(ROWS[4:], GENESIS, forged)

    assert _found(found) == [(Tampering.ANCHOR, 4, None), (Tampering.REMOVED, 1, None)]


def test_a_chain_without_its_beginning_or_its_key_does_not_pass() -> None:
    assert _found(_walk(ROWS, _pruned(1, 4))) == [(Tampering.ANCHOR, 0, None)]
    strange = ChainKey(b"j" * 32).begin("c1", 0)
    assert _found(_walk(ROWS, strange)) == [(Tampering.KEY, 0, None)]
    assert _found(walk(ROWS, [], [KEY])) == [(Tampering.KEY, 0, None)]


def test_entries_taken_off_the_end_are_found_by_a_head_that_was_noted() -> None:
    noted = Head("c1", 10, ROWS[-1][2])

    assert _found(_walk(ROWS[:8])) == []
    assert _found(_walk(ROWS[:8], noted=(noted,))) == [(Tampering.HEAD, 10, None)]
    assert _found(_walk(ROWS, noted=(noted, Head("c1", 3, ROWS[2][2])))) == []
    assert _found(_walk(ROWS, noted=(Head("c1", 3, ROWS[3][2]),))) == [(Tampering.HEAD, 3, None)]
    assert _found(_walk(ROWS, noted=(Head("c9", 3, b""),))) == [(Tampering.HEAD, 3, None)]
    pruned = (GENESIS, _pruned(1, 4))
    assert _found(_walk(ROWS[4:], *pruned, noted=(Head("c1", 4, ROWS[3][2]),))) == []
    assert _found(_walk(ROWS[4:], *pruned, noted=(Head("c1", 2, b"gone"),))) == []


def test_a_part_is_walked_from_what_stands_before_it() -> None:
    start = Head("c1", 4, ROWS[3][2])
    part = ROWS[4:8]

    found = walk(part, [GENESIS], [KEY], starts={"c1": start})
    assert _found(found) == []
    assert found.heads == (Head("c1", 8, ROWS[7][2]),)
    changed = [part[0], _altered(part[1]), *part[2:]]
    assert _found(walk(changed, [GENESIS], [KEY], starts={"c1": start})) == [(Tampering.CHANGED, 6, "c1-6")]


def test_a_chain_that_was_written_anew_ends_in_bounded_findings() -> None:
    count = MAX_FINDINGS + 50
    rows, anchor = _chain("c1", count)
    found = _walk([_altered(row) for row in rows], anchor)

    assert len(found.findings) == MAX_FINDINGS
    assert found.unlisted == 50


def test_entries_without_a_digest_are_those_of_before() -> None:
    anchors = [KEY.begin("c1", 3)]
    forged = [replace(anchors[0], uncovered=5)]
    cases: list[tuple[int, Any, int]] = [(0, anchors, 0), (3, anchors, 0), (4, anchors, 1), (3, forged, 1)]

    for count, of_chains, expected in cases:
        found = unchained(count, ["e9"], of_chains, [KEY])
        assert [finding.kind for finding in found] == [Tampering.UNCHAINED] * expected
