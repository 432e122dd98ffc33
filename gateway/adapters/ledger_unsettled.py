"""The last entries of a replica's own ledger, as settlements: what it may have died before it could say to
the store. Batches are left out: one reservation pays for several entries, and who settles them says it again.
Reads only; what comes of saying it twice is the store's to know, which does nothing then."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.adapters.ledger_source import reading
from gateway.core.bucket import Amounts
from gateway.core.ids import ReservationId
from gateway.core.presumed import Unsettled

LAST_ENTRIES: Final = 2_000
"""In the order of their commits. An exchange is settled as soon as its entry is committed, so that these are
the last seconds of a busy replica, or hours of another."""

_LAST = """
SELECT reservation_id, basis, uncached_input_tokens, cache_read_tokens,
    cache_write_5m_tokens + cache_write_1h_tokens, output_tokens,
    uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd
        + output_nanousd + server_tools_nanousd
FROM (SELECT * FROM entries ORDER BY sequence DESC LIMIT ?) AS last
WHERE reservation_id IS NOT NULL AND store_degraded = 0 AND basis NOT IN ('pending', 'presumed')
    AND endpoint <> 'batches'
"""


def read_unsettled(path: Path) -> tuple[Unsettled, ...]:
    """The latest first. Blocks; raises `ConfigError` where the file is no ledger."""
    with reading(path) as ledger:
        return tuple(
            Unsettled(
                ReservationId(reservation_id),
                Amounts()
                if basis == "none"
                else Amounts(
                    requests=1,
                    input_tokens=uncached + written,
                    prompt_tokens=uncached + written + read,
                    output_tokens=output,
                    nanousd=nanousd,
                ),
            )
            for reservation_id, basis, uncached, read, written, output, nanousd in ledger.rows(
                _LAST, (LAST_ENTRIES,)
            )
        )
