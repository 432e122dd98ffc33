"""Where each rule puts its breakpoints."""

from __future__ import annotations

import pytest

from gateway.replay.by_shape import marks_by_rule
from gateway.replay.contestants import contestants, question_of
from gateway.replay.play import POLICIES
from gateway.replay.request import Marks
from tests.unit.replay.test_run import a_request

AGENT = (
    ("t1", 4_000),
    ("s1", 4_000),
    ("u1", 100),
    ("a1", 100),
    ("u2", 100),
    ("u3", 100),
    ("a2", 9),
    ("u4", 9),
)
ASSISTANT_LAST = (("u1", 2_000), ("a1", 500))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", ()),
        ("recorded", ()),
        ("automatic-5m", ((7, False),)),
        ("automatic-1h", ((7, True),)),
        ("system-5m", ((1, False),)),
        ("system-1h", ((1, True),)),
        ("system+last", ((1, False), (7, False))),
        ("two-turns", ((1, False), (5, False), (7, False))),
        ("rules", ((0, False), (1, False), (5, False), (7, False))),
    ],
)
def test_each_rule_goes_by_the_shape(name: str, expected: Marks) -> None:
    contestant = next(one for one in contestants() if one.name == name)

    assert contestant.plan(a_request(0, 0.0, AGENT), 0.0, may_wait=True).marks == expected


@pytest.mark.parametrize("name", ["system-5m", "system-1h"])
def test_without_a_system_prompt_there_is_nothing_to_mark(name: str) -> None:
    contestant = next(one for one in contestants() if one.name == name)

    assert contestant.plan(a_request(0, 0.0, ASSISTANT_LAST), 0.0, may_wait=True).marks == ()


def test_a_prompt_that_ends_with_an_answer_has_its_turns_before() -> None:
    two_turns = next(one for one in contestants() if one.name == "two-turns")

    assert two_turns.plan(a_request(0, 0.0, ASSISTANT_LAST), 0.0, may_wait=True).marks == ((0, False),)
    assert two_turns.plan(a_request(0, 0.0, (("a1", 2_000),)), 0.0, may_wait=True).marks == ((0, False),)


def test_what_was_not_to_be_decided_is_followed_by_the_gateways_own_policies() -> None:
    """Their clients' breakpoints stay whatever policy is chosen; a client's own rule could be another one."""
    request = a_request(0, 0.0, AGENT, given=((1, True),), sent=((1, True),))

    assert marks_by_rule(request) == ((1, True),)
    assert question_of(request).fixed == ((1, True),)
    assert not question_of(request).decided


def test_all_have_names_of_their_own() -> None:
    assert len(set(POLICIES)) == len(POLICIES) == 10
