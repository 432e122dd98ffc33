from __future__ import annotations

from msgspec.structs import replace

from gateway.core.misses import MissCause
from gateway.core.planner.entries import Entries
from gateway.core.planner.index import HOUR, LAYERED, PrefixTable
from gateway.core.planner.values import Decision, Mark, Question, Why
from tests.unit.planner.conversations import ask

BLOCKS = [("s1", 2000), ("u1", 1000), ("a1", 500), ("u2", 500)]


class Sent:
    """A table to which prompts are sent."""

    def __init__(self) -> None:
        self.table = PrefixTable(256)
        self.entries = Entries(self.table)

    def send(self, question: Question, marks: list[tuple[int, bool]], now: float) -> list[int]:
        slots = [self.table.add(key, now) for key in question.keys]
        read_at = self.entries.find(question, slots, now).read_at
        points = tuple(Mark(at, hour, Why.WRITE_TAIL) for at, hour in marks)
        return self.entries.send(question, slots, Decision(points, Why.WRITE_TAIL, read_at=read_at), now)

    def found(self, question: Question, now: float) -> tuple[int, int, int]:
        found = self.entries.find(question, self.slots(question), now)
        return found.read_at, found.pending_at, found.hour_at

    def slots(self, question: Question) -> list[int]:
        return [self.table.find(key) for key in question.keys]


def test_written_prefix_is_in_flight_until_the_first_byte() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    written = sent.send(question, [(1, False), (3, False)], 10.0)

    assert sent.found(question, 10.5) == (-1, 3, -1)
    sent.entries.answered(1, written)
    assert sent.found(question, 10.5) == (3, -1, -1)


def test_entry_lives_its_ttl_from_sending() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    sent.entries.answered(1, sent.send(question, [(1, True), (3, False)], 10.0))

    assert sent.found(question, 309.9) == (3, -1, 1)
    assert sent.found(question, 310.0) == (1, -1, 1)
    assert sent.found(question, 3610.0) == (-1, -1, -1)


def test_read_prolongs_what_it_reads_and_what_is_marked_before_it() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    sent.entries.answered(1, sent.send(question, [(0, False), (1, False), (3, False)], 0.0))
    sent.send(question, [(0, False)], 200.0)

    assert sent.found(question, 450.0)[0] == 3
    assert sent.entries.alive(question, sent.slots(question), 0, 450.0)
    assert not sent.entries.alive(question, sent.slots(question), 1, 450.0)


def test_mark_before_what_is_read_writes_nothing() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    sent.entries.answered(1, sent.send(question, [(3, False)], 0.0))

    assert sent.send(question, [(1, True), (3, False)], 10.0) == []
    assert not sent.entries.alive(question, sent.slots(question), 1, 10.0)


def test_hour_behind_five_minutes_is_layered_and_behind_nothing_is_not() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    sent.entries.answered(1, sent.send(question, [(0, True), (1, False)], 0.0))
    sent.send(question, [(3, True)], 10.0)
    slots = sent.slots(question)

    assert sent.table.flags[slots[0]] & (HOUR | LAYERED) == HOUR
    assert sent.table.flags[slots[3]] & LAYERED


def test_prefix_below_the_minimum_is_never_believed_cached() -> None:
    sent, question = Sent(), ask(1, [("s1", 500), ("u1", 1000)])
    sent.entries.answered(1, sent.send(question, [(0, False), (1, False)], 0.0))

    assert not sent.entries.alive(question, sent.slots(question), 0, 1.0)
    assert sent.entries.alive(question, sent.slots(question), 1, 1.0)


def test_clients_breakpoint_searches_twenty_positions() -> None:
    sent = Sent()
    blocks = [(f"u{at}", 2000) for at in range(40)]
    first = ask(1, blocks[:10])
    sent.entries.answered(1, sent.send(first, [(9, False)], 0.0))

    near, far = ask(2, blocks), ask(3, blocks)

    assert sent.entries.reach(((28, False),), near.keys, sent.slots(near), 1.0) == 9
    assert sent.entries.reach(((29, False),), far.keys, sent.slots(far), 1.0) == -1
    miss = sent.entries.miss(far, sent.slots(far), -1, 1.0)
    assert miss is not None
    assert miss.cause is MissCause.BEYOND_LOOKBACK


def test_each_miss_has_its_cause() -> None:
    sent, question, short = Sent(), ask(1, BLOCKS), ask(2, [("s9", 400), ("u1", 100)])
    written = sent.send(question, [(3, False)], 0.0)
    sent.send(short, [], 0.0)

    def cause(asked: Question, now: float) -> MissCause | None:
        miss = sent.entries.miss(asked, sent.slots(asked), -1, now)
        return miss.cause if miss else None

    assert cause(question, 1.0) is MissCause.PARALLEL_TWIN
    assert cause(question, 400.0) is MissCause.EXPIRED
    assert cause(short, 1.0) is MissCause.BELOW_MINIMUM
    sent.entries.lost(written)
    assert cause(question, 1.0) is MissCause.GONE_EARLY


def test_expired_miss_says_by_how_much() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    sent.entries.answered(1, sent.send(question, [(3, False)], 0.0))
    miss = sent.entries.miss(question, sent.slots(question), -1, 312.5)

    assert miss is not None
    assert (miss.seconds, miss.tokens) == (12.5, 4000)


def test_learns_of_entries_that_others_wrote() -> None:
    sent, question = Sent(), ask(1, BLOCKS)
    sent.entries.learn(question.keys[1], hour=True, until=500.0, now=1.0)

    assert sent.entries.alive(question, sent.slots(question), 1, 499.0)


def test_a_block_left_out_of_the_prefix_is_not_where_it_is_read() -> None:
    """A deferred tool has the key of the block before it, and the API refuses a breakpoint on it."""
    sent, question = Sent(), ask(1, BLOCKS)
    keys = [question.keys[0], question.keys[0], *question.keys[1:]]
    deferred = replace(question, keys=keys, ends=[2000, 2000, 3000, 3500, 4000], unmarkable=frozenset({1}))
    written = sent.send(deferred, [(0, False)], 0.0)
    sent.entries.answered(1, written)

    assert sent.found(deferred, 1.0)[0] == 0
    assert sent.found(replace(deferred, unmarkable=frozenset()), 1.0)[0] == 1
