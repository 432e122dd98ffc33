"""Verifying a ledger: its rows, in the order of its chains, handed to `core/chain_walk.py`. Read-only; may
run beside the writers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gateway.adapters.ledger_rows import ANCHORED
from gateway.adapters.ledger_source import LedgerSource, Reading, reading
from gateway.core.chain import Anchor, ChainKey, Head
from gateway.core.chain_walk import Walk, unchained, walk
from gateway.core.entry import Entry
from gateway.core.errors import ConfigError

CHAINS_SINCE = 3
_SHOWN = 5
_ROWS = f"SELECT chain, position, digest, {', '.join(Entry._fields)} FROM entries"  # noqa: S608 - our own names
_BETWEEN = "WHERE received_at_ms >= ? AND received_at_ms < ?"


def verify(
    source: LedgerSource,
    keys: Sequence[ChainKey],
    *,
    noted: Sequence[Head] = (),
    span_ms: tuple[int, int] | None = None,
) -> Walk:
    """Walk all chains; with `span_ms`, only from the first to the last entry that was received from the one
    instant up to but not including the other, and `noted` must be empty. Raises `ConfigError` where the
    ledger cannot be read, or is of a schema without chains."""
    with reading(source) as ledger:
        if ledger.version < CHAINS_SINCE:
            raise ConfigError(
                f"The ledger {source} is of schema {ledger.version}, which has no chains; a gateway that "
                "writes to it takes it over."
            )
        anchors = _anchors(ledger)
        if span_ms is not None:
            spans = _spans(ledger, *span_ms)
            starts = {chain: _before(ledger, chain, first, anchors) for chain, first, _ in spans}
            return walk(_rows_of(ledger, spans), anchors, keys, starts=starts)
        rows = ledger.rows(f"{_ROWS} WHERE chain IS NOT NULL ORDER BY chain, position")
        found = walk(rows, anchors, keys, noted=noted)
        ((count,),) = ledger.rows("SELECT COUNT(*) FROM entries WHERE chain IS NULL")
        last = f"SELECT id FROM entries WHERE chain IS NULL ORDER BY received_at_ms DESC LIMIT {_SHOWN}"  # noqa: S608
        ids = [entry_id for (entry_id,) in ledger.rows(last)] if count else []
    return replace(
        found,
        entries=found.entries + count,
        findings=(*found.findings, *unchained(count, ids, anchors, keys)),
    )


def _anchors(ledger: Reading) -> list[Anchor]:
    rows = ledger.rows(f"SELECT {', '.join(ANCHORED)} FROM anchors ORDER BY chain, last")  # noqa: S608
    return [Anchor(**dict(zip(ANCHORED, row, strict=True))) for row in rows]


def _spans(ledger: Reading, start_ms: int, end_ms: int) -> list[tuple[str, int, int]]:
    """By chain, the positions between which all entries of that time are."""
    return list(
        ledger.rows(
            f"SELECT chain, MIN(position), MAX(position) FROM entries {_BETWEEN} AND chain IS NOT NULL "  # noqa: S608
            "GROUP BY chain ORDER BY chain",
            (start_ms, end_ms),
        )
    )


def _before(ledger: Reading, chain: str, first: int, anchors: Sequence[Anchor]) -> Head:
    """What stands before a position: the newest entry or anchor below it."""
    ends = [
        (anchor.last, anchor.digest) for anchor in anchors if anchor.chain == chain and anchor.last < first
    ]
    ends += ledger.rows(
        "SELECT position, digest FROM entries WHERE chain = ? AND position < ? "
        "ORDER BY position DESC LIMIT 1",
        (chain, first),
    )
    position, digest = max(ends, default=(0, b""))
    return Head(chain, position, digest)


def _rows_of(ledger: Reading, spans: Sequence[tuple[str, int, int]]) -> Iterator[tuple[Any, ...]]:
    for span in spans:
        yield from ledger.rows(
            f"{_ROWS} WHERE chain = ? AND position BETWEEN ? AND ? ORDER BY position",
            span,
        )
