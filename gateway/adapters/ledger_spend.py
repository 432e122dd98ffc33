"""What a ledger says was spent, by who spent it: what counters are rebuilt from and audited against.

All of one answer is read in one state of the ledger. Blocks: callers give it a thread of its own.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.adapters.ledger_queries import _COST
from gateway.adapters.ledger_source import LedgerSource, Reading, reading
from gateway.core.rebuild import SHARED, LedgerPart, Span, Spend

_BATCH_MS = 30 * 86_400_000
_ENDED = "(received_at_ms + CAST(total_seconds * 1000 AS BIGINT))"


def identity(source: LedgerSource) -> str:
    """A name that a ledger keeps for ever, whoever reads it and whatever is pruned from it: of a file it lies
    beside it, made once. Raises OSError."""
    if not isinstance(source, Path):
        return SHARED
    path = source.with_name(f"{source.name}.id")
    if not path.exists():
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with aside.open("x") as file:
            file.write(secrets.token_hex(16))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # two that come at once agree on one
            os.link(aside, path)
        aside.unlink()
    return path.read_text().strip()


def read_part(
    source: LedgerSource,
    spans: Sequence[Span],
    *,
    known_since_ms: int,
    by_tags: bool = False,
    beyond: Mapping[str, int] | None = None,
) -> LedgerPart:
    """The ledger's sums over `spans`, and the ids of what ended since `known_since_ms`; with `beyond` (how
    far chains are shipped) only what came into a file after that. Raises `ConfigError` where it is missing or
    cannot be read, and OSError."""
    name = identity(source)
    with reading(source) as ledger:
        after: tuple[str, list[int]] = ("", [])
        if shipped := _shipped(ledger, beyond or {}):
            after = (" AND sequence > ?", [shipped])
        spends = {span: _spends(ledger, span, after, by_tags=by_tags) for span in spans}
        # Received up to a day before: longer no exchange lasts. But a batch is booked when that is found out,
        # and may be settled later still: each of them is named, as long as its results can be had.
        known = ledger.rows(
            f"SELECT COALESCE(reservation_id, id) FROM entries WHERE received_at_ms >= ? AND {_ENDED} >= ?"  # noqa: S608 - our own words
            f" AND endpoint <> 'batches' AND basis <> 'presumed' AND {_COST} > 0{after[0]}"
            " UNION ALL SELECT reservation_id FROM entries WHERE received_at_ms >= ?"
            f" AND endpoint = 'batches' AND basis <> 'pending' AND reservation_id IS NOT NULL{after[0]}",
            (
                *(known_since_ms - 86_400_000, known_since_ms, *after[1]),
                *(known_since_ms - _BATCH_MS, *after[1]),
            ),
        )
        return LedgerPart(
            ledger=name,
            spends=spends,
            known=tuple(id for (id,) in known),
            reached=_reached(ledger, spans) if ledger.postgres else {},
        )


def _reached(ledger: Reading, spans: Sequence[Span]) -> dict[str, int]:
    """Of what was received within the spans, which is all that is summed up."""
    since_ms = min((span.window.start_ms for span in spans), default=0)
    rows = ledger.rows(
        "SELECT chain, MAX(position) FROM entries WHERE received_at_ms >= ? AND chain IS NOT NULL GROUP BY 1",
        (since_ms,),
    )
    return dict(rows)


def _shipped(ledger: Reading, beyond: Mapping[str, int]) -> int:
    """The last sequence of a file that is among what was shipped: one is shipped after the other."""
    last = 0
    for (chain,) in list(ledger.rows("SELECT DISTINCT chain FROM anchors")):
        if (position := beyond.get(chain)) is not None:
            found = ledger.rows(
                "SELECT COALESCE(MAX(sequence), 0) FROM entries WHERE chain = ? AND position <= ?",
                (chain, position),
            )
            last = max(last, *(sequence for (sequence,) in found))
    return last


def _spends(ledger: Reading, span: Span, after: tuple[str, list[int]], *, by_tags: bool) -> tuple[Spend, ...]:
    tags = "tags" if by_tags else "'{}'"
    rows = ledger.rows(
        f"SELECT organisation, workspace, key_id, COALESCE(model, ''), {tags},"  # noqa: S608 - our own words
        f" CAST(SUM({_COST}) AS BIGINT)"
        f" FROM entries WHERE received_at_ms >= ? AND received_at_ms < ?{after[0]}"
        f" AND organisation IS NOT NULL AND {_COST} <> 0 GROUP BY 1, 2, 3, 4, 5",
        (span.window.start_ms, span.window.end_ms, *after[1]),
    )
    return tuple(
        Spend(
            organisation=organisation,
            workspace=workspace or "",
            key_id=key_id or "",
            model=model,
            tags=tuple(json.loads(text).items()),
            nanousd=nanousd,
        )
        for organisation, workspace, key_id, model, text, nanousd in rows
    )
