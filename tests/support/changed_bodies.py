"""Pairs of bodies of which the second is nearly the first: each kind of change, and its name."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from gateway.core.misses import Looks
from tests.support.bodies import desk_body, distinct_tool, words

Body = dict[str, Any]
Edit = Callable[[Body], None]


def edited(body: Body, edit: Edit) -> Body:
    copy = deepcopy(body)
    edit(copy)
    return copy


def set_slot(text: str) -> Edit:
    """Another text in the middle of the second system block."""

    def edit(body: Body) -> None:
        body["system"] = desk_body(slot=text)["system"]

    return edit


def set_system(*texts: str) -> Edit:
    def edit(body: Body) -> None:
        body["system"] = [{"type": "text", "text": text} for text in texts]

    return edit


def reorder_keys(body: Body) -> None:
    body["tools"] = [{key: tool[key] for key in reversed(tool)} for tool in body["tools"]]
    for tool in body["tools"]:
        properties = tool["input_schema"]["properties"]
        tool["input_schema"]["properties"] = dict(reversed(properties.items()))


def describe_a_tool(body: Body) -> None:
    body["tools"][3]["description"] += " It is 2026-11-22T10:04:31Z."


SLOT = "The time is 2026-11-22T10:04:31Z."
LONG, ROLE = words(6_000, 1), words(400, 2)
HEADS: dict[str, tuple[Edit, Edit, Looks, str]] = {
    "timestamp": (
        set_slot(SLOT),
        set_slot("The time is 2026-11-22T10:05:02Z."),
        Looks.TIMESTAMP,
        "system[1]",
    ),
    "timestamp of another length": (
        set_slot("The time is 9:58 AM."),
        set_slot("The time is 10:02 AM."),
        Looks.TIMESTAMP,
        "system[1]",
    ),
    "date": (
        set_slot("Today is November 22, 2026."),
        set_slot("Today is November 23, 2026."),
        Looks.DATE,
        "system[1]",
    ),
    "uuid": (
        set_slot("Session 3f2b8c1e-0d4a-4c55-9f1e-2b7c8d9e0f1a."),
        set_slot("Session 91cc7a52-77b0-4f0e-8d55-0c1a2b3c4d5e."),
        Looks.UUID,
        "system[1]",
    ),
    "random id": (
        set_slot("Request req_01HZX4kQ9v7aB2c3 begins."),
        set_slot("Request req_07Kd3mW8s1tY5r6q begins."),
        Looks.RANDOM_ID,
        "system[1]",
    ),
    "counter": (
        set_slot("You have 99 turns."),
        set_slot("You have 100 turns."),
        Looks.COUNTER,
        "system[1]",
    ),
    "path": (
        set_slot("Working directory: /home/ada/src/gateway"),
        set_slot("Working directory: /home/grace/compiler"),
        Looks.PATH,
        "system[1]",
    ),
    "edited sentence": (
        set_slot("Always answer politely."),
        set_slot("Never answer in more than a few lines, unless asked."),
        Looks.EDITED,
        "system[1]",
    ),
    "white space": (
        set_slot("One line.\nAnother."),
        set_slot("One line.\n\n  Another."),
        Looks.WHITE_SPACE,
        "system[1]",
    ),
    "timestamp in a block of its own, first": (
        set_system("It is 2026-11-22T10:04:31Z.", LONG),
        set_system("It is 2026-11-22T10:05:31Z.", LONG),
        Looks.TIMESTAMP,
        "system[0]",
    ),
    "timestamp in a block of its own, last": (
        set_system(LONG, "It is 2026-11-22T10:04:31Z."),
        set_system(LONG, "It is 2026-11-22T10:05:31Z."),
        Looks.TIMESTAMP,
        "system[1]",
    ),
    "timestamp at the end of a string": (
        lambda body: body.update(system=LONG + " It is 2026-11-22T10:04:31Z."),
        lambda body: body.update(system=LONG + " It is 2026-11-22T10:05:31Z."),
        Looks.TIMESTAMP,
        "system",
    ),
    "block put in": (
        set_system(ROLE, LONG),
        set_system(ROLE, words(300, 9), LONG),
        Looks.ADDED_BLOCK,
        "system[1]",
    ),
    "block taken out": (
        set_system(ROLE, words(300, 9), LONG),
        set_system(ROLE, LONG),
        Looks.REMOVED_BLOCK,
        "system[1]",
    ),
    "blocks reordered": (
        set_system(ROLE, LONG),
        set_system(LONG, ROLE),
        Looks.REORDERED_BLOCKS,
        "system[0]",
    ),
    "tools reordered": (
        lambda body: None,
        lambda body: body["tools"].sort(key=lambda tool: tool["description"]),
        Looks.REORDERED_TOOLS,
        "tools[0]",
    ),
    "keys reordered": (lambda body: None, reorder_keys, Looks.REORDERED_KEYS, "tools[0]"),
    "tool added at the end": (
        lambda body: None,
        lambda body: body["tools"].append(distinct_tool(20)),
        Looks.ADDED_TOOL,
        "tools[8]",
    ),
    "tool added at the front": (
        lambda body: None,
        lambda body: body["tools"].insert(0, distinct_tool(20)),
        Looks.ADDED_TOOL,
        "tools[0]",
    ),
    "tool removed": (
        lambda body: None,
        lambda body: body["tools"].pop(5),
        Looks.REMOVED_TOOL,
        "tools[5]",
    ),
    "tool's description": (describe_a_tool, set_slot(SLOT), Looks.EDITED, "tools[3]"),
}


def drop_oldest(body: Body) -> None:
    del body["messages"][1:5]


def shorten(body: Body) -> None:
    body["messages"][4]["content"][0]["text"] = "[cleared]"


def insert(body: Body) -> None:
    body["messages"].insert(3, {"role": "user", "content": words(200, 77)})
    body["messages"].insert(3, {"role": "assistant", "content": words(150, 78)})


def date_the_question(body: Body) -> None:
    body["messages"][0]["content"] = "It is 2026-11-22T10:04:31Z. " + words(900, 12)


def date_it_again(body: Body) -> None:
    body["messages"][0]["content"] = "It is 2026-11-22T10:05:44Z. " + words(900, 12)


HISTORIES: dict[str, tuple[Edit, Edit, Looks, str]] = {
    "oldest dropped": (lambda body: None, drop_oldest, Looks.DROPPED_MESSAGES, "messages[1].content[0]"),
    "answer cleared": (lambda body: None, shorten, Looks.SHORTENED, "messages[4].content[0]"),
    "something put in": (lambda body: None, insert, Looks.INSERTED_MESSAGES, "messages[3].content"),
    "instant in the first question": (
        date_the_question,
        date_it_again,
        Looks.TIMESTAMP,
        "messages[0].content",
    ),
}
