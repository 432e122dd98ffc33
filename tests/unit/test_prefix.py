"""Which prompts have the same keys, and which must not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.prefix import KEY_BYTES, cache_scope, prefix_keys
from gateway.core.prompt import Level
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import HOUR_MARK, MARK, agent_body, claude_code_body, dump, pretty, single, tool

BODY = agent_body(turns=3, tools=3, size=12_000)
TOOLS, SYSTEM = 3, 1


def keys(
    body: Any, *, secret: bytes = b"s", workspace: str = "w", betas: tuple[bytes, ...] = ()
) -> tuple[PrefixKey, ...]:
    prompt = read_prompt(body if isinstance(body, bytes) else dump(body))
    headers = [(b"anthropic-beta", beta) for beta in betas]
    scope = cache_scope(secret=secret, workspace=WorkspaceId(workspace), prompt=prompt, headers=headers)
    return prefix_keys(prompt, scope)


def changed(**more: Any) -> dict[str, Any]:
    return {**BODY, **more}


def shared(body: Any, other: Any = BODY) -> int:
    """How many keys two bodies share from the start; none after the first that differs."""
    pairs = list(zip(keys(body), keys(other), strict=True))
    count = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
    assert not {a for a, _ in pairs[count:]} & {b for _, b in pairs}
    return count


ALL = len(keys(BODY))


def test_a_key_is_sixteen_bytes_and_each_block_has_its_own() -> None:
    found = keys(BODY)

    assert {KEY_BYTES} == {len(key) for key in found}
    assert len(set(found)) == len(found) == len(read_prompt(dump(BODY)).blocks)


@pytest.mark.parametrize(
    "other",
    [
        keys(BODY, secret=b"another"),
        keys(BODY, workspace="another"),
        keys(BODY, betas=(b"fast-mode-2026-02-01",)),
        keys(changed(model="claude-opus-5-5")),
        keys(changed(speed="fast")),
        keys(changed(inference_geo="us")),
        keys(changed(mcp_servers=[{"type": "url", "url": "https://example.com", "name": "n"}])),
        keys(changed(output_config={"format": {"type": "json_schema", "schema": {}}})),
        keys(changed(thread={"type": "continue", "previous_message_id": "msg_1"})),
    ],
)
def test_trap_19_another_scope_shares_no_key(other: tuple[PrefixKey, ...]) -> None:
    """Each of these is a cold prefix."""
    assert not set(keys(BODY)) & set(other)


def test_parts_of_a_scope_do_not_run_into_each_other() -> None:
    assert keys(BODY, secret=b"ab", workspace="c") != keys(BODY, secret=b"a", workspace="bc")


def test_betas_count_as_a_set() -> None:
    one = keys(BODY, betas=(b"a-2025, b-2025",))

    assert one == keys(BODY, betas=(b"b-2025", b"a-2025,a-2025"))
    assert one != keys(BODY, betas=(b"a-2025",))


@pytest.mark.parametrize(
    "other",
    [
        changed(max_tokens=1),
        changed(stream=False),
        changed(metadata={"user_id": "u"}),
        changed(stop_sequences=["x"]),
        changed(diagnostics={"previous_message_id": None}),
        changed(thread={"type": "create"}),
        changed(cache_control=MARK),
    ],
)
def test_what_does_not_reach_the_prompt_changes_no_key(other: Any) -> None:
    assert shared(other) == ALL


@pytest.mark.parametrize(
    "other",
    [
        changed(tool_choice={"type": "any"}),
        changed(thinking={"type": "adaptive"}),
        changed(output_config={"effort": "high"}),
        changed(output_config={"task_budget": {"type": "tokens", "total": 5}}),
    ],
)
def test_some_parameters_lose_the_messages_only(other: Any) -> None:
    assert shared(other) == TOOLS + SYSTEM


def test_a_block_that_changes_loses_itself_and_what_follows() -> None:
    tools = changed(tools=[tool(0), tool(7), tool(2)])
    system = changed(system=[{"type": "text", "text": "another"}])
    late = copy.deepcopy(BODY)
    late["messages"][-1]["content"][0]["content"] = "another"

    assert shared(tools) == 1
    assert shared(system) == TOOLS
    assert shared(late) == ALL - 1


def test_trap_16_order_and_spelling_inside_a_tools_input_matter() -> None:
    """The API renders what it gets, and order and spelling of numbers are part of it."""
    inputs: tuple[Any, ...] = ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0, "b": 2})
    found = {
        keys(single([{"type": "tool_use", "id": "t", "name": "n", "input": each}]))[-1] for each in inputs
    }

    assert len(found) == 3


def test_marks_do_not_count_wherever_they_stand() -> None:
    marked = copy.deepcopy(BODY)
    marked["tools"][1] = {"cache_control": HOUR_MARK, **marked["tools"][1]}
    marked["system"][0]["cache_control"] = MARK
    block = marked["messages"][2]["content"][0]
    marked["messages"][2]["content"][0] = {"type": block["type"], "cache_control": MARK, **block}

    assert keys(marked) == keys(BODY)
    assert keys(pretty(marked)) == keys(pretty(BODY))


def test_marks_inside_a_tool_result_do_not_count() -> None:
    def result(*children: Any) -> Any:
        return single(
            [{"type": "tool_result", "tool_use_id": "t", "content": list(children), "is_error": False}]
        )

    text = {"type": "text", "text": "x", "citations": None}
    marked = {"type": "text", "cache_control": MARK, "text": "x", "citations": None}

    assert keys(result(text, text)) == keys(result(marked, {**text, "cache_control": HOUR_MARK}))


def test_trap_08_a_string_is_its_one_block_array() -> None:
    string = single("question", system="rules")
    array = single(
        [{"text": "question", "type": "text"}],
        system=[{"type": "text", "text": "rules", "cache_control": MARK}],
    )

    assert keys(string) == keys(array)


def test_text_with_more_than_text_is_not_its_string() -> None:
    assert keys(single("x")) != keys(single([{"type": "text", "text": "x", "citations": []}]))


def test_blocks_do_not_run_into_each_other() -> None:
    def texts(*parts: str) -> Any:
        return single([{"type": "text", "text": part} for part in parts])

    assert keys(texts("ab", "c"))[-1] != keys(texts("a", "bc"))[-1]
    assert keys(texts('a"T1:"b'))[-1] != keys(texts("a", "b"))[-1]


def test_a_role_counts_only_where_it_changes() -> None:
    def turns(*roles: str) -> tuple[PrefixKey, ...]:
        messages = [{"role": role, "content": "x"} for role in roles]
        return keys({"model": "m", "messages": messages})

    merged = keys(single([{"type": "text", "text": "x"}, {"type": "text", "text": "x"}], model="m"))
    assert turns("user", "user") == merged
    assert turns("user", "assistant")[-1] != merged[-1]
    assert turns("user", "system")[-1] != turns("user", "assistant")[-1]


def test_claude_codes_first_block_does_not_part_conversations() -> None:
    one, other = claude_code_body(attribution="1a2"), claude_code_body(attribution="ffe")
    without = copy.deepcopy(one)
    del without["system"][0]
    tools = len(one["tools"])

    assert keys(one) == keys(other)
    assert keys(one)[tools + 1 :] == keys(without)[tools:]
    assert keys(one)[tools] == keys(one)[tools - 1]


def test_claude_codes_next_turn_extends_the_last_one() -> None:
    """It moves its marks, unwraps the last message, and sends `output_config` with the newest one only."""
    for turns in (0, 1, 4):
        before, after = keys(claude_code_body(turns=turns)), keys(claude_code_body(turns=turns + 1))

        assert before == after[: len(before)]


def test_another_member_of_a_message_counts() -> None:
    message = {"role": "user", "content": "x"}

    assert keys({"model": "m", "messages": [message]}) != keys(
        {"model": "m", "messages": [{**message, "name": "n"}]}
    )


def test_a_deferred_tool_changes_nothing_after_it() -> None:
    found_later = {**tool(50), "defer_loading": True}
    body = changed(tools=[tool(0), found_later, tool(1), tool(2)])

    assert (keys(body)[0], *keys(body)[2:]) == keys(BODY)
    assert keys(body)[1] == keys(body)[0]


def test_a_lone_surrogate_in_output_config_is_taken_as_it_stands() -> None:
    raw = rb'{"model":"m","output_config":{"effort":"\ud800"},"messages":[{"role":"user","content":"x"}]}'
    plain = raw.replace(rb"\ud800", b"high")

    assert keys(raw) != keys(plain)
    assert read_prompt(raw).blocks[0].level is Level.MESSAGES
