"""Which body is remembered for which conversation, and for how long."""

from __future__ import annotations

from pathlib import Path

from gateway.core.ids import WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.plan import Reading, read_call
from gateway.core.recent import FORGOTTEN_AT_ONCE, LIFETIME_SECONDS, RecentBodies
from gateway.core.rules import Rules
from tests.support.bodies import dump
from tests.support.fakes import make_rules
from tests.unit.planner.callers import QUIET

ONE, TWO = WorkspaceId("demo"), WorkspaceId("other")


def a_body(first: str, *more: str) -> bytes:
    said = [{"role": "user", "content": text} for text in (first + " " * 9_000, *more)]
    return dump({"model": "claude-opus-5-5", "max_tokens": 9, "system": "s" * 3_000, "messages": said})


def read(rules: Rules, body: bytes, like: Reading | None = None) -> Reading:
    policy = LearnedPolicy(QUIET)
    return read_call(
        body, rules=rules, workspace=rules.workspaces[ONE], policy=policy, headers=(), wanted=True, like=like
    )


def test_finds_the_conversation_and_no_other(tmp_path: Path) -> None:
    rules, recent = make_rules(tmp_path, {}), RecentBodies(1 << 20)
    first = read(rules, a_body("a"))
    recent.keep(ONE, first, 0.0)

    assert recent.find(ONE, a_body("a", "b"), 1.0) is first
    assert recent.find(TWO, a_body("a", "b"), 1.0) is None
    assert recent.find(ONE, a_body("b"), 1.0) is None


def test_keys_go_on_turn_after_turn(tmp_path: Path) -> None:
    """Each turn digests what is new only, and remembers no more states than the next one may need."""
    rules, said = make_rules(tmp_path, {}), ["b"]
    reading = read(rules, a_body("a"))
    for turn in range(20):
        said.append(f"turn {turn}")
        body = a_body("a", *said)
        reading = read(rules, body, reading)
        assert reading.keys == read(rules, body).keys
        assert reading.prompt.shared_messages == (len(said) if turn else 1)
        assert reading.chain is not None
        assert max(reading.chain.states) == len(said) + 1
        assert len(reading.chain.states) <= 5


def test_forgets_in_time_and_for_want_of_room(tmp_path: Path) -> None:
    rules, recent = make_rules(tmp_path, {}), RecentBodies(30_000)
    for name in "abc":
        recent.keep(ONE, read(rules, a_body(name)), 0.0)

    assert recent.bytes <= 30_000
    assert recent.find(ONE, a_body("a"), 1.0) is None
    assert recent.find(ONE, a_body("c"), 1.0) is not None
    assert recent.find(ONE, a_body("c"), LIFETIME_SECONDS + 1.0) is None
    assert (len(recent), recent.bytes) == (0, 0)


def test_many_that_end_at_the_same_time_are_forgotten_a_few_at_a_time(tmp_path: Path) -> None:
    rules, recent = make_rules(tmp_path, {}), RecentBodies(100_000_000)
    count = 2 * FORGOTTEN_AT_ONCE + 3
    for number in range(count):
        recent.keep(ONE, read(rules, a_body(f"conversation {number}")), 0.0)

    left = []
    for _ in range(4):
        recent.expire(LIFETIME_SECONDS + 1.0)
        left.append(len(recent))

    assert left == [count - FORGOTTEN_AT_ONCE, 3, 0, 0]
    assert recent.bytes == 0


def test_keeps_nothing_where_there_is_no_room(tmp_path: Path) -> None:
    recent = RecentBodies(0)
    recent.keep(ONE, read(make_rules(tmp_path, {}), a_body("a")), 0.0)

    assert len(recent) == 0
