"""Where breakpoints go and for how long, which requests wait, what is kept alive: learned from traffic.

Start at `planner.py`; what goes in and out is in `values.py`. Pure: no IO, no clock, no randomness.
"""

from gateway.core.planner.planner import Planner
from gateway.core.planner.values import (
    Decision,
    Kind,
    Mark,
    PlannerOptions,
    Prices,
    Question,
    Reported,
    Warm,
    Why,
    compact_key,
    compact_keys,
)

__all__ = [
    "Decision",
    "Kind",
    "Mark",
    "Planner",
    "PlannerOptions",
    "Prices",
    "Question",
    "Reported",
    "Warm",
    "Why",
    "compact_key",
    "compact_keys",
]
