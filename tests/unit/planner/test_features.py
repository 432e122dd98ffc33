from __future__ import annotations

from gateway.core.planner.features import Place, shape_of, shared_contexts, tail_contexts
from gateway.core.planner.values import Kind
from tests.unit.planner.conversations import ask

T, S, U, A = Kind.TOOLS, Kind.SYSTEM, Kind.USER, Kind.ASSISTANT


def test_shape_counts_answers_and_finds_the_ends_of_tools_and_system() -> None:
    shape = shape_of(bytes([T, T, S, U, A, A, U, A, U]))

    assert (shape.answers, shape.tools_end, shape.system_end) == (2, 1, 2)


def test_shape_of_a_prompt_without_tools_or_system() -> None:
    shape = shape_of(bytes([U, U]))

    assert (shape.answers, shape.tools_end, shape.system_end) == (0, -1, -1)


def test_tools_end_stands_in_for_a_missing_system() -> None:
    assert shape_of(bytes([T, T, U])).system_end == 1


def test_unknown_prompt_is_nobody_in_particular() -> None:
    one, other = ask(1, [("s1", 100), ("u1", 100)]), ask(2, [("s2", 100), ("u2", 100)])

    assert tail_contexts(one, shape_of(one.kinds), -1, 0.0) == tail_contexts(
        other, shape_of(other.kinds), -1, 0.0
    )


def test_known_applications_learn_for_themselves_after_the_general() -> None:
    one, other = ask(1, [("s1", 100), ("u1", 100)]), ask(2, [("s2", 100), ("u1", 100)])
    first = tail_contexts(one, shape_of(one.kinds), 0, 5.0)
    second = tail_contexts(other, shape_of(other.kinds), 0, 5.0)

    assert first[:3] == second[:3]
    assert not set(first[3:]) & set(second[3:])


def test_pause_before_a_later_turn_is_told_apart() -> None:
    turn = ask(1, [("s1", 100), ("u1", 100), ("a1", 10), ("u2", 100)])
    shape = shape_of(turn.kinds)

    assert tail_contexts(turn, shape, 1, 5.0) != tail_contexts(turn, shape, 1, 500.0)


def test_shared_boundary_learns_for_itself_once_seen_again() -> None:
    question = ask(1, [("s1", 100), ("u1", 100)])

    assert len(shared_contexts(question, Place.SYSTEM_END, 0, 0)) == 2
    assert len(shared_contexts(question, Place.SYSTEM_END, 0, 1)) == 3
