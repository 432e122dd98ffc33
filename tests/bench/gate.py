"""Whether the gateway has become dearer: its multiples of nginx against those of a run that was kept.

Multiples of one run hardly depend on the machine, so they can be compared where figures cannot. After a
change that is meant, write `baseline.json` anew:

    python -m tests.bench.gate RESULTS.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

BASELINE = Path(__file__).parent / "baseline.json"
TOLERANCE = 0.3
"""By this share a multiple may be higher than it was: cores that others load move it by half as much."""
GATED = ("gateway", "with Redis")
FIRST = "nginx"
_UNIT = "µs CPU"
"""Only what the scheduler counts is judged, and no latency."""

Ratios = dict[str, dict[str, float]]


def ratios(results: Mapping[str, Mapping[str, float]]) -> Ratios:
    """By row and target."""
    return {
        row: {name: round(values[name] / values[FIRST], 2) for name in GATED if name in values}
        for row, values in results.items()
        if _UNIT in row and values.get(FIRST, 0.0) > 0
    }


def judge(results: Mapping[str, Mapping[str, float]], baseline: Path = BASELINE) -> list[str]:
    """A sentence for each multiple that has grown by more than `TOLERANCE`. Rows that only one of the two
    has are passed over."""
    known: Ratios = json.loads(baseline.read_text())["ratios"]
    return [
        f"{row}: {name} is at {now:.2f} times {FIRST}, and was at {before:.2f}"
        for row, found in ratios(results).items()
        for name, now in found.items()
        if (before := known.get(row, {}).get(name)) is not None and now > before * (1 + TOLERANCE)
    ]


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text())
    kept = {"conditions": document["conditions"], "ratios": ratios(document["results"])}
    BASELINE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
