"""Tokens guessed from bytes, in the one place where that is done."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.core.models import ModelFacts
from gateway.core.prompt_reader import read_prompt
from gateway.core.typical import block_tokens, prompt_tokens
from tests.support.bodies import TOOLS, agent_body, dump, prose, single, tool

FACTS = ModelFacts(id="m", minimum_cacheable_tokens=512, bytes_per_token=3.5)


def tokens(*blocks: dict[str, Any]) -> int:
    return block_tokens(read_prompt(dump(single(list(blocks)))), FACTS)[-1]


def picture(size: int) -> dict[str, Any]:
    data = base64.b64encode(bytes(size)).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


PAGES = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "a" * 480_000},
}


def test_a_file_counts_the_same_alone_and_within_what_a_tool_returned() -> None:
    """Screenshots come so."""
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [picture(90_000), picture(90_000), PAGES]}

    assert tokens(picture(90_000)) == 1_600
    assert tokens(PAGES) == pytest.approx(10_000, rel=0.01)
    assert tokens(nested) == pytest.approx(13_200, rel=0.02)


def test_a_picture_from_elsewhere_is_one_all_the_same() -> None:
    assert tokens({"type": "image", "source": {"type": "file", "file_id": "file_1"}}) == 1_600


def test_a_tool_s_input_is_text_whatever_it_looks_like() -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": picture(90_000)}

    assert tokens(call) > 30_000


def test_the_whole_prompt_has_room_for_tools_and_a_format() -> None:
    def whole(**more: Any) -> int:
        prompt = read_prompt(dump(single(prose(900), **more)))
        return prompt_tokens(prompt, FACTS) - (block_tokens(prompt, FACTS) or (0,))[-1]

    assert whole() == 0
    assert whole(tools=[tool(1)]) == 500
    assert whole(tools=[TOOLS["bash"], tool(1)]) == 1_200
    assert whole(output_config={"format": "x" * 350}) > 100


def test_what_is_known_of_the_blocks_is_not_counted_again() -> None:
    prompt = read_prompt(dump(agent_body(turns=2)))

    assert prompt_tokens(prompt, FACTS, 7_000) == 7_500
    assert prompt_tokens(prompt, FACTS) == prompt_tokens(prompt, FACTS, block_tokens(prompt, FACTS)[-1])
