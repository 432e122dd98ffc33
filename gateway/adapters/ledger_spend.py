"""What a ledger says was spent, by who spent it: what counters are rebuilt from and audited against.

All of one answer is read in one state of the ledger. Blocks: callers give it a thread of its own.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.adapters.ledger_queries import _COST
from gateway.adapters.ledger_source import LedgerSource, Reading, reading
from gateway.core.rebuild import LedgerPart, Span, Spend

SHARED = "shared"
"""The identity of the ledger that all replicas share."""

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
    ended_before_ms: int | None = None,
    by_tags: bool = False,
) -> LedgerPart:
    """The ledger's sums over `spans`, and the ids of what ended since `known_since_ms`; with
    `ended_before_ms` only of exchanges that had ended by then. Raises `ConfigError` where it is missing or
    cannot be read, and OSError."""
    ended: tuple[str, list[int]] = ("", [])
    if ended_before_ms is not None:
        ended = (f" AND {_ENDED} < ?", [ended_before_ms])
    name = identity(source)
    with reading(source) as ledger:
        spends = {span: _spends(ledger, span, ended, by_tags=by_tags) for span in spans}
        # Received up to a day before: longer no exchange lasts.
        known = ledger.rows(
            f"SELECT COALESCE(reservation_id, id) FROM entries WHERE received_at_ms >= ? AND {_ENDED} >= ?"  # noqa: S608 - our own words
            f" AND {_COST} > 0{ended[0]}",
            (known_since_ms - 86_400_000, known_since_ms, *ended[1]),
        )
        return LedgerPart(ledger=name, spends=spends, known=tuple(id for (id,) in known))


def _spends(ledger: Reading, span: Span, ended: tuple[str, list[int]], *, by_tags: bool) -> tuple[Spend, ...]:
    tags = "tags" if by_tags else "'{}'"
    rows = ledger.rows(
        f"SELECT organisation, workspace, key_id, COALESCE(model, ''), {tags},"  # noqa: S608 - our own words
        f" CAST(SUM({_COST}) AS BIGINT)"
        f" FROM entries WHERE received_at_ms >= ? AND received_at_ms < ?{ended[0]}"
        f" AND organisation IS NOT NULL AND {_COST} <> 0 GROUP BY 1, 2, 3, 4, 5",
        (span.window.start_ms, span.window.end_ms, *ended[1]),
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
