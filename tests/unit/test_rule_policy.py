"""Which breakpoints the rules give to which shape of request."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import Placement, check_placement
from gateway.core.prompt import TTL, Level, Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import ClientMarks, Workspace
from gateway.core.typical import block_tokens
from tests.support.bodies import (
    BLOCKS,
    HOUR_MARK,
    MARK,
    MODEL,
    TOOLS,
    agent_body,
    ai_sdk_body,
    blocks,
    claude_code_body,
    conversation,
    dump,
    instructor_body,
    llama_index_body,
    prose,
    single,
    tool,
)

FACTS = ModelFacts(id=MODEL, minimum_cacheable_tokens=512, bytes_per_token=3.5)
LONG = prose(9_000)


def workspace(ttl: str = "5m", marks: ClientMarks = ClientMarks.HANDS_OFF) -> Workspace:
    return Workspace(id=WorkspaceId("w"), organisation="o", upstream="u", ttl=ttl, client_marks=marks)


COMPLETE = workspace(marks=ClientMarks.COMPLETE)


def plan(body: Any, space: Workspace | None = None, facts: ModelFacts = FACTS) -> tuple[Prompt, Placement]:
    prompt = read_prompt(dump(body))
    keys = tuple(PrefixKey(b"k") for _ in prompt.blocks)
    placement = RulePolicy().plan(prompt, keys, facts, space or workspace())
    assert check_placement(prompt, placement) is None
    return prompt, placement


def marked(body: Any, space: Workspace | None = None, facts: ModelFacts = FACTS) -> list[tuple[str, int]]:
    """Where breakpoints go, as level and place: of the entry, or of the message."""
    prompt, placement = plan(body, space, facts)
    found = []
    for point in placement.breakpoints:
        block = prompt.blocks[point.block]
        same = [index for index, other in enumerate(prompt.blocks) if other.level is block.level]
        found.append((block.level.value, block.message if block.message >= 0 else same.index(point.block)))
    return found


def reason(body: Any, space: Workspace | None = None, facts: ModelFacts = FACTS) -> str:
    _, placement = plan(body, space, facts)
    assert not placement.breakpoints
    return placement.reason


def test_an_agents_request_gets_head_previous_turn_and_tail() -> None:
    body = agent_body(turns=5, tools=4, size=40_000)

    assert marked(body) == [("tools", 3), ("system", 0), ("messages", 8), ("messages", 10)]


def test_each_turn_reads_where_the_one_before_wrote() -> None:
    """The previous request's last breakpoint is the second to last of the next one."""
    for turns in range(1, 8):
        _, before = plan(agent_body(turns=turns, tools=4, size=40_000))
        _, after = plan(agent_body(turns=turns + 1, tools=4, size=40_000))

        assert before.breakpoints[-1].block == after.breakpoints[-2].block


def test_trap_11_tools_are_marked_where_there_is_no_system_and_else_only_with_a_slot_to_spare() -> None:
    body = agent_body(turns=2, tools=6, size=40_000)
    del body["system"]
    long_turn = agent_body(turns=2, tools=6, size=40_000)
    long_turn["messages"][-1]["content"] += blocks(25)

    assert marked(body) == [("tools", 5), ("messages", 2), ("messages", 4)]
    assert "tools" not in [level for level, _ in marked(long_turn)]


def test_trap_12_one_shot_requests_get_none() -> None:
    assert "first question" in reason(single(LONG))
    assert "first question" in reason(single(blocks(40)))


def test_trap_12_a_first_turn_without_tools_writes_its_system_only() -> None:
    assert marked(single(LONG, system=LONG)) == [("system", 0)]


def test_trap_12_a_forced_tool_is_an_extraction_and_its_message_is_not_written() -> None:
    body = instructor_body()
    body["tools"] = [tool(1, 5_000)]

    assert marked(body) == [("tools", 0)]


def test_an_agents_first_turn_writes_its_tail() -> None:
    body = ai_sdk_body()
    body["messages"][0]["content"] = LONG

    assert marked(body) == [("system", 0), ("messages", 0)]


def test_trap_07_a_long_turn_gets_one_on_the_way() -> None:
    """More than nineteen blocks between the last write and the tail."""

    def places(added: int) -> list[int]:
        return [point.block for point in plan(conversation(1, 1, added))[1].breakpoints]

    assert places(19) == [0, 1, 21]
    assert places(30) == [0, 1, 12, 32]


def test_trap_07_every_position_since_the_last_write_is_within_a_lookback() -> None:
    for added in range(1, 38):
        prompt, placement = plan(conversation(2, 3, added))
        last_write = 2
        tail = len(prompt.blocks) - 1
        seen = {point.block - back for point in placement.breakpoints for back in range(20)}

        assert set(range(last_write, tail + 1)) <= seen


def test_trap_04_walks_back_to_a_block_that_takes_a_breakpoint() -> None:
    body = conversation(1, 1, 2)
    body["messages"][-1]["content"] += [
        BLOCKS["a type of next year"],
        BLOCKS["blank text"],
        BLOCKS["empty text"],
    ]
    prompt, placement = plan(body)

    assert prompt.blocks[placement.breakpoints[-1].block].end == prompt.blocks[4].end


def test_trap_04_deferred_tools_at_the_end_are_passed_over() -> None:
    body = single("hi", tools=[tool(0, 5_000), TOOLS["deferred"], TOOLS["deferred"]])

    assert marked(body)[0] == ("tools", 0)


def test_a_prefill_is_not_the_tail() -> None:
    assert marked(conversation(1, 1, 1, 1)) == [("system", 0), ("messages", 0), ("messages", 2)]


def test_trap_12_a_prefilled_extraction_is_still_a_first_turn() -> None:
    body = conversation(1, 1)
    assert marked(body) == [("system", 0)]
    del body["system"]
    assert "first question" in reason(body)


def test_a_paused_server_tool_turn_is_the_tail() -> None:
    body = conversation(1, 1, 1)
    body["messages"].append(
        {"role": "assistant", "content": [BLOCKS["server_tool_use"], BLOCKS["web_search_tool_result"]]}
    )
    prompt, placement = plan(body)

    assert prompt.blocks[placement.breakpoints[-1].block].type == "web_search_tool_result"


def test_trap_06_below_the_minimum_there_is_no_breakpoint() -> None:
    short = conversation(1, 1, 1)
    short["system"] = prose(600)
    lenient = ModelFacts(id=MODEL, minimum_cacheable_tokens=300, bytes_per_token=3.5)
    strict = ModelFacts(id=MODEL, minimum_cacheable_tokens=100_000, bytes_per_token=3.5)

    assert "system" not in [level for level, _ in marked(short, facts=lenient)]
    assert "100000" in reason(agent_body(size=30_000), facts=strict)


def test_trap_06_the_minimum_counts_the_whole_prefix_with_a_margin() -> None:
    body = {
        "model": MODEL,
        "max_tokens": 5,
        "system": "x" * 1_000,
        "messages": conversation(1, 1, 1)["messages"],
    }
    tokens = block_tokens(read_prompt(dump(body)), FACTS)
    for minimum, expected in ((int(tokens[0] / 1.2), True), (tokens[0], False)):
        facts = ModelFacts(id="m", minimum_cacheable_tokens=minimum, bytes_per_token=3.5)

        assert (("system", 0) in marked(body, facts=facts)) is expected


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_the_workspaces_ttl_is_used_everywhere(ttl: str) -> None:
    _, placement = plan(agent_body(size=40_000), workspace(ttl))

    assert {TTL(ttl)} == {point.ttl for point in placement.breakpoints}


def test_trap_02_hands_off_where_the_client_marks() -> None:
    nested = conversation(1, 1, 1)
    child = {"type": "text", "text": "x", "cache_control": MARK}
    nested["messages"][0]["content"].append({"type": "tool_result", "tool_use_id": "t", "content": [child]})

    for body in (claude_code_body(), conversation(1, 1, 1, cache_control=MARK), nested):
        assert "its own breakpoints" in reason(body)


def test_trap_01_completing_fills_no_more_than_four() -> None:
    body = conversation(1, 1, 1, 1, 30)
    for message in body["messages"][:4]:
        message["content"][0]["cache_control"] = MARK

    assert "four" in reason(body, COMPLETE)
    del body["messages"][0]["content"][0]["cache_control"]
    assert marked(body, COMPLETE) == [("system", 0)]


def test_completing_leaves_what_the_client_marked() -> None:
    body = claude_code_body(turns=4)
    prompt, placement = plan(body, COMPLETE)

    assert len(placement.breakpoints) == 1
    assert prompt.blocks[placement.breakpoints[0].block].level is Level.MESSAGES


def test_completing_an_automatic_breakpoint_leaves_it_the_tail() -> None:
    body = conversation(1, 1, 1, cache_control=HOUR_MARK)
    _, placement = plan(body, COMPLETE)

    assert marked(body, COMPLETE) == [("system", 0), ("messages", 0)]
    assert {TTL.ONE_HOUR} == {point.ttl for point in placement.breakpoints}


def test_trap_03_ttls_never_rise_across_the_clients_own() -> None:
    body = conversation(1, 1, 1, 1, 1)
    body["messages"][0]["content"][0]["cache_control"] = HOUR_MARK
    prompt, placement = plan(body, COMPLETE)
    assert [point.ttl for point in placement.breakpoints] == [
        TTL.ONE_HOUR,
        TTL.FIVE_MINUTES,
        TTL.FIVE_MINUTES,
    ]

    body["messages"][0]["content"][0]["cache_control"] = MARK
    prompt, placement = plan(body, workspace("1h", ClientMarks.COMPLETE))
    assert [point.ttl for point in placement.breakpoints] == [
        TTL.ONE_HOUR,
        TTL.FIVE_MINUTES,
        TTL.FIVE_MINUTES,
    ]
    assert prompt.client_marks == 1


def test_trap_03_the_clients_own_wrong_order_is_not_added_to() -> None:
    body = conversation(1, 1, 1)
    body["messages"][0]["content"][0]["cache_control"] = MARK
    body["messages"][2]["content"][0]["cache_control"] = HOUR_MARK

    assert "refuses" in reason(body, COMPLETE)


def test_marks_of_an_unknown_kind_stop_everything() -> None:
    body = conversation(1, 1, 1, cache_control={"type": "ephemeral", "ttl": "24h"})

    assert "does not know" in reason(body, COMPLETE)


@pytest.mark.parametrize(
    "name", ["web_search", "code_execution", "mcp_toolset", "tool_search", "a type of next year"]
)
def test_trap_13_server_tools_keep_a_slot_free(name: str) -> None:
    body = conversation(1, 1, 30, tools=[tool(0, 5_000), TOOLS[name]])

    assert len(plan(body)[1].breakpoints) == 3
    assert len(plan(conversation(1, 1, 30, tools=[tool(0, 5_000), TOOLS["bash"]]))[1].breakpoints) == 4


def test_trap_13_mcp_servers_keep_a_slot_free() -> None:
    assert len(plan(conversation(1, 1, 30, mcp_servers=[{"type": "url"}]))[1].breakpoints) == 3


def test_trap_14_a_thread_is_left_alone() -> None:
    continued = conversation(1, 1, 1, thread={"type": "continue", "previous_message_id": "msg_1"})
    created = agent_body(turns=0, size=40_000, thread={"type": "create"})

    assert "thread" in reason(continued)
    assert "thread" in reason(created)
    assert not marked(created)


def test_a_warm_up_is_not_keyed_to_its_placeholder() -> None:
    body = agent_body(turns=0, size=40_000, max_tokens=0)
    body["messages"] = [{"role": "user", "content": "warmup"}]

    assert [level for level, _ in marked(body)] == ["tools", "system"]


def test_a_keep_alive_of_a_conversation_reads_where_the_conversation_wrote() -> None:
    body = agent_body(turns=3, size=40_000)

    assert marked({**body, "max_tokens": 0}) == marked(body)


def test_trap_65_token_counting_gets_none() -> None:
    body = agent_body(turns=3)
    del body["max_tokens"]

    assert "Nothing will be generated" in reason(body)


def test_claude_code_without_marks_of_its_own_is_never_marked_on_its_attribution() -> None:
    prompt, placement = plan(claude_code_body(mark=False))
    levels = [
        (prompt.blocks[point.block].level, prompt.blocks[point.block].in_prefix)
        for point in placement.breakpoints
    ]

    assert (Level.SYSTEM, True) in levels
    assert all(in_prefix for _, in_prefix in levels)
    body = claude_code_body(mark=False)
    body["system"] = body["system"][:1]
    assert "system" not in [level for level, _ in marked(body)]


def test_llama_indexs_empty_system_takes_none() -> None:
    body = llama_index_body()
    body["messages"] = conversation(1, 1, 1)["messages"]
    body["messages"][0]["content"] = LONG

    assert marked(body) == [("messages", 0), ("messages", 2)]


def test_trap_18_the_same_request_is_always_placed_alike() -> None:
    """Warm-up, retry and real call must not differ; a fallback credit asks for the same marks."""
    body = agent_body(turns=3)

    assert plan(body)[1] == plan(copy.deepcopy(body))[1]


def test_reasons_are_sentences_for_people() -> None:
    _, placement = plan(conversation(1, 1, 40))

    assert len({point.reason for point in placement.breakpoints}) == 4
    for text in (placement.reason, *(point.reason for point in placement.breakpoints)):
        assert text[0].isupper()
        assert text.endswith(".")
