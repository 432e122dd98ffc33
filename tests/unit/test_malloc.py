"""The allocator gives back what lies idle between what is in use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gateway.web import malloc
from gateway.web.malloc import (
    GROWN_BYTES,
    LONGEST_SECONDS,
    MORE_STREAMS,
    IdleMemory,
    give_back_idle_memory,
    keep_freed_memory,
)

GAPS = """
import json
from gateway.web.malloc import give_back_idle_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
before = resident()
kept, bodies = [], []
for _ in range(500):
    bodies.append(b"x" * 133_000)  # a request's body, and behind it
    kept.append(b"y" * 1_000)      # what its stream keeps
bodies.clear()                     # all are sent: gaps, with something in use between them
grown = resident() - before
given = give_back_idle_memory()
print(json.dumps([given, grown, resident() - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is only glibc's allocator to tell")
def test_gaps_between_what_is_in_use_are_given_back() -> None:
    """In a process of its own: this one's heap is full of other tests."""
    out = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, check=True, timeout=120).stdout
    given, grown, left = json.loads(out)

    assert given
    assert grown > 50_000_000
    assert left < 10_000_000


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert not keep_freed_memory()
    assert not give_back_idle_memory()


async def test_is_given_back_again_once_there_is_reason_to(monkeypatch: pytest.MonkeyPatch) -> None:
    now, resident = 0.0, 100 * 2**20
    given: list[float] = []
    monkeypatch.setattr(malloc, "resident_bytes", lambda: resident)
    monkeypatch.setattr(malloc, "give_back_idle_memory", lambda: given.append(now))
    memory = IdleMemory()

    async def look(at: float, streams: int) -> None:
        nonlocal now
        now = at
        await memory.look(at, streams)

    await look(5.0, 100)
    await look(10.0, 100 + MORE_STREAMS - 1)
    assert given == [5.0]

    await look(15.0, 100 + MORE_STREAMS)
    await look(20.0, 40)  # many have ended, and others come
    await look(25.0, 40 + MORE_STREAMS)
    assert given == [5.0, 15.0, 25.0]

    resident += GROWN_BYTES
    await look(30.0, 40)
    await look(35.0, 40)
    assert given == [5.0, 15.0, 25.0, 30.0]

    await look(30.0 + LONGEST_SECONDS, 40)
    assert given[-1] == 30.0 + LONGEST_SECONDS
