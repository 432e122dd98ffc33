"""Fewer looks for cycles, and none of them kept; and threads that give way."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from gateway.adapters.garbage import GIVE_WAY_SECONDS, LOOK_BYTES, LOOK_CALLS, YoungLooks
from tests.support.records import a_record

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


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def _young() -> weakref.ref[_Cycle]:
    """Something that only the collector frees."""
    return weakref.ref(_Cycle())


@pytest.fixture
def by_hand() -> Iterator[None]:
    """No look but those that are asked for."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("by_hand")
def test_the_youngest_are_looked_at_every_few_calls() -> None:
    looks, left = YoungLooks(), _young()
    for _ in range(LOOK_CALLS - 1):
        looks.observe(a_record())
    assert left() is not None

    looks.observe(a_record())

    assert left() is None


@pytest.mark.usefixtures("by_hand")
def test_large_bodies_are_looked_behind_sooner() -> None:
    looks, left = YoungLooks(), _young()
    looks.observe(a_record(request_bytes=LOOK_BYTES // 2))
    assert left() is not None

    looks.observe(a_record(request_bytes=LOOK_BYTES // 2))
    assert left() is None

    left = _young()  # and it counts from the beginning
    looks.observe(a_record(request_bytes=LOOK_BYTES // 2))
    assert left() is not None


TURNOVER = """
import gc
from gateway.adapters.garbage import YoungLooks, spare_what_stays
from gateway.core.ids import WorkspaceId
from gateway.core.plan import Reading
from gateway.core.prompt_reader import read_prompt
from gateway.core.models import ModelFacts
from gateway.core.recent import RecentBodies
from tests.support.bodies import agent_body, dump
from tests.support.records import a_record

facts = ModelFacts(id="m", minimum_cacheable_tokens=512, bytes_per_token=3.5)
recent, looks, most = RecentBodies(8_000_000), YoungLooks(), 0
spare_what_stays()
for number in range(600):  # the memory is full after sixty
    body = agent_body(size=120_000)
    body["messages"][0]["content"][0]["text"] = f"{number} " + body["messages"][0]["content"][0]["text"]
    prompt = read_prompt(dump(body))
    recent.keep(WorkspaceId("w"), Reading(prompt=prompt, facts=facts, scope=b"", chain=None), 0.0)
    del body, prompt
    if {looks}:
        looks.observe(a_record(request_bytes=120_000))
    most = max(most, len(gc.get_objects(generation=0)))
print(most)
"""


def test_bodies_that_replace_each_other_do_not_wait_for_one_long_look() -> None:
    """What was made and what was freed are as many, so the interpreter sees no reason to look."""
    waited = {}
    for looks in ("True", "False"):
        told = TURNOVER.replace("{looks}", looks)
        out = subprocess.run(
            [sys.executable, "-c", told], capture_output=True, check=True, timeout=120
        ).stdout
        waited[looks] = int(out)

    assert waited["True"] < waited["False"] / 2
