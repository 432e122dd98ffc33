"""The bytes of a warm-up. That real calls read what they warm is in tests/property/test_warmups.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.placement import Breakpoint
from gateway.core.prompt import TTL
from gateway.core.prompt_reader import read_prompt
from gateway.core.warm_body import warm_up_body
from tests.support.bodies import MARK, agent_body, claude_code_body, conversation, dump, prose, single, tool

LONG = prose(9_000)
SCOPED = {"type": "ephemeral", "scope": "global"}


def warm(body: Any, upto: int, *others: int, ttl: TTL = TTL.FIVE_MINUTES) -> Any:
    marks = [Breakpoint(at, ttl, "") for at in sorted((*others, upto))]
    return json.loads(warm_up_body(read_prompt(dump(body)), upto, marks))


def test_trap_30_drops_what_is_refused_and_keeps_what_alters_the_prompt() -> None:
    body = agent_body(
        turns=1,
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        tool_choice={"type": "auto"},
        speed="fast",
        metadata={"user_id": "u"},
        diagnostics={"previous_message_id": None},
        fallback_credit_token="sk-test-credit",
        fallbacks="default",
        cache_control=MARK,
    )
    made = warm(body, 20)

    assert made["max_tokens"] == 0
    dropped = {"stream", "cache_control", "diagnostics", "fallbacks", "fallback_credit_token"}
    assert set(body) - set(made) == dropped
    kept = ("model", "tools", "thinking", "output_config", "tool_choice", "speed", "metadata")
    assert {name: made[name] for name in kept} == {name: body[name] for name in kept}


def test_trap_29_tools_and_system_keep_their_bytes() -> None:
    text = (
        b'{"model":"m","max_tokens":5,"tools":[ {"name":"n","input_schema":{"n":1.0,"b":2E1,"a":"\\u00e9"}}],'
    )
    text += b'"system":[{"text":"' + LONG.encode() + b'" , "type":"text"}],"messages":[]}'
    made = warm_up_body(read_prompt(text), 1, [Breakpoint(1, TTL.FIVE_MINUTES, "")])

    assert text[text.index(b'"tools"') : text.index(b'"system"')] in made
    assert b'" , "type":"text","cache_control":{"type":"ephemeral"}}]' in made


def test_ends_after_the_prefix_with_a_users_word() -> None:
    made = warm(conversation(3, 1, 1), 0)

    assert made["messages"] == [{"role": "user", "content": "warmup"}]
    assert made["system"][0]["cache_control"] == MARK


def test_a_system_prompt_behind_the_prefix_is_not_sent() -> None:
    made = warm(single("q", tools=[tool(0), tool(1)], system=LONG), 1)

    assert "system" not in made
    assert made["tools"][1]["cache_control"] == MARK


def test_only_the_wanted_system_blocks_are_sent() -> None:
    system = [{"type": "text", "text": LONG}, {"type": "text", "text": "Today is Sunday."}]
    made = warm(single("q", system=system), 0)

    assert [block["text"] for block in made["system"]] == [LONG]


def test_a_user_message_is_cut_after_the_block() -> None:
    made = warm(conversation(3, 1, 1), 2)

    assert [len(message["content"]) for message in made["messages"]] == [2]
    assert made["messages"][0]["content"][-1]["cache_control"] == MARK


def test_an_answer_stays_whole_and_is_followed_by_the_user() -> None:
    made = warm(conversation(1, 3, 1), 2)

    assert [len(message["content"]) for message in made["messages"][:2]] == [1, 3]
    assert made["messages"][2:] == [{"role": "user", "content": "warmup"}]


def parallel() -> dict[str, Any]:
    """Three tool calls in one answer, and their results."""
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "n", "input": {}} for n in range(3)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": "r"} for n in range(3)]
    return {
        **single("Do it."),
        "messages": [
            {"role": "user", "content": "Do it."},
            {"role": "assistant", "content": [{"type": "text", "text": LONG}, *calls]},
            {"role": "user", "content": results},
        ],
    }


def test_every_tool_call_has_its_result() -> None:
    """The API refuses a call without one (errors page, 2026-08-21); the simulator does not check it."""
    after_calls = warm(parallel(), 4)["messages"]
    after_first_result = warm(parallel(), 5)["messages"]

    assert [block["tool_use_id"] for block in after_calls[-1]["content"]] == ["toolu_0", "toolu_1", "toolu_2"]
    assert [block["tool_use_id"] for block in after_first_result[-1]["content"]] == [
        "toolu_0",
        "toolu_1",
        "toolu_2",
    ]
    assert after_first_result[-1]["content"][0] == {
        **parallel()["messages"][2]["content"][0],
        "cache_control": MARK,
    }


def test_marks_are_those_that_are_asked_for() -> None:
    body = claude_code_body()
    prompt = read_prompt(dump(body))
    own = [at for at, block in enumerate(prompt.blocks) if block.marks]
    made = warm(body, own[1])

    assert json.dumps(made).count("cache_control") == 1
    assert len(own) == 3


def test_a_mark_of_the_client_stays_as_it_is_spelled() -> None:
    body = single("q", system=[{"type": "text", "text": LONG, "cache_control": SCOPED}])

    assert warm(body, 0)["system"][0]["cache_control"] == SCOPED
    assert warm(body, 0, ttl=TTL.ONE_HOUR)["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


def test_there_is_a_users_word_somewhere() -> None:
    """The API wants one that is not blank (prompt caching docs, pre-warming, 2026-08-21)."""
    image = {"type": "image", "source": {"type": "url", "url": "https://x.test/i.png"}}
    made = warm(single([image, {"type": "text", "text": "What is it?"}]), 0)

    assert [message["content"] for message in made["messages"][1:]] == ["warmup"]
    assert len(made["messages"][0]["content"]) == 1


def test_a_body_without_max_tokens_gets_it() -> None:
    body = single("q", system=LONG)
    del body["max_tokens"]

    assert warm(body, 0)["max_tokens"] == 0


@pytest.mark.parametrize(
    ("body", "marks"),
    [
        (single("q", system=LONG, compaction={"type": "summarize"}), (0,)),
        (single([{"type": "text", "text": "q"}], system=LONG), (0, 1)),
    ],
)
def test_refuses_what_would_be_refused(body: Any, marks: tuple[int, ...]) -> None:
    points = [Breakpoint(at, TTL.FIVE_MINUTES, "") for at in marks]
    with pytest.raises(ValueError, match=r"."):
        warm_up_body(read_prompt(dump(body)), 0, points)


def test_refuses_a_block_that_takes_no_mark() -> None:
    body = single("q", system=[{"type": "text", "text": "  "}])
    with pytest.raises(ValueError, match="no text"):
        warm_up_body(read_prompt(dump(body)), 0, [Breakpoint(0, TTL.FIVE_MINUTES, "")])
