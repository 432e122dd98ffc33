"""What `gateway reconcile --metrics-file` writes: three gauges for the textfile collector of node_exporter.

They are about a command, so the gateway's own page does not have them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.core.ledger import usd
from gateway.core.reconcile import Reconciliation, Verdict

COMPARED_AT: Final = "gateway_reconcile_compared_timestamp_seconds"
DIFFERING: Final = "gateway_reconcile_differing_rows"
UNEXPLAINED: Final = "gateway_reconcile_unexplained_usd"


def write_metrics(path: Path, found: Reconciliation, at: float) -> None:
    """Replace the file in one step, so that no half of it is ever read. Where there is no telling it is left
    alone: its age then says so. Raises OSError."""
    if found.verdict is Verdict.CANNOT_TELL:
        return
    unexplained = sum(abs(round(row.unexplained.nanousd)) for row in found.differing)
    gauges = (
        (COMPARED_AT, "When ledger and reports were last compared, epoch seconds.", f"{at:.0f}"),
        (DIFFERING, "Rows in which they differ for no known cause.", str(len(found.differing))),
        (UNEXPLAINED, "US dollars of these rows that nothing explains, either way.", usd(unexplained)),
    )
    page = "".join(
        f"# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {value}\n" for name, meaning, value in gauges
    )
    newer = path.with_name(f".{path.name}.new")
    newer.write_text(page, encoding="ascii")
    newer.replace(path)
