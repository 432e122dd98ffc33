"""The last guard over any policy: what the API would refuse is refused here, whoever planned it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.models import ModelFacts
from gateway.core.placement import Breakpoint, Placement, check_placement
from gateway.core.prompt import TTL
from gateway.core.prompt_reader import read_prompt
from gateway.core.typical import block_tokens
from tests.support.bodies import (
    BLOCKS,
    HOUR_MARK,
    MARK,
    MODEL,
    TOOLS,
    claude_code_body,
    conversation,
    dump,
    single,
)

FACTS = ModelFacts(id=MODEL, minimum_cacheable_tokens=512, bytes_per_token=3.5)
NESTED = {
    "type": "tool_result",
    "tool_use_id": "t",
    "content": [{"type": "text", "text": "x", "cache_control": MARK}],
}


@pytest.mark.parametrize(
    ("body", "points", "why"),
    [
        (conversation(1, 1, 1), [(1, "5m"), (0, "5m")], "order of the blocks"),
        (conversation(1, 1, 1), [(1, "5m"), (1, "5m")], "order of the blocks"),
        (conversation(1, 1, 1), [(9, "5m")], "no block"),
        (conversation(1, 1, 1), [(-1, "5m")], "no block"),
        (conversation(1, 1, 9), [(index, "5m") for index in range(5)], "more than four"),
        (conversation(1, 1, 9, cache_control=MARK), [(index, "5m") for index in range(4)], "more than four"),
        (conversation(1, 1, 1), [(0, "5m"), (1, "1h")], "1h breakpoint would come after"),
        (conversation(1, 1, 1, cache_control=HOUR_MARK), [(0, "5m")], "1h breakpoint would come after"),
        (conversation(1, 1, 1, cache_control=MARK), [(3, "5m")], "automatic"),
        (conversation(1, 1, 1, cache_control={"type": "x"}), [(0, "5m")], "unknown"),
        (conversation(1, 1, 1, thread={"type": "continue"}), [(0, "5m")], "thread"),
        (single("x", system=""), [(0, "5m")], "empty"),
        (single("x", system=[{"type": "image"}]), [(0, "5m")], "takes no breakpoint"),
        (single("x", tools=[TOOLS["deferred"]]), [(0, "5m")], "deferred"),
        (
            single("x", tools=[{"type": "mcp_toolset", "default_config": {"defer_loading": True}}]),
            [(0, "5m")],
            "deferred",
        ),
        (claude_code_body(mark=False), [(12, "5m")], "no part of the prompt"),
        (single([BLOCKS["thinking"]]), [(0, "5m")], "type"),
        (single([BLOCKS["redacted_thinking"]]), [(0, "5m")], "type"),
        (single([BLOCKS["no type"]]), [(0, "5m")], "type"),
        *((single([BLOCKS[name]]), [(0, "5m")], "no text") for name in ("empty text", "blank text")),
        (single([{"type": "text", "text": "x", "cache_control": MARK}]), [(0, "5m")], "already"),
        (single([{"type": "text", "text": "x", "cache_control": None}]), [(0, "5m")], "already"),
        (single([NESTED]), [(0, "5m")], "already"),
    ],
)
def test_the_last_guard_refuses_what_the_api_would(
    body: Any, points: list[tuple[int, str]], why: str
) -> None:
    prompt = read_prompt(dump(body))
    placement = Placement(breakpoints=tuple(Breakpoint(block, TTL(ttl), "A test.") for block, ttl in points))
    problem = check_placement(prompt, placement)

    assert problem is not None
    assert why in problem


def test_the_last_guard_lets_an_empty_placement_pass_whatever_the_client_did() -> None:
    prompt = read_prompt(dump(conversation(1, 1, 1, cache_control={"type": "x"})))

    assert check_placement(prompt, Placement(reason="None.")) is None


def test_tokens_accumulate_and_leave_out_what_is_not_in_the_prompt() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a" * 700_000}}
    paper = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "a" * 480_000},
    }
    prompt = read_prompt(
        dump(single([{"type": "text", "text": "x" * 3_500}, image, paper], tools=[TOOLS["deferred"]]))
    )
    deferred, text, with_image, with_paper = block_tokens(prompt, FACTS)

    assert deferred == 0
    assert text == pytest.approx(1_000, abs=20)
    assert with_image - text == pytest.approx(1_600, abs=1)
    assert with_paper - with_image == pytest.approx(10_000, rel=0.01)
