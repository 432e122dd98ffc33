"""What is kept of conversations. Which edits are told from branches is in `test_changes.py`."""

from __future__ import annotations

from gateway.core.misses import Looks, MissCause
from gateway.core.threads import MAX_SIZES
from tests.support.bodies import desk_body
from tests.support.changing import Looker


def test_a_long_conversation_takes_no_more_than_a_bound_and_is_still_followed() -> None:
    looker = Looker()
    long = desk_body(turns=MAX_SIZES)
    looker.ask({**long, "messages": long["messages"][:-4]})
    looker.ask({**long, "messages": long["messages"][:-2]})
    size = looker.changes.size_bytes
    assert looker.ask(long) is None
    assert looker.changes.size_bytes == size

    long["messages"][-9]["content"][0]["text"] = "[cleared]"
    more = desk_body(turns=MAX_SIZES + 1)["messages"][-2:]
    miss = looker.ask({**long, "messages": long["messages"] + more})

    assert miss is not None
    assert miss.looks_like == Looks.SHORTENED


def test_memory_is_given_back_as_conversations_are_forgotten() -> None:
    looker = Looker(capacity_bytes=100_000)
    for chat in range(200):
        for turns in (2, 3):
            looker.ask(desk_body(chat=chat, turns=turns), seconds=1)

    assert looker.changes.size_bytes <= 100_000
    assert len(looker.changes._threads._parents) <= len(looker.changes._threads._tips) < 50


def test_a_conversation_that_was_longest_silent_is_forgotten_first() -> None:
    looker, busy = Looker(capacity_bytes=100_000), desk_body(chat=999, turns=8)
    for chat in range(60):
        looker.ask({**busy, "messages": busy["messages"][:11]})
        looker.ask(desk_body(chat=chat, turns=3))
    busy["messages"][4]["content"][0]["text"] = "[cleared]"
    miss = looker.ask(busy)

    assert miss is not None
    assert miss.cause is MissCause.CHANGED


def test_a_prompt_that_was_forgotten_elsewhere_is_not_changed() -> None:
    looker = Looker()
    looker.ask(desk_body(turns=4))
    looker.known.clear()

    assert looker.ask(desk_body(turns=5)) is None
