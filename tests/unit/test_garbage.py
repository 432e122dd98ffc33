"""Fewer looks for cycles, and none of them kept; and threads that give way."""

from __future__ import annotations

import json
import subprocess
import sys

from gateway.adapters.garbage import GIVE_WAY_SECONDS

CYCLES = """
import gc, json
from gateway.adapters.garbage import MIDDLE, OLD, YOUNG, spare_what_stays

class Call:
    def __init__(self):
        self.itself, self.body = self, b"x" * 1_000

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

spare_what_stays()
frozen = gc.get_freeze_count()
running = [Call() for _ in range(1_000)]
begun = resident()
for number in range(300_000):  # each ends as another begins, and leaves a cycle behind
    running[number % 1_000] = Call()
print(json.dumps([frozen, gc.get_threshold() == (YOUNG, MIDDLE, OLD), resident() - begun]))
"""


def test_what_stays_is_spared_and_cycles_are_still_freed() -> None:
    """In a process of its own, since it is told to the whole interpreter. Kept, they would be 300 MB."""
    out = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, check=True, timeout=120).stdout
    frozen, told, grown = json.loads(out)

    assert frozen > 1_000
    assert told
    assert grown < 100_000_000


def test_a_thread_that_computes_gives_way_soon() -> None:
    told = (
        "import sys; from gateway.adapters.garbage import *; give_way_soon(); print(sys.getswitchinterval())"
    )
    out = subprocess.run([sys.executable, "-c", told], capture_output=True, check=True, timeout=120).stdout

    assert float(out) == GIVE_WAY_SECONDS
