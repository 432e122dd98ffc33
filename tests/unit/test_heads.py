"""What is kept of tools and system. Which changes are found is in `test_changes.py`."""

from __future__ import annotations

from gateway.core.heads import MAX_HEADS
from gateway.core.misses import Looks, MissCause
from tests.support.bodies import desk_body
from tests.support.changing import Looker


def test_a_workspace_with_many_applications_keeps_those_seen_last() -> None:
    looker = Looker()
    for app in range(MAX_HEADS + 6):
        looker.ask(desk_body(app=app, slot="12:00:01"))
    found = [looker.ask(desk_body(app=app, slot="12:00:02")) for app in reversed(range(MAX_HEADS + 6))]

    assert all(miss is not None and miss.looks_like == Looks.TIMESTAMP for miss in found[:10])
    assert found[-1] is None


def test_a_change_replaces_what_it_is_a_change_of() -> None:
    """Otherwise an application that changes on every request would push out all others of its workspace."""
    looker = Looker()
    looker.ask(desk_body(app=1, slot="12:00:00"))
    for second in range(59):
        looker.ask(desk_body(app=2, slot=f"12:01:{second:02}"))
    miss = looker.ask(desk_body(app=1, slot="12:02:00"))

    assert miss is not None
    assert miss.looks_like == Looks.TIMESTAMP


def test_the_same_workspace_comes_before_another_one() -> None:
    looker, body = Looker(), desk_body(turns=1)
    looker.ask(body, workspace="a")
    looker.ask({**body, "model": "claude-opus-5-5"}, workspace="b")
    miss = looker.ask(body, workspace="b")

    assert miss is not None
    assert miss.cause is MissCause.OTHER_MODEL


def test_another_workspace_that_has_changed_too_is_not_compared() -> None:
    looker = Looker()
    looker.ask(desk_body(slot="12:00:01"), workspace="a")

    assert looker.ask(desk_body(slot="12:00:02"), workspace="b") is None


def test_what_the_planner_knows_is_no_change_though_it_was_never_looked_at() -> None:
    looker, other = Looker(), Looker()
    looker.ask(desk_body(slot="12:00:01"))
    other.ask(desk_body(slot="12:00:02"))
    looker.known |= other.known

    assert looker.ask(desk_body(slot="12:00:02")) is None
