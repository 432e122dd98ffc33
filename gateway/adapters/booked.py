"""What the ledger has booked, as a reconciliation needs it: sums by day, route, model and what sets entries
apart. One read-only query over the ledger's file; the sums are SQLite's, so that memory does not grow with
the entries. What is made of them is `core/reconcile.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

from gateway.core.endpoints import Endpoint
from gateway.core.errors import ConfigError
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
_SUMS = ", ".join(f"SUM({column})" for pair in _COLUMNS.values() for column in pair)

_BOOKED = f"""
SELECT received_at_ms / {_DAY_MS} AS day, COALESCE(route, '-'), COALESCE(model, '-'),
    COALESCE(service_tier, 'standard'),
    basis IN ('partial', 'estimated') AS guessed,
    {_COST} = 0 AND {_TOKENS} > 0 AS not_charged,
    iterations > 0 AS iterated,
    received_at_ms + total_seconds * 1000 >= :recent_ms AS recent,
    received_at_ms % {_DAY_MS} + total_seconds * 1000 >= {_DAY_MS - MARGIN_MS} AS late,
    received_at_ms % {_DAY_MS} < {MARGIN_MS} AS early,
    COUNT(*), SUM(MAX({_COST}, estimated_nanousd)),
    MIN(price_id), MAX(price_id), MIN(COALESCE(inference_geo, '')), MAX(COALESCE(inference_geo, '')), {_SUMS}
FROM entries
WHERE received_at_ms >= :start_ms AND received_at_ms < :end_ms AND basis NOT IN ('none', 'unmetered')
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""  # noqa: S608 - from the names above
_RELAYED = f"""
SELECT received_at_ms / {_DAY_MS} AS day, COALESCE(route, '-'),
    SUM(endpoint = '{Endpoint.BATCHES}' AND method = 'POST'), SUM(endpoint = '{Endpoint.OTHER}')
FROM entries
WHERE received_at_ms >= :start_ms AND received_at_ms < :end_ms AND basis = 'unmetered'
    AND endpoint IN ('{Endpoint.BATCHES}', '{Endpoint.OTHER}')
GROUP BY 1, 2
"""  # noqa: S608 - from the names above


@dataclass(frozen=True, slots=True)
class BookedDays:
    booked: tuple[Booked, ...]
    relayed: tuple[Relayed, ...]


def read_booked(
    path: Path, *, start_ms: int, end_ms: int, recent_ms: int, model_of: Callable[[str], str]
) -> BookedDays:
    """Sums over the entries received from `start_ms` up to but not including `end_ms`. `recent_ms`: entries
    that ended then or later may be missing from the provider's reports. `model_of` gives one name to all
    spellings of a model.

    May run beside the ledger's writer. Raises `ConfigError` where the file is missing or is no ledger.
    """
    values = {"start_ms": start_ms, "end_ms": end_ms, "recent_ms": recent_ms}
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")  # both questions of one state: a writer may be adding to it
            return BookedDays(
                booked=tuple(_booked(connection.execute(_BOOKED, values), model_of)),
                relayed=tuple(
                    Relayed(day=_day(day), route=route, batches=batches, other=other)
                    for day, route, batches, other in connection.execute(_RELAYED, values)
                ),
            )
    except sqlite3.Error as error:
        raise ConfigError(f"The ledger {path} cannot be read: {error}.") from error


def _booked(rows: sqlite3.Cursor, model_of: Callable[[str], str]) -> Iterator[Booked]:
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
