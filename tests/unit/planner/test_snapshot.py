from __future__ import annotations

import threading
import zlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.planner import Planner, PlannerOptions, snapshot
from tests.support.remembered import dumped
from tests.unit.planner.conversations import Blocks, Upstream, ask


def turns(session: int, count: int) -> Blocks:
    return [("s1", 3000), *((f"{'ua'[at % 2]}{session}.{at}", 300) for at in range(2 * count - 1))]


def taught(planner: Planner) -> Upstream:
    upstream, now = Upstream(planner), 0.0
    for number in range(120):
        upstream.send(ask(number, turns(number // 6, 1 + number % 6)), now)
        now += 20.0
    upstream.run_until(now)
    return upstream


def test_restored_planner_decides_as_the_one_it_was_taken_from() -> None:
    planner = Planner(PlannerOptions(capacity=4096, warming=False))
    taught(planner)
    other = Planner(PlannerOptions(capacity=4096, warming=False))

    assert snapshot.restore(other, snapshot.read(dumped(planner)))
    for number, blocks in enumerate([turns(19, 6), turns(50, 1), turns(3, 2)]):
        question = ask(1000 + number, blocks)
        assert planner.plan(question, 2500.0) == other.plan(question, 2500.0)


def test_table_of_another_size_is_filled_prefix_by_prefix() -> None:
    planner = Planner(PlannerOptions(capacity=4096))
    taught(planner)
    larger = Planner(PlannerOptions(capacity=16384))

    assert snapshot.restore(larger, snapshot.read(dumped(planner)))
    assert larger.table.used == planner.table.used


def test_memory_of_another_version_is_not_taken_up() -> None:
    planner = Planner(PlannerOptions(capacity=64))
    taken = replace(snapshot.read(dumped(planner)), made_by=b"other")

    assert not snapshot.restore(Planner(PlannerOptions(capacity=64)), taken)


def test_damaged_memory_is_not_taken_up() -> None:
    planner = Planner(PlannerOptions(capacity=64))
    taken = snapshot.read(dumped(planner))

    assert not snapshot.restore(Planner(), replace(taken, keys=taken.keys[:-8]))
    assert not snapshot.restore(Planner(), replace(taken, reached=b""))


def test_goes_through_one_string_of_bytes() -> None:
    planner = Planner(PlannerOptions(capacity=4096, warming=False))
    taught(planner)
    other = Planner(PlannerOptions(capacity=4096, warming=False))
    data = dumped(planner)

    assert snapshot.load(other, data)
    assert dumped(other) == data
    assert len(zlib.compress(data, 1)) < len(data) / 5


def test_another_thread_takes_it_while_the_planner_goes_on() -> None:
    planner = Planner(PlannerOptions(capacity=4096, warming=False))
    upstream = taught(planner)
    pieces = snapshot.dump(planner, 2400.0)
    upstream.send(ask(500, turns(77, 3)), 2500.0)
    taken: list[bytes | memoryview] = []
    thread = threading.Thread(target=lambda: taken.extend(pieces))
    thread.start()
    thread.join()
    other = Planner(PlannerOptions(capacity=4096, warming=False))

    tables = [piece.obj for piece in taken if isinstance(piece, memoryview)]
    assert tables[0] is planner.table.keys, "nothing is copied"
    assert snapshot.load(other, b"".join(taken))
    later = ask(1000, turns(19, 6))
    assert planner.plan(later, 2600.0).read_at == other.plan(later, 2600.0).read_at >= 0


@given(st.binary(max_size=64), st.integers(0, 400))
def test_no_damage_is_taken_up_or_raises(rubbish: bytes, at: int) -> None:
    planner = Planner(PlannerOptions(capacity=16))
    data = dumped(planner)
    at = at * len(data) // 400
    snapshot.load(Planner(PlannerOptions(capacity=16)), data[:at] + rubbish + data[at + len(rubbish) :])

    assert not snapshot.load(Planner(), rubbish)
    assert not snapshot.load(Planner(), data[:-1])


def test_belief_that_cannot_be_is_not_taken_up() -> None:
    taken = snapshot.read(dumped(Planner(PlannerOptions(capacity=64))))

    assert not snapshot.restore(Planner(), replace(taken, trust=(2.0, 1.0)))
    assert not snapshot.restore(Planner(), replace(taken, accounts=b"x"))
