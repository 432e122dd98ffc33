from __future__ import annotations

from gateway.core.planner.expecting import access, boundaries, watch
from gateway.core.planner.features import shape_of
from gateway.core.planner.index import BRANCH, HAS_CHILD, PrefixTable
from gateway.core.planner.reuse import Reuse
from tests.unit.planner.conversations import Blocks, ask


class Learning:
    def __init__(self) -> None:
        self.table, self.reuse, self.number = PrefixTable(1024), Reuse(), 0

    def see(self, blocks: Blocks, now: float) -> set[int]:
        """Blocks of this prompt at which others are expected."""
        self.number += 1
        question = ask(self.number, blocks)
        self.reuse.advance(now)
        slots = self.table.find_path(question.keys, 8)
        known = len(slots)
        where = boundaries(self.table, question, slots, shape_of(question.kinds), now)
        access(self.table, self.reuse, question, slots, where, now)
        for at, key in enumerate(question.keys):
            slot = self.table.add(key, now)
            if at >= known - 1 and at < len(question.keys) - 1:
                self.table.flags[slot] |= HAS_CHILD
        watch(self.reuse, question.keys, where, now)
        return set(where.shared)


def test_end_of_system_is_expected_to_be_shared_from_the_first_request() -> None:
    assert Learning().see([("t1", 10), ("s1", 10), ("u1", 10)], 0.0) == {0, 1}


def test_place_where_two_prompts_part_becomes_a_shared_one() -> None:
    learning = Learning()
    learning.see([("u1", 10), ("u2", 10), ("u3", 10)], 0.0)

    assert learning.see([("u1", 10), ("u2", 10), ("u4", 10)], 1.0) == {1}
    assert learning.table.flags[learning.table.find(ask(9, [("u1", 10)]).keys[0])] & BRANCH == 0


def test_next_turn_of_a_session_is_no_fork() -> None:
    learning = Learning()
    learning.see([("u1", 10), ("u2", 10)], 0.0)

    assert learning.see([("u1", 10), ("u2", 10), ("a1", 10), ("u3", 10)], 1.0) == set()


def test_prompt_that_comes_again_is_expected_again() -> None:
    learning = Learning()
    learning.see([("u1", 10), ("u2", 10)], 0.0)

    assert learning.see([("u1", 10), ("u2", 10)], 1.0) == {1}


def test_a_shared_boundary_that_takes_no_breakpoint_is_expected_before_it() -> None:
    table = PrefixTable(1024)
    blocks = [("t1", 900), ("t2", 10), ("s1", 900), ("s2", 1), ("u1", 50)]

    def shared(**more: object) -> set[int]:
        question = ask(1, blocks, None, **more)
        return set(boundaries(table, question, [], shape_of(question.kinds), 0.0).shared)

    assert shared() == {1, 3}
    assert shared(unmarkable=frozenset({1, 3})) == {0, 2}
    assert shared(unmarkable=frozenset({0, 1, 3})) == {2}
    assert shared(unmarkable=frozenset({3}), fixed=((3, False),)) == {1, 3}, "the client's own stands there"
