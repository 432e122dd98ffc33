"""What can be warmed, up to where, and what is said where it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.ids import WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.prompt import TTL, Level
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import ClientMarks, Workspace
from gateway.core.warmup import WarmPlan, plan_warm_up, why_not_warmable
from tests.support.bodies import (
    HOUR_MARK,
    MARK,
    MODEL,
    agent_body,
    claude_code_body,
    conversation,
    dump,
    prose,
    single,
    tool,
)

FACTS = ModelFacts(id=MODEL, minimum_cacheable_tokens=512, bytes_per_token=3.5)
LONG = prose(9_000)
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}
CITED = {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}


def workspace(ttl: str = "5m", marks: ClientMarks = ClientMarks.HANDS_OFF) -> Workspace:
    return Workspace(id=WorkspaceId("w"), organisation="o", upstream="u", ttl=ttl, client_marks=marks)


def why(body: Any, upto: int | None = None) -> str | None:
    return why_not_warmable(read_prompt(dump(body)), upto)


def plan(body: Any, space: Workspace | None = None) -> WarmPlan:
    return plan_warm_up(read_prompt(dump(body)), FACTS, space or workspace())


@pytest.mark.parametrize(
    "refused",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 2_048}},
        {"tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "tool", "name": "tool_1"}},
        {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}}},
        {"output_format": {"type": "json_schema", "schema": {}}},
        {"compaction": {"type": "summarize"}},
        {"thread": {"type": "create"}},
        {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]},
        {"container": "container_1"},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        {"context_management": "whatever"},
    ],
)
def test_trap_30_what_the_api_refuses_with_nothing_to_generate_is_not_warmed(refused: Any) -> None:
    assert why({**agent_body(), **refused}) is not None


@pytest.mark.parametrize(
    "taken",
    [
        {},
        {"stream": True},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"output_config": {"format": None}},
        {"compaction": None, "mcp_servers": []},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"metadata": {"user_id": "u"}, "service_tier": "standard_only"},
    ],
)
def test_what_the_api_takes_is_warmed(taken: Any) -> None:
    assert why({**agent_body(), **taken}) is None


def test_claude_code_can_be_warmed() -> None:
    assert why(claude_code_body()) is None


def test_marks_that_are_not_understood_are_left_alone() -> None:
    strange = single([{"type": "text", "text": LONG, "cache_control": {"type": "for ever"}}])

    assert why(strange) is not None


def test_an_image_behind_the_boundary_changes_the_cache_before_it() -> None:
    body = conversation(1, 1, 1)
    body["messages"][-1]["content"].append(IMAGE)
    first_user = 1

    assert why(body, first_user) is not None
    assert why(body, 0) is None, "but not that of the system prompt"
    body["messages"][0]["content"].insert(0, IMAGE)
    assert why(body, first_user + 1) is None, "and it does no harm where there is one before, too"


def test_citations_behind_the_boundary_change_the_system_prompt_too() -> None:
    body = single([CITED, {"type": "text", "text": "?"}], system=LONG, tools=[tool(1, 9_000)])

    assert why(body, 1) is not None
    assert why(body, 0) is None


def marked(planned: WarmPlan) -> list[tuple[int, TTL]]:
    return [(mark.block, mark.ttl) for mark in planned.marks]


def test_the_placeholder_is_not_part_of_what_is_warmed() -> None:
    planned = plan(single("warmup", system=LONG, tools=[tool(1)], max_tokens=0))

    assert marked(planned) == [(1, TTL.FIVE_MINUTES)]
    assert planned.upto == 1


def test_a_shared_opening_is_warmed_up_to_the_question() -> None:
    body = conversation(2, 1, 1)
    prompt = read_prompt(dump(body))
    planned = plan(body)

    assert prompt.blocks[planned.upto].role == "assistant"
    assert planned.upto == len(prompt.blocks) - 2
    assert prompt.blocks[planned.marks[0].block].level is Level.SYSTEM


def test_the_last_block_is_warmed_where_it_is_no_text() -> None:
    body = agent_body(turns=2)
    prompt = read_prompt(dump(body))

    assert plan(body).upto == len(prompt.blocks) - 1


def test_the_workspaces_ttl_is_what_real_calls_are_marked_with() -> None:
    assert marked(plan(single("q", system=LONG), workspace(ttl="1h"))) == [(0, TTL.ONE_HOUR)]


def test_marks_of_the_client_are_where_real_calls_read() -> None:
    body = single(
        [{"type": "text", "text": "q", "cache_control": MARK}],
        system=[
            {"type": "text", "text": LONG, "cache_control": HOUR_MARK},
            {"type": "text", "text": prose(4_000, 1)},
        ],
    )

    assert marked(plan(body)) == [(0, TTL.ONE_HOUR), (1, TTL.FIVE_MINUTES)], (
        "the second moves to the boundary"
    )


def test_an_automatic_breakpoint_moves_to_the_boundary() -> None:
    assert marked(plan(single("q", system=LONG, cache_control=HOUR_MARK))) == [(0, TTL.ONE_HOUR)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (single(LONG), "one question"),
        (single("q", system="Be brief."), "caches from 512"),
        (single("q", system=LONG, tool_choice={"type": "any"}), "forces a tool"),
    ],
)
def test_what_is_not_warmed_says_why(body: Any, says: str) -> None:
    planned = plan(body)

    assert planned.why_not is not None
    assert says in planned.why_not
    assert planned.marks == ()


def test_there_are_never_more_than_four_breakpoints() -> None:
    marks = [{"type": "text", "text": prose(4_000, at), "cache_control": MARK} for at in range(3)]
    body = conversation(1, 1, 1, system=marks)
    body["messages"][-1]["content"][0]["cache_control"] = MARK

    assert len(plan(body, workspace(marks=ClientMarks.COMPLETE)).marks) == 4
