"""Walking the chains of a ledger: which entry was changed, removed, put in or moved.

Pure: rows come in order, findings go out. What a chain is, and what it can show, is `chain.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.core.chain import Anchor, ChainKey, Head

MAX_TRACED = 40
"""Entries of one chain whose true place is searched for: each is tried behind all the others."""
MAX_FINDINGS = 1_000
"""Of one chain; the rest is counted."""

Row = tuple[Any, ...]
"""Chain, position, digest, and the values of the entry from its id on."""


class Tampering(StrEnum):
    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    MOVED = "moved"
    FORKED = "forked"
    UNCHAINED = "unchained"
    ANCHOR = "anchor"
    KEY = "key"
    HEAD = "head"


class Finding(NamedTuple):
    """One thing that is not as it was written, as a sentence."""

    kind: Tampering
    chain: str
    position: int
    """0 where it is about no entry."""
    entry: str | None
    """Its id."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What walking the chains came to."""

    entries: int
    heads: tuple[Head, ...]
    findings: tuple[Finding, ...]
    unlisted: int = 0
    """Findings beyond `MAX_FINDINGS` of a chain."""


def walk(
    rows: Iterable[Row],
    anchors: Sequence[Anchor],
    keys: Sequence[ChainKey],
    *,
    noted: Sequence[Head] = (),
    starts: Mapping[str, Head] | None = None,
) -> Walk:
    """Check `rows`, which come by chain and position, against their anchors. `noted` are heads of earlier:
    each must still be there. `starts`: where a part of a chain is walked, the place it begins behind; then
    what lies before and after is not asked for, and `noted` must be empty.
    """
    known = {key.id: key for key in keys}
    by_chain: dict[str, list[Anchor]] = {}
    findings: list[Finding] = []
    for anchor in anchors:
        by_chain.setdefault(anchor.chain, []).append(anchor)
    entries, unlisted = 0, 0
    heads: list[Head] = []
    missed = {head.chain: head for head in noted}
    for chain, of_chain in _with_empty_ones(rows, set() if starts is not None else set(by_chain)):
        key = _key_of(chain, by_chain.get(chain, ()), known, findings)
        marks = {head.position: head.digest for head in noted if head.chain == chain}
        course = _Course(chain, key, by_chain.get(chain, ()), marks)
        course.begin(None if starts is None else starts.get(chain))
        entries += course.run(of_chain)
        course.end(whole=starts is None)
        heads.append(Head(chain, course.expected - 1, course.before))
        findings += course.findings[:MAX_FINDINGS]
        unlisted += max(0, len(course.findings) - MAX_FINDINGS) + course.untraced
        missed.pop(chain, None)
    findings += [
        Finding(Tampering.HEAD, chain, head.position, None, f"chain {chain} is not there any more")
        for chain, head in missed.items()
    ]
    return Walk(entries=entries, heads=tuple(heads), findings=tuple(findings), unlisted=unlisted)


def unchained(
    count: int, ids: Sequence[str], anchors: Sequence[Anchor], keys: Sequence[ChainKey]
) -> list[Finding]:
    """What entries without a digest mean: as many as there were before chains began are as they should be."""
    known = {key.id: key for key in keys}
    before = sum(a.uncovered for a in anchors if a.key_id in known and known[a.key_id].made(a))
    if count <= before:
        return []
    sentence = (
        f"{count:,} entries carry no digest, {before:,} were there before chains began: the others were put "
        f"in, or written by an older version. The last of them: {', '.join(ids)}"
    )
    return [Finding(Tampering.UNCHAINED, "-", 0, ids[0] if ids else None, sentence)]


def _with_empty_ones(rows: Iterable[Row], anchored: set[str]) -> Iterator[tuple[str, Iterable[Row]]]:
    for chain, of_chain in groupby(rows, key=itemgetter(0)):
        anchored.discard(chain)
        yield chain, of_chain
    for chain in sorted(anchored):
        yield chain, ()


def _key_of(
    chain: str, anchors: Sequence[Anchor], known: Mapping[str, ChainKey], findings: list[Finding]
) -> ChainKey | None:
    """The key of a chain; None, with a finding, where it is not among those that are known."""
    ids = {anchor.key_id for anchor in anchors}
    for key_id in ids:
        if key_id in known:
            return known[key_id]
    if ids:
        sentence = (
            f"chain {chain} was written with a key that is not at hand (key id {', '.join(sorted(ids))})"
        )
    else:
        sentence = f"chain {chain} has no anchor: it was removed, or the chain was put in"
    findings.append(Finding(Tampering.KEY, chain, 0, None, sentence))
    return None


class _Suspect(NamedTuple):
    row: Row
    before: bytes


@dataclass(slots=True)
class _Course:
    """The walk along one chain."""

    chain: str
    key: ChainKey | None
    anchors: Sequence[Anchor]
    marks: dict[int, bytes]
    """Digests of heads that were noted, by position."""
    findings: list[Finding] = field(default_factory=list)
    untraced: int = 0
    expected: int = 1
    before: bytes = b""
    """Digest of the entry before the one that is expected."""
    _suspects: list[_Suspect] = field(default_factory=list)
    _unsure: bool = False
    """The digest before is gone, with what was removed."""

    def begin(self, start: Head | None) -> None:
        if self.key is not None:
            for anchor in self.anchors:
                if not self.key.made(anchor):
                    at = f"the anchor of chain {self.chain} at position {anchor.last:,}"
                    self._found(Tampering.ANCHOR, anchor.last, None, f"{at} was changed or put in")
            self.anchors = sorted(
                (anchor for anchor in self.anchors if self.key.made(anchor)), key=lambda a: a.last
            )
        if start is not None:
            self.expected, self.before = start.position + 1, start.digest
            return
        genesis = next((anchor for anchor in self.anchors if anchor.first == 0), None)
        if genesis is not None:
            self.before = genesis.digest
        elif self.key is not None:
            self._unsure = True
            self._found(
                Tampering.ANCHOR, 0, None, f"the anchor that chain {self.chain} begins with was removed"
            )

    def run(self, rows: Iterable[Row]) -> int:
        """How many there were."""
        count, key = 0, self.key
        if key is None:
            for row in rows:
                count += 1
                self.expected, self.before = row[1] + 1, row[2]
            return count
        link, chain, marks = key.link, self.chain, self.marks
        earlier = self.before
        for row in rows:
            count += 1
            position, digest = row[1], row[2]
            if position < self.expected:
                self._twice(row, earlier)
                continue
            if position > self.expected:
                self._gap_to(position)
            if self._unsure:
                self._unsure = False
            elif link(self.before, chain, position, row[3:]) != digest:
                self._suspect(row)
            if position in marks:
                self._compare(position, digest)
            earlier, self.before = self.before, digest
            self.expected = position + 1
        return count

    def end(self, *, whole: bool) -> None:
        """After the last row; `whole`: it should be the last of the chain, too."""
        if whole and self.key is not None:
            last = max((anchor.last for anchor in self.anchors), default=0)
            if last >= self.expected:
                self._gap_to(last + 1)
        for position, digest in sorted(self.marks.items()):
            if position >= self.expected:
                self._found(
                    Tampering.HEAD,
                    position,
                    None,
                    f"chain {self.chain} was noted up to position {position:,} and ends at "
                    f"{self.expected - 1:,}: entries were taken off its end",
                )
            elif not any(a.first <= position < a.last for a in self.anchors):
                at_anchor = next((a.digest for a in self.anchors if a.last == position), digest)
                if at_anchor != digest:
                    self._compare(position, at_anchor)
        self._trace()

    def _gap_to(self, position: int) -> None:
        """Over entries that are missing: lawfully, where an anchor says so."""
        while self.expected < position:
            over = next(
                (a for a in reversed(self.anchors) if a.first <= self.expected <= a.last < position), None
            )
            if over is not None:
                self.expected, self.before, self._unsure = over.last + 1, over.digest, False
                continue
            following = [a.first for a in self.anchors if self.expected < a.first < position]
            end = min(following, default=position)
            which = (
                f"entry {self.expected:,}"
                if end == self.expected + 1
                else f"entries {self.expected:,} to {end - 1:,}"
            )
            sentence = f"{which} of chain {self.chain} removed; what follows it cannot be checked by itself"
            self._found(Tampering.REMOVED, self.expected, None, sentence)
            self.expected, self._unsure = end, True

    def _twice(self, row: Row, earlier: bytes) -> None:
        """A second entry at the position of the one before."""
        assert self.key is not None
        position, digest = row[1], row[2]
        genuine = (
            position == self.expected - 1 and self.key.link(earlier, self.chain, position, row[3:]) == digest
        )
        first = self._suspects[-1] if self._suspects and self._suspects[-1].row[1] == position else None
        if not genuine:
            self._inserted(row)
        elif first is not None:
            self._suspects.pop()
            self._inserted(first.row)
            self.before = digest
        else:
            sentence = (
                f"two entries were written at position {position:,} of chain {self.chain}: the state "
                "directory of its writer was copied, or restored from an older copy"
            )
            self._found(Tampering.FORKED, position, row[3], sentence)

    def _suspect(self, row: Row) -> None:
        if len(self._suspects) < MAX_FINDINGS:
            self._suspects.append(_Suspect(row, self.before))
        else:
            self.untraced += 1

    def _compare(self, position: int, digest: bytes) -> None:
        if self.marks[position] != digest:
            sentence = f"position {position:,} of chain {self.chain} is not what was noted of it"
            self._found(Tampering.HEAD, position, None, sentence)

    def _trace(self) -> None:
        """Tell what was moved from what was changed: a moved entry fits somewhere else as it is."""
        traced = self._suspects[:MAX_TRACED]
        places = {suspect.row[1] + step for suspect in traced for step in (-1, 0, 1)}
        digests = {digest for suspect in traced for digest in (suspect.before, suspect.row[2])}
        origins = {suspect.row[3]: self._origin(suspect.row, places, digests) for suspect in traced}
        taken = {origin for origin in origins.values() if origin is not None}
        for suspect in self._suspects:
            position, entry = suspect.row[1], suspect.row[3]
            origin = origins.get(entry)
            if origin is not None and origin != position:
                sentence = f"{self._standing(suspect.row)}, was written at {origin:,}"
                self._found(Tampering.MOVED, position, entry, sentence)
            elif origin is None and position in taken:
                self._inserted(suspect.row)
            elif origin is None:
                sentence = (
                    f"entry {entry}, at position {position:,} of chain {self.chain}, is not as it was written"
                )
                self._found(Tampering.CHANGED, position, entry, sentence)

    def _origin(self, row: Row, places: set[int], digests: set[bytes]) -> int | None:
        """Where the entry was written; None where it fits nowhere."""
        assert self.key is not None
        for place in sorted(places, key=lambda place: abs(place - row[1])):
            for before in digests:
                if self.key.link(before, self.chain, place, row[3:]) == row[2]:
                    return int(place)
        return None

    def _inserted(self, row: Row) -> None:
        sentence = f"{self._standing(row)}, was put in by another hand"
        self._found(Tampering.INSERTED, row[1], row[3], sentence)

    def _standing(self, row: Row) -> str:
        return f"entry {row[3]}, at position {row[1]:,} of chain {self.chain}"

    def _found(self, kind: Tampering, position: int, entry: str | None, sentence: str) -> None:
        self.findings.append(Finding(kind, self.chain, position, entry, sentence))
