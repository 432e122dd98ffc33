"""The price of usage, exactly: dated rows, bands, speed, geography, batch, server tools.

Money is an integer number of nano-dollars, rounded up once per request; rates are exact rationals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Nano-dollars by kind. `total` is rounded up once; the kinds share it so that they sum to it."""

    uncached_input_nanousd: int = 0
    cache_read_nanousd: int = 0
    cache_write_5m_nanousd: int = 0
    cache_write_1h_nanousd: int = 0
    output_nanousd: int = 0
    server_tools_nanousd: int = 0
    counterfactual_nanousd: int = 0
    """What the same request had cost had nothing been written to or read from a cache."""
    price_id: str = ""
    """Which row of the table priced it; of several iterations, the first."""
    fallback: bool = False
    """True where no row knew the model, and the stated fallback price was used."""

    @property
    def total_nanousd(self) -> int:
        return (
            self.uncached_input_nanousd
            + self.cache_read_nanousd
            + self.cache_write_5m_nanousd
            + self.cache_write_1h_nanousd
            + self.output_nanousd
            + self.server_tools_nanousd
        )
