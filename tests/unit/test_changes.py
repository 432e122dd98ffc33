"""Prompts that are nearly one that was seen, with each kind of change; and those that merely look so."""

from __future__ import annotations

import random

import pytest

from gateway.core.changes import greater_miss
from gateway.core.misses import Looks, Miss, MissCause
from tests.support.bodies import (
    MARK,
    agent_body,
    ai_sdk_body,
    claude_code_body,
    desk_body,
    dump,
    words,
)
from tests.support.changed_bodies import HEADS, HISTORIES, SLOT, Body, Edit, edited, set_slot
from tests.support.changing import Looker


@pytest.mark.parametrize("name", HEADS)
def test_a_change_of_tools_or_system_is_told_with_its_place_and_its_looks(name: str) -> None:
    before, after, looks, where = HEADS[name]
    looker, body = Looker(), desk_body(turns=2, slot=SLOT)
    first = looker.ask(edited(body, before))
    miss = looker.ask(edited(body, after))

    assert first is None
    assert miss is not None
    assert (miss.cause, miss.looks_like, miss.where) == (MissCause.CHANGED, looks, where)
    assert miss.tokens > 1_000


@pytest.mark.parametrize("name", [name for name in HEADS if "timestamp" in name or "id" in name])
def test_the_byte_is_where_that_which_differs_begins(name: str) -> None:
    before, after, _, where = HEADS[name]
    looker, body = Looker(), desk_body(turns=2, slot=SLOT)
    looker.ask(edited(body, before))
    miss = looker.ask(new := edited(body, after))

    assert miss is not None
    assert miss.byte is not None
    text = new["system"] if where == "system" else new["system"][int(where[7:-1])]["text"]
    assert text[miss.byte].isdigit() or text[miss.byte :].startswith(("req_", "01H", "07K"))


def test_the_sentence_names_the_place() -> None:
    looker, body = Looker(), desk_body(turns=2, slot=SLOT)
    looker.ask(body)
    miss = looker.ask(edited(body, set_slot("The time is 2026-11-22T10:05:02Z.")))

    assert miss is not None
    assert miss.reason.startswith("system[1] changed at about byte 3,0")
    assert "where a timestamp stands; " in miss.reason


APP = desk_body(turns=3, slot=SLOT)
UNCHANGED: dict[str, Body] = {
    "the same again": APP,
    "next turn": desk_body(turns=4, slot=SLOT),
    "another app with the same tools": desk_body(app=1, turns=3),
    "another app without tools": {**desk_body(app=1, turns=3), "tools": []},
    "another conversation": desk_body(chat=1, turns=3, slot=SLOT),
    "the first question alone": desk_body(turns=0, slot=SLOT),
    "another first question": desk_body(chat=2, slot=SLOT),
    "another client": ai_sdk_body(),
    "a coding agent": claude_code_body(),
    "marks moved": edited(APP, lambda body: body["system"][0].update(cache_control=MARK)),
    "a last question asked anew": edited(
        APP, lambda body: body["messages"][-1].update(content="Answer in a word, please, and no more")
    ),
    "an earlier question asked anew": edited(
        {**APP, "messages": APP["messages"][:5]},
        lambda body: body["messages"][-1].update(content="Answer in a word, please, and no more"),
    ),
    "an answer made anew": edited(
        APP, lambda body: body["messages"][-2].update(content=words(700, 99)) or body["messages"].pop()
    ),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_prompt_that_goes_on_branches_off_or_is_another_did_not_change(name: str) -> None:
    looker = Looker()
    looker.ask(APP)

    assert looker.ask(UNCHANGED[name]) is None


def test_a_string_is_its_one_block_array() -> None:
    looker, text = Looker(), words(5_000, 4)
    looker.ask({**APP, "system": text})

    assert looker.ask({**APP, "system": [{"type": "text", "text": text}]}) is None


def test_the_attribution_of_claude_code_is_no_part_of_the_prompt() -> None:
    looker = Looker()
    looker.ask(claude_code_body(attribution="1a2"))

    assert looker.ask(claude_code_body(attribution="9f9")) is None


def test_what_was_seen_more_than_an_hour_ago_explains_nothing() -> None:
    looker = Looker()
    looker.ask(APP)

    assert looker.ask(edited(APP, set_slot("Now 2027-01-01T00:00:00Z.")), seconds=3_700) is None


def test_what_goes_on_beside_it_keeps_an_application_in_mind() -> None:
    """Only the first of its prompts is looked at closely; the others are seen to be known."""
    looker = Looker()
    for chat in range(5):
        looker.ask(desk_body(chat=chat, slot=SLOT), seconds=1_000)
    miss = looker.ask(edited(APP, set_slot("The time is 2026-11-22T10:05:02Z.")))

    assert miss is not None
    assert miss.looks_like == Looks.TIMESTAMP


@pytest.mark.parametrize("name", HISTORIES)
def test_an_edited_history_is_told_from_a_branch(name: str) -> None:
    before, after, looks, where = HISTORIES[name]
    looker = Looker()
    for turns in (4, 5, 6):
        assert looker.ask(edited(desk_body(turns=turns, slot=SLOT), before)) is None
    miss = looker.ask(edited(desk_body(turns=7, slot=SLOT), after))

    assert miss is not None
    assert (miss.cause, miss.looks_like, miss.where) == (MissCause.CHANGED, looks, where)


def test_a_reminder_that_moves_with_the_last_turn_is_found() -> None:
    reminder = {"type": "text", "text": words(300, 55)}
    looker = Looker()

    def remind(body: Body) -> None:
        body["messages"][-1]["content"].append(reminder)

    assert looker.ask(edited(desk_body(turns=3, slot=SLOT), remind)) is None
    for turns in (4, 5):
        miss = looker.ask(edited(desk_body(turns=turns, slot=SLOT), remind))

        assert miss is not None
        assert (miss.looks_like, miss.where) == (Looks.MOVED_BLOCK, f"messages[{2 * turns - 1}].content[0]")


def test_a_reminder_within_the_last_question_is_found() -> None:
    looker = Looker()

    def remind(body: Body) -> None:
        body["messages"][-1]["content"][0]["text"] += words(300, 55)

    assert looker.ask(edited(desk_body(turns=3, slot=SLOT), remind)) is None
    miss = looker.ask(edited(desk_body(turns=4, slot=SLOT), remind))

    assert miss is not None
    assert (miss.looks_like, miss.where) == (Looks.SHORTENED, "messages[6].content[0]")


def test_a_history_that_slides_is_found_every_time() -> None:
    looker = Looker()

    def last(count: int) -> Edit:
        return lambda body: body.update(messages=body["messages"][-count:])

    misses = [looker.ask(edited(desk_body(turns=turns, slot=SLOT), last(7))) for turns in range(1, 9)]

    assert misses[:3] == [None] * 3
    assert {miss and miss.looks_like for miss in misses[3:]} == {Looks.DROPPED_MESSAGES}


@pytest.mark.parametrize(
    ("more", "cause", "name"),
    [
        ({"model": "claude-opus-5-5"}, MissCause.OTHER_MODEL, ""),
        ({"speed": "fast"}, MissCause.OTHER_PARAMETER, "speed"),
        ({"inference_geo": "us"}, MissCause.OTHER_PARAMETER, "inference_geo"),
        ({"thinking": {"type": "adaptive"}}, MissCause.OTHER_PARAMETER, "thinking"),
        ({"tool_choice": {"type": "any"}}, MissCause.OTHER_PARAMETER, "tool_choice"),
        ({"output_config": {"effort": "low"}}, MissCause.OTHER_PARAMETER, "output_config"),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            MissCause.OTHER_PARAMETER,
            "output_config.format",
        ),
    ],
)
def test_the_same_prompt_under_another_scope_is_told_by_name(more: Body, cause: MissCause, name: str) -> None:
    looker = Looker()
    looker.ask(desk_body(turns=5, slot=SLOT))
    miss = looker.ask(desk_body(turns=6, slot=SLOT, **more))

    assert miss is not None
    assert (miss.cause, miss.looks_like) == (cause, name)


def test_another_beta_header_and_another_workspace_are_told() -> None:
    looker = Looker()
    looker.ask(APP)
    beta = looker.ask(APP, beta="context-1m-2025-08-07")
    elsewhere = looker.ask(APP, workspace="other")

    assert beta is not None
    assert (beta.cause, beta.looks_like) == (MissCause.OTHER_PARAMETER, "anthropic-beta")
    assert elsewhere is not None
    assert elsewhere.cause is MissCause.OTHER_WORKSPACE


def test_what_was_lost_counts_from_what_is_read_to_what_was_sent_before() -> None:
    looker = Looker()
    looker.ask(APP)
    early = looker.ask(edited(desk_body(turns=4), set_slot("The time is 2026-11-22T10:05:02Z.")))

    assert early is not None
    assert early.tokens > (len(dump(APP)) - len(dump({"tools": APP["tools"]}))) / 5


def test_nothing_is_missed_where_less_than_the_minimum_was_to_be_had() -> None:
    looker, changed = Looker(), edited(APP, set_slot("The time is 2026-11-22T10:05:02Z."))
    looker.ask(APP)

    assert looker.ask(changed, minimum_tokens=100_000) is None


def test_an_app_that_misses_every_time_is_looked_at_closely_now_and_then_and_still_counted() -> None:
    looker, body = Looker(), desk_body(slot=SLOT)
    looker.ask(body)
    looks = [
        looker.ask(edited(body, set_slot(f"The time is 2026-11-22T10:04:{number:05d}Z.")), seconds=0.001)
        for number in range(400)
    ]

    assert all(miss is not None and miss.looks_like == Looks.TIMESTAMP for miss in looks)


def test_at_a_glance_another_kind_of_change_is_not_taken_for_the_last_one() -> None:
    looker, body = Looker(), desk_body(slot=SLOT)
    for number in range(400):
        looker.ask(
            edited(body, set_slot(f"The time is 2026-11-22T10:04:{number:05d}Z.")),
            seconds=0.001 if number else 1,
        )

    assert looker.ask(edited(body, set_slot("Nothing is told of the time here.")), seconds=0.001) is None


def test_templated_traffic_of_equal_lengths_is_not_taken_for_one_conversation() -> None:
    """Load tests repeat a few lengths; a conversation's lengths differ."""
    looker = Looker()

    def chat(number: int, turns: int) -> Body:
        body = agent_body(turns=turns, tools=2, size=20_000)
        for at, message in enumerate(body["messages"]):
            message["content"] = words(400 if at % 2 else 120, 1_000 * number + at)
        return body

    for number in range(20):
        for turns in range(1, 6):
            assert looker.ask(chat(number, turns)) is None, (number, turns)


def test_memory_is_bounded_and_what_is_recent_is_kept() -> None:
    looker = Looker(capacity_bytes=1 << 18)
    for number in range(300):
        looker.ask(desk_body(app=number, turns=3), workspace=f"w{random.Random(number).randrange(40)}")
        assert looker.changes.size_bytes <= 1 << 18
    looker.ask(APP)

    assert looker.ask(edited(APP, set_slot("The time is 2026-11-22T10:05:02Z."))) is not None


def test_what_another_workspace_has_sent_replaces_nothing_that_is_ones_own() -> None:
    """A member must not be able to tell whether another workspace has ever sent the same."""
    told = []
    for elsewhere in (False, True):
        looker = Looker()
        later = edited(APP, set_slot("The time is 2026-11-22T10:05:02Z."))
        if elsewhere:
            looker.ask(later, workspace="other")
            looker.known.clear()
        looker.ask(APP)
        told.append([looker.ask(later), looker.ask(later), looker.ask(desk_body(turns=9, slot=SLOT))])

    assert told[0] == told[1]
    assert told[0][0] is not None
    assert told[0][0].cause is MissCause.CHANGED


def test_the_planners_own_miss_stands_before_another_workspaces() -> None:
    foreign, own = Miss(3, MissCause.OTHER_WORKSPACE, 9_000), Miss(0, MissCause.EXPIRED, 10)

    assert greater_miss(foreign, own) is own
    assert greater_miss(foreign, None) is foreign
    assert greater_miss(Miss(3, MissCause.CHANGED, 9_000), own) != own
