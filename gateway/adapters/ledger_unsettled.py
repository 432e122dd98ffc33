"""The last entries of a replica's own ledger, as settlements: what it may have died before it could say to
the store, or what the store may have forgotten since. Batches are left out: one reservation pays for several
entries, and who settles them says it again. Reads only; what comes of saying it twice is the store's to know,
which does nothing then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.adapters.ledger_source import Reading, reading
from gateway.core.bucket import Amounts, Payer
from gateway.core.ids import ReservationId
from gateway.core.presumed import Unsettled
from gateway.core.reservations import LATE_KEPT_MS, SWEEP_BATCH, SWEPT_KEPT_MS

LAST_ENTRIES: Final = 2_000
"""Of those that have something to settle, in the order of their commits. An exchange is settled as soon as
its entry is committed, so that these are the last seconds of a busy replica, or half a day of another: of
what came before, the store may have forgotten that it was settled."""

LOOKED_AT: Final = 200_000
"""Entries among which they are looked for: most may be refusals, which held nothing."""

LAST_DEGRADED: Final = 20_000
"""Of those that were admitted while the store was away, which are settled when it is back: an outage of
minutes or hours. For as long as stores remember that they have them."""

_COLUMNS = """
SELECT reservation_id, basis, uncached_input_tokens, cache_read_tokens,
    cache_write_5m_tokens + cache_write_1h_tokens, output_tokens,
    uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd
        + output_nanousd + server_tools_nanousd,
    store_degraded, received_at_ms, total_seconds,
    COALESCE(organisation, ''), COALESCE(workspace, ''), COALESCE(key_id, ''), COALESCE(route, ''),
    COALESCE(model, ''), endpoint, tags
"""
_OF_CALLS = "reservation_id IS NOT NULL AND basis NOT IN ('pending', 'presumed') AND endpoint <> 'batches'"
_LAST = f"""{_COLUMNS} FROM (SELECT * FROM entries ORDER BY sequence DESC LIMIT {LOOKED_AT}) AS last
WHERE received_at_ms >= ? AND store_degraded = 0 AND {_OF_CALLS} LIMIT ?
"""  # noqa: S608 - our own words
# The plus keeps SQLite from reading a year's ledger in this order: its index by time leads to half a day.
_DEGRADED = f"""{_COLUMNS} FROM entries
WHERE received_at_ms >= ? AND store_degraded = 1 AND basis <> 'none' AND {_OF_CALLS}
ORDER BY +sequence DESC LIMIT ?
"""

_PRESUMED = """
SELECT reservation_id FROM entries
WHERE received_at_ms >= ? AND basis = 'presumed' AND endpoint <> 'batches'
    AND id = reservation_id || ':presumed'
ORDER BY +sequence DESC LIMIT ?
"""


def read_presumed(path: Path, now_ms: int) -> tuple[ReservationId, ...]:
    """The reservations of which this ledger was told last that their lease had ended. Blocks; raises
    `ConfigError` where the file is no ledger."""
    with reading(path) as ledger:
        rows = ledger.rows(_PRESUMED, (now_ms - SWEPT_KEPT_MS // 2, SWEEP_BATCH))
        return tuple(ReservationId(id) for (id,) in rows)


def read_unsettled(path: Path, now_ms: int, more: int = 0) -> tuple[Unsettled, ...]:
    """The latest first, `more` of them where so many were booked at once. Blocks; raises `ConfigError` where
    the file is no ledger."""
    with reading(path) as ledger:
        return (
            *_read(ledger, _LAST, (now_ms - SWEPT_KEPT_MS // 2, LAST_ENTRIES + more)),
            *_read(ledger, _DEGRADED, (now_ms - LATE_KEPT_MS // 8 * 7, LAST_DEGRADED + more)),
        )


def _read(ledger: Reading, query: str, values: tuple[int, ...]) -> Iterator[Unsettled]:
    for row in ledger.rows(query, values):
        reservation_id, basis, uncached, read, written, output, nanousd = row[:7]
        degraded, received_at_ms, seconds, organisation, workspace, key_id, route, model = row[7:15]
        amounts = Amounts(
            requests=1,
            input_tokens=uncached + written,
            prompt_tokens=uncached + written + read,
            output_tokens=output,
            nanousd=nanousd,
        )
        yield Unsettled(
            reservation_id=ReservationId(reservation_id),
            amounts=Amounts() if basis == "none" else amounts,
            payer=Payer(
                received_at_ms=received_at_ms,
                organisation=organisation,
                workspace=workspace,
                key_id=key_id,
                route=route,
                model=model,
                endpoint=row[15],
                tags=tuple(json.loads(row[16]).items()),
            ),
            ended_at=received_at_ms / 1000 + seconds,
            degraded=bool(degraded),
        )
