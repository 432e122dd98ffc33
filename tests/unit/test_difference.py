"""Where a run of blocks first differs, and when it is still the same prompt. Each kind of change is in
`test_changes.py`; here are the rule's edges."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.difference import ALIKE, Difference, find_difference, where_is
from gateway.core.misses import Looks
from gateway.core.prompt_reader import read_prompt
from gateway.core.sketch import Keyed, Sketch
from tests.support.bodies import distinct_tool, dump, words


def body(*texts: str, tools: int = 0) -> dict[str, Any]:
    return {
        "model": "m",
        "tools": [distinct_tool(index) for index in range(tools)],
        "system": [{"type": "text", "text": text} for text in texts],
    }


def differ(old: dict[str, Any], new: dict[str, Any]) -> Difference | None:
    digest, before, after = Keyed(b"secret"), read_prompt(dump(old)), read_prompt(dump(new))
    sketches = [Sketch(prompt, prompt.blocks, digest) for prompt in (before, after)]
    return find_difference(sketches[0], sketches[1], after, after.blocks)


def test_equal_runs_do_not_differ() -> None:
    assert differ(body("a", "b", tools=2), body("a", "b", tools=2)) is None


@pytest.mark.parametrize("share", [0.2, 0.4, 0.8, 0.9])
def test_most_of_what_stands_from_the_change_on_must_be_equal(share: float) -> None:
    size = 10_000
    kept = words(int(size * share), 1)
    difference = differ(
        body(words(size, 2)[: size - len(kept)] + kept), body(words(size, 3)[: size - len(kept)] + kept)
    )

    assert difference is not None
    assert difference.alike is (share >= ALIKE)


def test_tools_in_common_do_not_make_another_systems_prompt_the_same() -> None:
    difference = differ(body(words(300, 1), tools=20), body(words(300, 2), tools=20))

    assert difference is not None
    assert not difference.alike


def test_an_instant_at_the_end_makes_it_the_same_where_most_of_the_whole_is() -> None:
    stamps = "It is 2026-11-22T10:04:31Z.", "It is 2026-11-22T10:05:31Z."
    difference = differ(body(stamps[0], tools=9), body(stamps[1], tools=9))

    assert difference is not None
    assert (difference.alike, difference.looks) == (True, Looks.TIMESTAMP)


def test_a_tool_added_before_another_system_prompt_is_another_application() -> None:
    difference = differ(body(words(900, 1), tools=9), body(words(900, 2), tools=10))

    assert difference is not None
    assert not difference.alike


def test_many_tools_changed_in_the_same_way_are_one_change() -> None:
    old, new = body(tools=6), body(tools=6)
    for run, minute in ((old, 4), (new, 5)):
        for tool in run["tools"]:
            tool["description"] += f" It is 10:0{minute}:31."
    difference = differ(old, new)

    assert difference is not None
    assert (difference.alike, difference.index, difference.looks) == (True, 0, Looks.TIMESTAMP)


def test_places_are_named_as_the_api_names_them() -> None:
    prompt = read_prompt(
        dump(
            {
                **body("a", "b", tools=2),
                "messages": [
                    {"role": "user", "content": "hi"},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    },
                ],
            }
        )
    )

    assert [where_is(prompt, block) for block in range(8)] == [
        "tools[0]",
        "tools[1]",
        "system[0]",
        "system[1]",
        "messages[0].content",
        "messages[1].content[0]",
        "messages[1].content[1]",
        "the end",
    ]
