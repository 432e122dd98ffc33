"""Two bodies at hand: what sets them apart, to the byte. Kinds of change are those of `test_changes.py`."""

from __future__ import annotations

import pytest

from gateway.core.comparison import compare
from gateway.core.misses import Looks, Miss, MissCause
from gateway.core.prompt_reader import read_prompt
from gateway.core.typical import block_tokens
from tests.support.bodies import claude_code_body, desk_body, dump, words
from tests.support.changed_bodies import HEADS, HISTORIES, SLOT, Body, edited
from tests.support.prices import model_table


def misses(before: Body, after: Body, beta: str = "") -> tuple[Miss, ...]:
    prompt = read_prompt(dump(after))
    ends = block_tokens(prompt, model_table().facts(prompt.model))
    headers = ((b"anthropic-beta", beta.encode()),) if beta else ()
    return compare(read_prompt(dump(before)), prompt, ends, headers=headers)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "tool's description"])
def test_says_of_tools_and_system_what_digests_say(name: str) -> None:
    before, after, looks, where = HEADS[name]
    body = desk_body(turns=2, slot=SLOT)
    (miss,) = misses(edited(body, before), edited(body, after))

    assert (miss.cause, miss.looks_like, miss.where) == (MissCause.CHANGED, looks, where)
    assert miss.tokens > 0


@pytest.mark.parametrize("name", HISTORIES)
def test_says_of_a_history_what_lengths_say(name: str) -> None:
    before, after, looks, where = HISTORIES[name]
    (miss,) = misses(
        edited(desk_body(turns=5, slot=SLOT), before), edited(desk_body(turns=6, slot=SLOT), after)
    )

    assert (miss.looks_like, miss.where) == (looks if looks is not Looks.SHORTENED else Looks.EDITED, where)


def test_is_exact_to_the_byte() -> None:
    before = {**desk_body(), "system": words(500, 1) + " It is 10:04:31."}
    after = {**desk_body(), "system": words(500, 1) + " It is 10:04:52."}
    (miss,) = misses(before, after)

    assert (miss.byte, miss.exact) == (len(words(500, 1)) + len(" It is 10:04:"), True)
    assert f"at byte {miss.byte}, where a timestamp stands" in miss.reason


def test_what_goes_on_has_nothing_against_it() -> None:
    assert misses(desk_body(turns=2), desk_body(turns=3)) == ()
    assert misses(desk_body(turns=3), desk_body(turns=2)) == ()
    assert misses(claude_code_body(turns=1), claude_code_body(turns=2, attribution="zzz")) == ()


def test_tells_all_reasons_in_the_order_of_the_prompt() -> None:
    after = desk_body(turns=2, slot="10:05:00", model="claude-opus-5-5", thinking={"type": "adaptive"})
    after["messages"][1]["content"][0]["text"] += " Yes."
    found = misses(desk_body(turns=2, slot="10:04:00"), after, beta="context-1m-2025-08-07")

    assert [(miss.cause, miss.looks_like) for miss in found] == [
        (MissCause.OTHER_MODEL, ""),
        (MissCause.OTHER_PARAMETER, "anthropic-beta"),
        (MissCause.CHANGED, Looks.TIMESTAMP),
        (MissCause.OTHER_PARAMETER, "thinking"),
        (MissCause.CHANGED, Looks.EDITED),
    ]
    assert [miss.tokens for miss in found] == sorted((miss.tokens for miss in found), reverse=True)
