"""The interpreter, told how to serve many: what its cycle collector need not look at, and how soon a thread
gives way to the loop.

What is loaded by the time the gateway listens (modules, rules, tables) stays until it ends, and yet every
full collection would walk through all of it. Nothing here frees or keeps anything that is in use: what has no
cycle is freed at once by its reference count, as ever. Values that are made for each call are structs with
`gc=False` for that reason: they hold only what was there before them, so no cycle leads through them, and the
collector need neither count nor visit them.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord

YOUNG, MIDDLE, OLD = 4_000, 4, 10
"""Objects made and not freed again before the youngest are looked at; how many such looks there are for one
at the next older, and of those for one at the oldest. A call leaves some hundreds open while it runs, so that
the default of 700 looks at each of them several times while all are in use; and the loop stands still for as
long as a look takes, some 2 ms for so many that stay. With 20 looks for one at the next older, 2,000 streams
that began within seconds took 17 ms of it."""
LOOK_CALLS, LOOK_BYTES = 16, 8_000_000
"""Calls that ended, and bytes of their bodies, after which the youngest are looked at in any case. The
interpreter counts what was made less what was freed: where each new body takes the place of an older one, the
count stands still, while what came with hundreds of bodies waits for one look, of 10 to 14 ms."""
GIVE_WAY_SECONDS = 0.001
"""How long a thread that computes keeps the interpreter while another waits. By default it is five times as
long, and for each thread before the loop's turn comes."""


def spare_what_stays() -> None:
    """Call once, when everything is built and nothing is served yet."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def give_way_soon() -> None:
    """Call once, before there are threads."""
    sys.setswitchinterval(GIVE_WAY_SECONDS)


class YoungLooks:
    """`ports.Observer` that has the collector look at the youngest objects while they are few."""

    def __init__(self) -> None:
        self._calls = self._bytes = 0

    def observe(self, record: ExchangeRecord) -> None:
        self._calls += 1
        self._bytes += record.request_bytes
        if self._calls >= LOOK_CALLS or self._bytes >= LOOK_BYTES:
            self._calls = self._bytes = 0
            gc.collect(0)
