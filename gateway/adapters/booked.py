"""What the ledger has booked, as a reconciliation needs it: sums by day, route, model and what sets entries
apart. Read-only; the sums are the database's, so that memory does not grow with the entries. What is made of
them is `core/reconcile.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from gateway.adapters.ledger_source import LedgerSource, reading
from gateway.core.endpoints import Endpoint
from gateway.core.reconcile_cells import Amount, Booked, Kind, Relayed

_DAY_MS = 86_400_000
MARGIN_MS = 60_000
"""How far the provider's clock, or what it takes for the time of a call, may be from the arrival here."""

_COST = (
    "(uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd"
    " + output_nanousd + server_tools_nanousd)"
)
_TOKENS = (
    "(uncached_input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens"
    " + output_tokens)"
)
_COLUMNS = {
    Kind.UNCACHED_INPUT: ("uncached_input_tokens", "uncached_input_nanousd"),
    Kind.CACHE_READ: ("cache_read_tokens", "cache_read_nanousd"),
    Kind.CACHE_WRITE_5M: ("cache_write_5m_tokens", "cache_write_5m_nanousd"),
    Kind.CACHE_WRITE_1H: ("cache_write_1h_tokens", "cache_write_1h_nanousd"),
    Kind.OUTPUT: ("output_tokens", "output_nanousd"),
    Kind.WEB_SEARCH: ("web_search_requests", "server_tools_nanousd"),
}
_SUMS = ", ".join(f"CAST(SUM({column}) AS BIGINT)" for pair in _COLUMNS.values() for column in pair)

_NO_COST = "('none', 'unmetered', 'pending')"

_BOOKED = f"""
SELECT received_at_ms / {_DAY_MS} AS day, COALESCE(route, '-'), COALESCE(model, '-'),
    COALESCE(service_tier, 'standard'),
    basis IN ('partial', 'estimated', 'presumed') AS guessed,
    {_COST} = 0 AND {_TOKENS} > 0 AS not_charged,
    iterations > 0 AS iterated,
    received_at_ms + total_seconds * 1000 >= ? AS recent,
    received_at_ms % {_DAY_MS} + total_seconds * 1000 >= {_DAY_MS - MARGIN_MS} AS late,
    received_at_ms % {_DAY_MS} < {MARGIN_MS} AS early,
    COUNT(*),
    CAST(SUM(CASE WHEN {_COST} > estimated_nanousd THEN {_COST} ELSE estimated_nanousd END) AS BIGINT),
    MIN(price_id), MAX(price_id), MIN(COALESCE(inference_geo, '')), MAX(COALESCE(inference_geo, '')), {_SUMS}
FROM entries
WHERE received_at_ms >= ? AND received_at_ms < ? AND basis NOT IN {_NO_COST}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""  # noqa: S608 - from the names above
_OF_BATCH = "SELECT 1 FROM entries AS booked WHERE booked.id = entries.id || '-0'"
"""The first entry of the batch that an entry is the creation of (`core/batch_records.py`)."""
_RELAYED = f"""
SELECT received_at_ms / {_DAY_MS} AS day, COALESCE(route, '-'),
    COUNT(*) FILTER (WHERE endpoint = '{Endpoint.BATCHES}' AND method = 'POST'),
    COUNT(*) FILTER (WHERE endpoint = '{Endpoint.OTHER}')
FROM entries
WHERE received_at_ms >= ? AND received_at_ms < ?
    AND (basis = 'unmetered' OR basis = 'pending' AND NOT EXISTS ({_OF_BATCH}))
    AND endpoint IN ('{Endpoint.BATCHES}', '{Endpoint.OTHER}')
GROUP BY 1, 2
"""  # noqa: S608 - from the names above


@dataclass(frozen=True, slots=True)
class BookedDays:
    booked: tuple[Booked, ...]
    relayed: tuple[Relayed, ...]


def read_booked(
    source: LedgerSource, *, start_ms: int, end_ms: int, recent_ms: int, model_of: Callable[[str], str]
) -> BookedDays:
    """Sums over the entries received from `start_ms` up to but not including `end_ms`. `recent_ms`: entries
    that ended then or later may be missing from the provider's reports. `model_of` gives one name to all
    spellings of a model.

    May run beside the ledger's writers. Raises `ConfigError` where the ledger is missing, is none, or cannot
    be reached.
    """
    with reading(source) as ledger:
        return BookedDays(
            booked=tuple(_booked(ledger.rows(_BOOKED, (recent_ms, start_ms, end_ms)), model_of)),
            relayed=tuple(
                Relayed(day=_day(day), route=route, batches=batches, other=other)
                for day, route, batches, other in ledger.rows(_RELAYED, (start_ms, end_ms))
            ),
        )


def _booked(rows: Iterator[tuple[Any, ...]], model_of: Callable[[str], str]) -> Iterator[Booked]:
    for row in rows:
        day, route, model, tier, guessed, not_charged, iterated, recent, late, early, entries, most = row[:12]
        sums = row[16:]
        amounts = {
            kind: Amount(sums[2 * index], Fraction(sums[2 * index + 1]))
            for index, kind in enumerate(_COLUMNS)
            if sums[2 * index] or sums[2 * index + 1]
        }
        yield Booked(
            day=_day(day),
            route=route,
            model=model_of(model),
            tier=tier,
            entries=entries,
            amounts=amounts,
            guessed=bool(guessed),
            not_charged=bool(not_charged),
            iterated=bool(iterated),
            recent=bool(recent),
            may_be_next_day=bool(late),
            may_be_previous_day=bool(early),
            most_nanousd=most,
            prices=frozenset(f"{price} {geo}" for price, geo in zip(row[12:14], row[14:16], strict=True)),
        )


def _day(number: int) -> date:
    return datetime.fromtimestamp(number * 86_400, UTC).date()
