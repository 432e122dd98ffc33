"""What a soak run's ledger says beside the simulator's bill: each call, and the sums."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.sim.bill import BillLine
from tests.soak.traffic import MAX_TOKENS

_ENTRIES = """
SELECT id, basis, state, endpoint, json_extract(tags, '$.x-call'), upstream_request_id, estimated_nanousd,
    uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd
    + cache_write_1h_nanousd + output_nanousd + server_tools_nanousd
FROM entries
"""
GUESSED = ("partial", "estimated", "presumed")
DEAREST_NANOUSD = 25_000
"""Of a token of output."""


class Booked(NamedTuple):
    id: str
    basis: str
    state: str
    endpoint: str
    call: str | None
    request_id: str | None
    estimated_nanousd: int
    nanousd: int


@dataclass
class Side:
    """One call in the bill and in the books, with a line of either for each attempt."""

    billed: list[BillLine] = field(default_factory=list)
    booked: list[Booked] = field(default_factory=list)

    @property
    def apart_nanousd(self) -> int:
        """Booked above the bill; below zero where the bill is higher."""
        return sum(e.nanousd for e in self.booked) - sum(line.cost_nanousd for line in self.billed)

    @property
    def guessed(self) -> bool:
        return any(entry.basis in GUESSED for entry in self.booked)

    @property
    def cut(self) -> bool:
        """Whether upstream did not bring an answer to its end, or its answer was lost."""
        return not all(line.complete for line in self.billed) or self.guessed


@dataclass(frozen=True)
class Books:
    """`exact`: calls that are booked to the nano-dollar; `guessed`: those of which nobody was told what they
    cost; `wrong`: all others."""

    ledger_nanousd: int
    bill_nanousd: int
    exact: int
    guessed: list[Side]
    wrong: list[Side]

    @property
    def above_nanousd(self) -> int:
        return sum(max(0, side.apart_nanousd) for side in self.guessed)

    @property
    def below_nanousd(self) -> int:
        return sum(max(0, -side.apart_nanousd) for side in self.guessed)

    def beyond_their_bound(self) -> list[Side]:
        """A guess is above the bill by what had been set aside for the call and all that it might have
        generated at most, and below it by what it generated after the last usage that the gateway was told:
        no more than all of its output."""
        return [side for side in self.guessed if not _within(side)]


def compare(ledger: Path, bill: Iterable[BillLine], call_of: Mapping[str, str]) -> Books:
    """`call_of` maps upstream's request ids to the calls that they were for."""
    with closing(sqlite3.connect(ledger)) as connection:
        entries = [Booked(*row) for row in connection.execute(_ENTRIES)]
    lines = list(bill)
    sides: dict[str, Side] = defaultdict(Side)
    told = {entry.request_id: entry for entry in entries if entry.request_id}
    for entry in entries:
        # Of a batch, upstream bills its items one by one and the ledger has the sums: compared as one.
        name = "batches" if entry.endpoint == "batches" else entry.request_id or entry.call or entry.id
        sides[name].booked.append(entry)
    for line in lines:
        batch = line.usage.get("service_tier") == "batch"
        untold = line.request_id not in told
        name = "batches" if batch else call_of.get(line.request_id, "?") if untold else line.request_id
        sides[name].billed.append(line)
    different = [side for side in sides.values() if side.apart_nanousd]
    return Books(
        ledger_nanousd=sum(entry.nanousd for entry in entries),
        bill_nanousd=sum(line.cost_nanousd for line in lines),
        exact=len(sides) - len(different),
        guessed=[side for side in different if side.guessed],
        wrong=[side for side in different if not side.guessed],
    )


def _within(side: Side) -> bool:
    aside = sum(entry.estimated_nanousd for entry in side.booked)
    output = sum(_output_nanousd(line) for line in side.billed)
    might = len(side.booked) * MAX_TOKENS * DEAREST_NANOUSD
    return -output <= side.apart_nanousd <= aside + might


def _output_nanousd(line: BillLine) -> int:
    """All of its output, at the dearest price of the models that are called here: $25 for a million."""
    return int(line.usage.get("output_tokens") or 0) * DEAREST_NANOUSD
