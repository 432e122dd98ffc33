"""Python's cycle collector, told what it need not look at.

What is loaded by the time the gateway listens (modules, rules, tables) stays until it ends, and yet every
full collection would walk through all of it. Nothing here frees or keeps anything that is in use: what has no
cycle is freed at once by its reference count, as ever.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 25_000, 20, 10
"""Objects made and not freed again before the youngest are looked at; how many such looks there are for one
at the next older, and of those for one at the oldest. A call leaves some hundreds open while it runs, so that
the default of 700 looks at each of them several times while all are in use."""


def spare_what_stays() -> None:
    """Call once, when everything is built and nothing is served yet."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
